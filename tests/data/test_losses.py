from pathlib import Path

import pytest

from service.data.check import CheckedPhotograph, DataCheck, Finding
from service.data.losses import describe_losses, refuse_lost_classes
from service.errors import DatasetError

HEIC = "The file is not an image that is read here. It seems to be a HEIC photograph. Send it as JPEG."
PDF = "It seems to be a PDF document."


def _check(sizes: dict[str, int], *findings: Finding) -> DataCheck:
    usable = [
        CheckedPhotograph(Path(f"{label}/{number}.jpg"), label, f"{label}{number}", 0)
        for label, size in sizes.items()
        for number in range(size)
    ]
    return DataCheck(tuple(sizes), tuple(usable), findings)


def _lost(label: str, kind: str, detail: str, count: int) -> list[Finding]:
    return [Finding(kind, (f"{label}/{kind}{number}.x",), detail) for number in range(count)]


def test_a_lost_class_is_named_with_its_reasons() -> None:
    check = _check({"roses": 0, "tulips": 9}, *_lost("roses", "not-an-image", HEIC, 20))
    with pytest.raises(DatasetError) as raised:
        refuse_lost_classes(check)
    message = str(raised.value)
    assert message.startswith(
        "20 of 20 files of roses cannot be used. not-an-image holds for 20, such as roses/not-an-image0.x"
    )
    assert "HEIC" in message
    assert "add photographs" not in message


def test_all_lost_classes_are_named_at_once() -> None:
    labels = [f"class{number}" for number in range(7)]
    findings = [finding for label in labels for finding in _lost(label, "broken-image", "It is cut short.", 3)]
    with pytest.raises(DatasetError) as raised:
        refuse_lost_classes(_check(dict.fromkeys(labels, 0), *findings))
    assert all(f"3 of 3 files of {label} cannot" in str(raised.value) for label in labels[:5])
    assert "for 2 more classes" in str(raised.value)


def test_reasons_come_most_frequent_first() -> None:
    check = _check(
        {"roses": 4},
        *_lost("roses", "not-an-image", PDF, 2),
        *_lost("roses", "not-an-image", HEIC, 5),
        *[Finding("duplicate", (f"roses/again{n}.jpg",), f"same pixels as roses/{n}.jpg") for n in range(3)],
        *_lost("roses", "unreadable", "it is not a file", 1),
    )
    said = describe_losses(check)
    assert said.startswith("11 of 15 files cannot be used. not-an-image holds for 5, such as")
    assert (
        said.index("HEIC")
        < said.index("duplicate holds for 3, such as roses/again0.jpg")
        < said.index("not-an-image holds for 2")
    )
    assert said.endswith("Other reasons hold for 1.")


def test_near_duplicates_are_counted() -> None:
    check = _check({"a": 20, "b": 20}, Finding("near-duplicates", tuple(f"a/{n}.jpg" for n in range(15)), "alike"))
    assert describe_losses(check) == "15 of 40 usable photographs are near-duplicates of others."
    assert describe_losses(check, ["b"]) == ""


def test_good_data_lost_nothing() -> None:
    check = _check({"a": 3, "b": 3})
    refuse_lost_classes(check)
    assert describe_losses(check) == ""
