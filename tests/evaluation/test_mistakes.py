import csv
import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from service.errors import SettingsError
from service.evaluation.mistakes import (
    Mistake,
    copy_photographs,
    find_mistakes,
    list_worst,
    write_mistakes,
)
from service.evaluation.score import Answers


def _answers(paths: Sequence[Path], truth: Sequence[int], answer: Sequence[int], num_classes: int = 3) -> Answers:
    """Answers, each a little less sure than the one before."""
    rows = np.full((len(paths), num_classes), 0.01, np.float32)
    rows[np.arange(len(paths)), answer] = 0.9 - 0.01 * np.arange(len(paths))
    return Answers(tuple(paths), rows, np.array(truth))


def _write(folder: Path, *files: str) -> list[Path]:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(file)
    return [folder / file for file in files]


def _read(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))


def test_wrong_answers_come_most_confident_first(tmp_path: Path) -> None:
    answers = _answers([Path(name) for name in "abcd"], [0, 1, 2, 0], [0, 0, 1, 2])
    turned = Answers(answers.paths[::-1], answers.probabilities[::-1], answers.class_indices[::-1])
    assert find_mistakes(turned) == [2, 1, 0]
    assert write_mistakes(tmp_path / "wrong.csv", turned, ("x", "y", "z")) == 3
    assert _read(tmp_path / "wrong.csv") == [
        ["path", "truth", "answer", "probability", "x", "y", "z"],
        ["b", "y", "x", "0.89", "0.89", "0.01", "0.01"],
        ["c", "z", "y", "0.88", "0.01", "0.88", "0.01"],
        ["d", "x", "z", "0.87", "0.01", "0.01", "0.87"],
    ]


@pytest.mark.parametrize("name", ["=cmd()", "+1", "-1", "@sum", "\tx", "\rx"])
def test_a_cell_that_could_run_gets_an_apostrophe(name: str, tmp_path: Path) -> None:
    write_mistakes(tmp_path / "wrong.csv", _answers([Path(name)], [0], [1]), (name, "b", "c"))
    head, row = _read(tmp_path / "wrong.csv")
    assert head[4] == row[0] == row[1] == f"'{name}"
    assert row[2:4] == ["b", "0.9"]


def test_commas_quotes_and_newlines_survive_the_table(tmp_path: Path) -> None:
    names = ('a,"b"', "c\nd", "e;f'")
    path = Path(os.fsdecode(b"odd \xff,\n.jpg"))
    write_mistakes(tmp_path / "wrong.csv", _answers([path], [0], [1]), names)
    head, row = _read(tmp_path / "wrong.csv")
    assert head[4:] == list(names)
    assert row[:3] == ["odd \\udcff,\n.jpg", *names[:2]]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"mistakes cannot be written to .*nowhere"):
        write_mistakes(tmp_path / "nowhere" / "wrong.csv", _answers([], [], []), ("a", "b", "c"))


def test_copies_lie_by_truth_and_answer(tmp_path: Path) -> None:
    paths = _write(tmp_path / "photos", "test/x/1.jpg", "train/x/1.jpg", "train/x/2.jpg", "train/y/1.jpg")
    answers = _answers(paths, [0, 0, 0, 1], [1, 1, 0, 2])
    assert copy_photographs(tmp_path / "wrong", answers, ("x", "y", "z")) == 3
    copies = {path.relative_to(tmp_path / "wrong").as_posix(): path.read_text() for path in _files(tmp_path / "wrong")}
    assert copies == {
        "x/y/1.jpg": "test/x/1.jpg", "x/y/1-2.jpg": "train/x/1.jpg", "y/z/1.jpg": "train/y/1.jpg",
    }  # fmt: skip


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "names",
    [
        ("..", "."),
        ("../../x", "/etc"),
        ("", ".hidden"),
        ("a/b", "a_b"),
        ("Rose", "rose"),
        ("ä" * 200, "ä" * 201),
        tuple(unicodedata.normalize(form, "é") for form in ("NFC", "NFD")),
        ("a\x1b[2J", "a. "),
        ("x\ny", "x\\y"),
    ],
)
def test_odd_class_names_stay_inside_and_apart(names: tuple[str, str], tmp_path: Path) -> None:
    paths = _write(tmp_path / "photos", "1.jpg", "2.jpg")
    wrong = tmp_path / "deep" / "wrong"
    wrong.parent.mkdir()
    copy_photographs(wrong, _answers(paths, [0, 1], [1, 0], num_classes=2), names)
    first, second = (path.relative_to(wrong).parts for path in sorted(_files(wrong), key=lambda path: path.name))
    assert (first[2:], second[2:]) == (("1.jpg",), ("2.jpg",))
    assert first[:2] == second[1::-1]
    assert len({unicodedata.normalize("NFC", name).casefold() for name in first}) == 3
    assert not any(name.startswith(".") or len(name.encode()) > 255 or not name.isprintable() for name in first)
    assert len(_files(tmp_path)) == 4, "nothing lies elsewhere"


def test_a_photograph_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be copied to .*No such file.*gone\.jpg"):
        copy_photographs(tmp_path / "wrong", _answers([tmp_path / "gone.jpg"], [0], [1]), ("a", "b", "c"))


def test_the_most_confident_mistake_is_the_first() -> None:
    probabilities = np.array([[0.75, 0.25], [0.875, 0.125], [0.375, 0.625]], np.float32)
    answers = Answers((Path("a"), Path("b"), Path("c")), probabilities, np.array([0, 1, 0]))
    assert list_worst(answers, ["daisy", "roses"]) == (
        Mistake(Path("b"), "roses", "daisy", 0.875),
        Mistake(Path("c"), "daisy", "roses", 0.625),
    )
