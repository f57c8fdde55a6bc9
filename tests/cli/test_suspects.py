import csv
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode

from service.cli.main import main
from service.cli.suspects import list_label_errors, write_suspects
from service.data.folder import read_folder
from service.errors import DatasetError, SettingsError
from service.imaging.limits import ImageLimits
from service.training.label_errors import Suspect

SUSPECT = Suspect(Path("=cmd.jpg"), "-roses", "tulips", 0.1, 0.85, is_likely=True)


def read_rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))


def test_cells_that_a_spreadsheet_could_run_are_harmless(tmp_path: Path) -> None:
    write_suspects(tmp_path / "errors.csv", [SUSPECT])
    rows = read_rows(tmp_path / "errors.csv")
    assert rows == [
        {
            "path": "'=cmd.jpg",
            "label": "'-roses",
            "other": "tulips",
            "label_probability": "0.1000",
            "other_probability": "0.8500",
            "likely": "true",
        }
    ]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        write_suspects(tmp_path / "nowhere" / "errors.csv", [SUSPECT])


def test_one_class_has_nothing_to_compare(tmp_path: Path) -> None:
    (tmp_path / "roses").mkdir()
    (tmp_path / "roses" / "a.jpg").write_bytes(encode(draw_photograph(2, seed=1)))
    folder = read_folder(tmp_path, may_lack_classes=True)
    with pytest.raises(DatasetError, match="two class folders or more"):
        list_label_errors(folder, tmp_path / "errors.csv", ImageLimits())


@pytest.mark.long
def test_misfiled_photographs_are_found_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    garden, names = tmp_path / "garden", ("daisy", "roses", "tulips")
    for name, class_index in zip(names, (0, 2, 4), strict=True):
        (garden / name).mkdir(parents=True)
        for seed in range(20):
            (garden / name / f"{name}-{seed}.jpg").write_bytes(encode(draw_photograph(class_index, seed=seed)))
    for name, other in zip(names, (*names[1:], names[0]), strict=True):
        shutil.move(garden / name / f"{name}-7.jpg", garden / other)
    file = tmp_path / "errors.csv"
    flags = "--model-store", str(REPOSITORY / "model_store"), "--label-errors", str(file)
    assert main(["evaluate", str(garden), *flags]) == 0
    rows = read_rows(file)
    assert len(rows) == 60
    assert {Path(row["path"]).name for row in rows[:3]} == {f"{name}-7.jpg" for name in names}
    assert [row["other"] for row in rows[:3]] == [Path(row["path"]).name.split("-")[0] for row in rows[:3]]
    assert "3 of 60 labels are likely wrong." in capsys.readouterr().out
