import shutil
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.versions import publish_example

from service.errors import StoreError, UsageError
from service.store.layout import PINNED_FILE
from service.store.manage import pin_version, remove_version
from service.store.versions import StoredVersion, list_candidates, list_versions, pinned_version, resolve_version


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Versions 1, 2 and 3 of `flowers`."""
    for _ in range(3):
        publish_example(tmp_path / "store")
    return tmp_path / "store"


def damage(store: Path, version: int) -> None:
    (store / "flowers" / str(version) / "saved_model.pb").write_bytes(b"another")


def test_pinned_holds_the_integer_and_a_newline(store: Path) -> None:
    pin_version(store, "flowers", 2)
    assert (store / "flowers" / PINNED_FILE).read_bytes() == b"2\n"
    (store / "flowers" / PINNED_FILE).write_text("1")  # by hand, without the newline
    assert pinned_version(store, "flowers") == 1


def test_the_served_version_is_not_removed_unless_forced(store: Path) -> None:
    with pytest.raises(UsageError, match=r"Version 3 .* is served"):
        remove_version(store, "flowers", 3)
    pin_version(store, "flowers", 1)
    remove_version(store, "flowers", 3)
    with pytest.raises(UsageError):
        remove_version(store, "flowers", 1)
    assert list_versions(store, "flowers") == [1, 2]
    remove_version(store, "flowers", 1, force=True)
    assert resolve_version(store, "flowers") == StoredVersion("flowers", 2, store / "flowers" / "2", pinned=False)
    assert not list((store / "flowers").glob(".removing-*"))


def test_the_version_before_a_damaged_newest_is_spared(store: Path) -> None:
    damage(store, 3)
    with pytest.raises(UsageError, match=r"Version 2 .* is served"):
        remove_version(store, "flowers", 2)
    remove_version(store, "flowers", 3)
    assert list_versions(store, "flowers") == [1, 2]


def test_a_removed_number_is_never_given_again(tmp_path: Path) -> None:
    publish_example(tmp_path)
    publish_example(tmp_path)
    remove_version(tmp_path, "flowers", 2, force=True)
    remove_version(tmp_path, "flowers", 1, force=True)
    assert publish_example(tmp_path) == 3


def test_removing_a_link_leaves_the_version_it_leads_to(store: Path) -> None:
    (store / "flowers" / "5").symlink_to("1")
    remove_version(store, "flowers", 5, force=True)
    assert list_versions(store, "flowers") == [1, 2, 3]


@pytest.mark.parametrize("function", ["os.fsync", "pathlib.Path.replace"])
def test_a_pin_that_fails_leaves_the_old_one(store: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    pin_version(store, "flowers", 1)
    before = sorted((store / "flowers").iterdir())
    full = Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(function, full)
    with pytest.raises(StoreError, match=r"cannot be changed \(No space left on device"):
        pin_version(store, "flowers", 2)
    assert pinned_version(store, "flowers") == 1
    assert sorted((store / "flowers").iterdir()) == before


def test_a_removed_version_disappears_before_its_files(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "rmtree", Mock(side_effect=OSError(5, "Input/output error")))
    with pytest.raises(StoreError, match="Input/output error"):
        remove_version(store, "flowers", 2)
    assert list_versions(store, "flowers") == [1, 3]


def test_a_removal_that_breaks_off_frees_no_number(store: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", Mock(side_effect=OSError(5, "Input/output error")))
        with pytest.raises(StoreError):
            remove_version(store, "flowers", 3, force=True)
    assert publish_example(store) == 4


def test_a_removed_candidate_frees_no_number(store: Path) -> None:
    publish_example(store, is_candidate=True)
    remove_version(store, "flowers", 4)
    assert sorted(path.name for path in (store / "flowers").iterdir()) == [".highest", "1", "2", "3"]
    assert publish_example(store, is_candidate=True) == 5


def test_the_last_version_goes_while_candidates_stay(tmp_path: Path) -> None:
    publish_example(tmp_path)
    publish_example(tmp_path, is_candidate=True)
    remove_version(tmp_path, "flowers", 1, force=True)
    assert [candidate.version for candidate in list_candidates(tmp_path, "flowers")] == [2]
    remove_version(tmp_path, "flowers", 2)
    assert publish_example(tmp_path) == 3
