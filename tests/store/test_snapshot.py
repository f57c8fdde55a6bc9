import errno
import json
import os
from pathlib import Path

import pytest
from support.versions import publish_example

from service.errors import StoreError
from service.store.layout import METADATA_FILE, PINNED_FILE
from service.store.manage import pin_version, remove_version
from service.store.metadata import Metadata, read_metadata
from service.store.snapshot import ListedModel, ListedVersion, StoreScanner


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for _ in range(3):
        publish_example(tmp_path)
    return tmp_path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions whose metadata were read, in order."""
    read: list[str] = []

    def note(path: Path) -> Metadata:
        read.append(path.parent.parent.name)
        return read_metadata(path)

    monkeypatch.setattr("service.store.snapshot.read_metadata", note)
    return read


def flowers(scanner: StoreScanner) -> ListedModel:
    return scanner.scan()["flowers"]


def test_a_snapshot_has_what_each_version_says(store: Path) -> None:
    publish_example(store, "birds")
    pin_version(store, "flowers", 2)
    models = StoreScanner(store).scan()
    assert set(models) == {"birds", "flowers"}
    created = read_metadata(store / "flowers/1" / METADATA_FILE).created
    assert models["flowers"].versions == tuple(
        ListedVersion(version, version == 2, created, 0.85) for version in (1, 2, 3)
    )
    assert models["flowers"].card_version == 3
    assert models["birds"].card is not None
    assert models["birds"].card.model == "birds"


def test_unchanged_metadata_are_read_once(store: Path, read: list[str]) -> None:
    scanner = StoreScanner(store)
    first = scanner.scan()
    assert sorted(read) == ["1", "2", "3"]
    assert scanner.scan() == first
    assert len(read) == 3


def test_unreadable_metadata_are_read_once(store: Path, read: list[str]) -> None:
    (store / "flowers/2" / METADATA_FILE).write_text("{")
    scanner = StoreScanner(store)
    assert scanner.scan() == scanner.scan()
    assert sorted(read) == ["1", "2", "3"]


def test_changed_metadata_are_read_again(store: Path, read: list[str]) -> None:
    scanner = StoreScanner(store)
    scanner.scan()
    path = store / "flowers/2" / METADATA_FILE
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "created": "2027-01-02T03:04:05Z"}))
    created = flowers(scanner).versions[1].created
    assert created is not None
    assert created.year == 2027
    assert read[3:] == ["2"]


def test_the_card_follows_the_newest_version(store: Path) -> None:
    scanner = StoreScanner(store)
    assert flowers(scanner).card_version == 3
    remove_version(store, "flowers", 3, force=True)
    assert flowers(scanner).card_version == 2
    (store / "flowers/2" / METADATA_FILE).write_text("{")
    assert flowers(scanner).card_version == 1


@pytest.mark.parametrize("size", [None, 2**31])
def test_a_pipe_or_a_huge_file_is_no_metadata(store: Path, size: int | None) -> None:
    path = store / "flowers/3" / METADATA_FILE
    path.unlink()
    if size is None:
        os.mkfifo(path)
    else:
        with path.open("wb") as file:
            file.truncate(size)
    listed = flowers(StoreScanner(store))
    assert (listed.versions[2].created, listed.versions[2].accuracy) == (None, None)
    assert listed.card_version == 2


def test_a_pipe_as_pin_pins_nothing(store: Path) -> None:
    os.mkfifo(store / "flowers" / PINNED_FILE)
    assert [version.pinned for version in flowers(StoreScanner(store)).versions] == [False] * 3


def test_no_link_of_a_version_leads_out(store: Path) -> None:
    path = store / "flowers/3" / METADATA_FILE
    path.rename(store / "outside.json")
    path.symlink_to(store / "outside.json")
    assert flowers(StoreScanner(store)).versions[2].created is None


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert not StoreScanner(tmp_path / "missing").scan()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
def test_an_unreadable_store_is_an_error(store: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreError, match="cannot be read"):
        StoreScanner(store).scan()


def test_a_listing_resolves_links_only(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To resolve the path of each version costs a hundred times as much as to list them."""
    resolved: list[str] = []
    realpath = os.path.realpath

    def note(path: str) -> str:
        resolved.append(str(path))
        return realpath(path)

    monkeypatch.setattr(os.path, "realpath", note)
    StoreScanner(store).scan()
    assert not [path for path in resolved if Path(path).name.isdigit()]
    assert len(resolved) < 12


def test_a_snapshot_has_no_candidates(store: Path) -> None:
    before = StoreScanner(store).scan()
    publish_example(store, is_candidate=True)
    publish_example(store, "garden", is_candidate=True)
    assert StoreScanner(store).scan() == before
