"""`read_folder`: what it lists, in which order, and what it refuses."""

import os
import unicodedata
from pathlib import Path

import pytest

from service.data.folder import read_folder
from service.errors import DatasetError


def _make(folder: Path, *files: str) -> Path:
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(b"x")
    return folder


def test_classes_and_photographs_come_sorted_by_code_point(tmp_path: Path) -> None:
    folder = read_folder(_make(tmp_path, "b/2.jpg", "b/10.jpg", "B/1.jpg", "ä/1.jpg", "a/z.jpg", "a/A.jpg"))
    assert folder.class_names == ("B", "a", "b", "ä")
    assert [f"{photograph.label}/{photograph.path.name}" for photograph in folder.photographs] == [
        "B/1.jpg", "a/A.jpg", "a/z.jpg", "b/10.jpg", "b/2.jpg", "ä/1.jpg",
    ]  # fmt: skip
    assert all(photograph.path.is_file() for photograph in folder.photographs)


def test_hidden_entries_and_files_at_the_top_are_ignored(tmp_path: Path) -> None:
    folder = read_folder(_make(tmp_path, "a/1.jpg", "b/1.jpg", "a/.DS_Store", ".git/x", "LICENSE.txt", "odd\nname.txt"))
    assert folder.class_names == ("a", "b")
    assert len(folder.photographs) == 2


def test_all_entries_of_a_class_folder_are_listed(tmp_path: Path) -> None:
    folder = read_folder(_make(tmp_path, "a/1.jpg", "a/notes.txt", "a/inner/2.jpg", "b/1.jpg"))
    assert [photograph.path.name for photograph in folder.photographs] == [
        "1.jpg", "inner", "notes.txt", "1.jpg",
    ]  # fmt: skip


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no folder .*nowhere\. Give a folder"):
        read_folder(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_folder(tmp_path / ("x" * 300))


def test_fewer_than_two_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="has none"):
        read_folder(tmp_path)
    with pytest.raises(DatasetError, match="has only roses"):
        read_folder(_make(tmp_path, "roses/1.jpg"))


def test_a_class_without_a_file_is_refused_by_name(tmp_path: Path) -> None:
    _make(tmp_path, "roses/1.jpg", "tulips/.hidden")
    with pytest.raises(DatasetError, match="class folder tulips holds no photograph"):
        read_folder(tmp_path)
    (tmp_path / "lilies" / "inner").mkdir(parents=True)
    with pytest.raises(DatasetError, match="class folders lilies and tulips hold no photograph"):
        read_folder(tmp_path)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        (b"\xff\xfe.jpg", "is not UTF-8"),
        (b"x" * 201, "longer than 200 bytes"),
        ("ä".encode() * 101, "longer than 200 bytes"),
        (b"line\nbreak.jpg", "control character"),
        (b"back\\slash.jpg", "backslash"),
    ],
)
@pytest.mark.parametrize("place", [b"a/%s", b"%s/1.jpg"])
def test_a_name_that_no_report_can_carry_is_refused(tmp_path: Path, name: bytes, fault: str, place: bytes) -> None:
    _make(tmp_path, "a/1.jpg", "b/1.jpg", os.fsdecode(place % name))
    with pytest.raises(DatasetError, match=fault) as raised:
        read_folder(tmp_path)
    assert str(raised.value).isprintable()
    str(raised.value).encode("utf-8")


def test_joiners_and_wide_spaces_are_no_odd_names(tmp_path: Path) -> None:
    """Persian and Hindi write with joiners. The name of a Mac's screenshot has a narrow space."""
    labels = ["می\u200cخک", "क्\u200dष"]
    screenshot = "Screenshot 2026-11-29 at 1.00.00\u202fPM.png"
    folder = read_folder(_make(tmp_path, *(f"{label}/{screenshot}" for label in labels)))
    assert sorted(folder.class_names) == sorted(unicodedata.normalize("NFC", label) for label in labels)
    assert len(folder.photographs) == 2


def test_all_odd_names_are_named_at_once(tmp_path: Path) -> None:
    _make(tmp_path, "a/1.jpg", "a/line\nbreak.jpg", "b/back\\slash.jpg", "b/2.jpg", "c\t/3.jpg")
    with pytest.raises(DatasetError) as raised:
        read_folder(tmp_path)
    message = str(raised.value)
    assert all(part in message for part in ("3 odd names", r"'line\nbreak.jpg' in 'a'", "slash.jpg' in 'b'", r"'c\t'"))
    for number in range(20):
        (tmp_path / "a" / f"{number}\n").write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"There are 13 more\. Rename them"):
        read_folder(tmp_path)


FORMS = [unicodedata.normalize(form, "rosé") for form in ("NFC", "NFD")]


@pytest.mark.parametrize("forms", [FORMS[:1], FORMS[1:], FORMS])
def test_both_unicode_forms_of_a_name_are_one_class(tmp_path: Path, forms: list[str]) -> None:
    folder = read_folder(_make(tmp_path, "tulips/1.jpg", *(f"{form}/{form}.jpg" for form in forms)))
    assert folder.class_names == (FORMS[0], "tulips")
    roses = [photograph for photograph in folder.photographs if photograph.label == FORMS[0]]
    assert [photograph.path.parent.name for photograph in roses] == forms[::-1]
    assert all(photograph.file.startswith(f"{FORMS[0]}/") for photograph in roses)


def test_equal_file_names_in_both_forms_stay_apart(tmp_path: Path) -> None:
    folder = read_folder(_make(tmp_path, "tulips/1.jpg", *(f"{form}/1.jpg" for form in FORMS)))
    assert [photograph.file for photograph in folder.photographs] == [
        f"{FORMS[1]}/1.jpg", f"{FORMS[0]}/1.jpg", "tulips/1.jpg",
    ]  # fmt: skip
    assert len({photograph.label for photograph in folder.photographs}) == 2


def test_both_forms_of_one_name_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="needs at least two class folders, but has only ros"):
        read_folder(_make(tmp_path, *(f"{form}/1.jpg" for form in FORMS)))


def test_a_folder_to_evaluate_may_have_one_class(tmp_path: Path) -> None:
    (tmp_path / "tulips").mkdir()
    with pytest.raises(DatasetError, match="needs a class folder with photographs, but has none"):
        read_folder(tmp_path, may_lack_classes=True)
    folder = read_folder(_make(tmp_path, "roses/1.jpg"), may_lack_classes=True)
    assert folder.class_names == ("roses", "tulips")
    assert [photograph.file for photograph in folder.photographs] == ["roses/1.jpg"]


@pytest.mark.parametrize(
    ("names", "given"),
    [
        (("train", "val", "test"), ("train", "validation", "test")),
        (("Training", "VALIDATION", "Testing"), ("train", "validation", "test")),
        (("train", "valid"), ("train", "validation")),
        (("test", "train"), ("train", "test")),
    ],
)
def test_folders_named_as_parts_are_the_split(tmp_path: Path, names: tuple[str, ...], given: tuple[str, ...]) -> None:
    folder = read_folder(_make(tmp_path, "notes.txt", *(f"{name}/{label}/1.jpg" for name in names for label in "ba")))
    assert folder.class_names == ("a", "b")
    assert folder.given_parts == given
    assert sorted(photograph.file for photograph in folder.photographs) == sorted(
        f"{name}/{label}/1.jpg" for name in names for label in "ab"
    )
    for photograph in folder.photographs:
        assert photograph.path == tmp_path / photograph.file
        assert photograph.part is not None
        assert photograph.part[:2] == photograph.file[:2].lower()


def test_classes_called_train_and_test_stay_classes(tmp_path: Path) -> None:
    folder = read_folder(_make(tmp_path, "train/1.jpg", "test/1.jpg", "test/2.jpg"))
    assert (folder.class_names, folder.given_parts) == (("test", "train"), ())
    assert [photograph.file for photograph in folder.photographs] == ["test/1.jpg", "test/2.jpg", "train/1.jpg"]


def test_a_class_that_a_part_lacks_is_named(tmp_path: Path) -> None:
    _make(tmp_path, *(f"{part}/{label}/1.jpg" for part in ("train", "test") for label in "ab"), "test/c/1.jpg")
    with pytest.raises(DatasetError, match="The part train has no usable photograph of c") as raised:
        read_folder(tmp_path)
    assert "seed" not in str(raised.value)
    assert read_folder(tmp_path, may_lack_classes=True).class_names == ("a", "b", "c")
    _make(tmp_path, "train/c/1.jpg", "train/d/1.jpg")
    with pytest.raises(DatasetError, match="The part test has no usable photograph of d"):
        read_folder(tmp_path)


def test_one_class_in_all_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="needs at least two classes, but has only a"):
        read_folder(_make(tmp_path, "train/a/1.jpg", "test/a/1.jpg"))
