import os
from pathlib import Path

import pytest
from support.versions import publish_example

from service.errors import InvalidVersion, ModelNotFound, UsageError, VersionNotFound
from service.store.layout import PINNED_FILE
from service.store.manage import pin_version, remove_version, unpin
from service.store.versions import (
    FoundVersion,
    StoredVersion,
    find_served,
    find_version,
    list_candidates,
    list_in_turn,
    list_models,
    list_stored,
    list_versions,
    next_version,
    pinned_version,
    resolve_version,
)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Versions 1, 2 and 3 of `flowers`, one of `birds`, and names that are no versions and no models."""
    store = tmp_path / "store"
    for _ in range(3):
        publish_example(store)
    publish_example(store, "birds")
    for ignored in ("flowers/04", "flowers/x5", "flowers/.publishing-1", "flowers/6 ", "empty", ".git/1"):
        (store / ignored).mkdir(parents=True)
    (store / "flowers" / "7").write_text("a file, no folder")
    (store / "README.md").write_text("no model")
    return store


def test_only_integer_folders_are_versions(store: Path) -> None:
    assert list_versions(store, "flowers") == [1, 2, 3]
    assert list_models(store) == ["birds", "flowers"]


def test_the_newest_version_is_meant_until_another_is_pinned(store: Path) -> None:
    assert resolve_version(store, "flowers") == StoredVersion("flowers", 3, store / "flowers" / "3", pinned=False)
    pin_version(store, "flowers", 2)
    assert resolve_version(store, "flowers") == StoredVersion("flowers", 2, store / "flowers" / "2", pinned=True)
    assert publish_example(store) == 8, "above every name that is taken, folder or not"
    assert resolve_version(store, "flowers").version == 2
    unpin(store, "flowers")
    assert resolve_version(store, "flowers").version == 8


def test_a_version_asked_for_is_meant_whatever_is_pinned(store: Path) -> None:
    pin_version(store, "flowers", 2)
    assert resolve_version(store, "flowers", 1).pinned is False
    assert resolve_version(store, "flowers", 2).pinned is True


def test_versions_sort_as_numbers(tmp_path: Path) -> None:
    for _ in range(11):
        publish_example(tmp_path)
    assert list_versions(tmp_path, "flowers")[-2:] == [10, 11]


def test_a_pin_on_nothing_is_refused_with_a_remedy(store: Path) -> None:
    (store / "flowers" / PINNED_FILE).write_text("9\n")
    with pytest.raises(VersionNotFound, match=r"is pinned to version 9\. It has 1, 2, 3\. Pin one .* `use latest`"):
        resolve_version(store, "flowers")
    with pytest.raises(VersionNotFound):
        pin_version(store, "flowers", 9)
    assert resolve_version(store, "flowers", 3).version == 3


@pytest.mark.parametrize("garbage", ["", "\n", "two", "0", "02", "1 2", "-1", "1" * 100, "\0", "latest"])
def test_garbage_in_pinned_is_refused_rather_than_ignored(store: Path, garbage: str) -> None:
    (store / "flowers" / PINNED_FILE).write_text(garbage)
    with pytest.raises(InvalidVersion, match="holds no version number"):
        resolve_version(store, "flowers")
    assert resolve_version(store, "flowers", 3).pinned is False
    unpin(store, "flowers")
    assert resolve_version(store, "flowers").version == 3


def test_what_is_not_there_is_named_with_what_is(store: Path) -> None:
    with pytest.raises(
        ModelNotFound,
        match=r"Model rosen is not in the store /.*/store, which has birds, flowers\. .*FOLDER --name rosen",
    ):
        resolve_version(store, "rosen")
    with pytest.raises(ModelNotFound, match=r"which has none\. Train one with `flowers train`,"):
        resolve_version(store / "nowhere", "flowers")
    with pytest.raises(VersionNotFound, match=r"Model flowers has no version 4\. It has 1, 2, 3"):
        resolve_version(store, "flowers", 4)
    with pytest.raises(ModelNotFound):
        unpin(store, "rosen")


def damage(store: Path, version: int) -> None:
    (store / "flowers" / str(version) / "saved_model.pb").write_bytes(b"another")


def test_a_service_takes_the_newest_sound_version(store: Path) -> None:
    assert find_served(store, "flowers") == FoundVersion(resolve_version(store, "flowers", 3), {})
    damage(store, 3)
    damage(store, 1)  # older than the good one: not even looked at
    served = find_served(store, "flowers")
    assert served.stored == resolve_version(store, "flowers", 2)
    assert list(served.damaged) == [3]
    assert "saved_model.pb was changed" in served.damaged[3]
    damage(store, 2)
    assert find_served(store, "flowers").stored is None
    assert list(find_served(store, "flowers").damaged) == [3, 2, 1]


def test_no_version_replaces_a_damaged_pinned_one(store: Path) -> None:
    pin_version(store, "flowers", 2)
    damage(store, 3)
    assert find_served(store, "flowers") == FoundVersion(resolve_version(store, "flowers", 2), {})
    damage(store, 2)
    assert find_served(store, "flowers").stored is None
    with pytest.raises(UsageError, match="Version 2 of flowers is pinned"):
        remove_version(store, "flowers", 2)


def test_a_pipe_as_pin_is_invalid_and_blocks_nobody(store: Path) -> None:
    os.mkfifo(store / "flowers" / "PINNED")
    with pytest.raises(InvalidVersion, match="PINNED of model flowers holds no version number"):
        resolve_version(store, "flowers")
    assert resolve_version(store, "flowers", 1).pinned is False
    unpin(store, "flowers")
    assert resolve_version(store, "flowers").version == 3


def test_a_pipe_for_the_highest_number_blocks_nobody(store: Path) -> None:
    os.mkfifo(store / "flowers" / ".highest")
    assert publish_example(store) == 8


def test_a_long_version_number_can_be_pinned(store: Path) -> None:
    longest = 10**18 - 1
    (store / "flowers" / "1").rename(store / "flowers" / str(longest))
    pin_version(store, "flowers", longest)
    assert pinned_version(store, "flowers") == longest


def test_all_versions_are_listed_with_the_pinned_one(store: Path) -> None:
    pin_version(store, "flowers", 2)
    assert list_stored(store, "flowers") == [resolve_version(store, "flowers", version) for version in (1, 2, 3)]
    assert list_stored(store, "orchids") == []


def test_a_candidate_is_found_by_its_number_alone(store: Path) -> None:
    publish_example(store, is_candidate=True)
    folder = store / "flowers" / "candidates" / "8"
    (candidate,) = list_candidates(store, "flowers")
    assert candidate == StoredVersion("flowers", 8, folder, pinned=False, is_candidate=True)
    assert find_version(store, "flowers", 8) == candidate
    assert find_version(store, "flowers") == resolve_version(store, "flowers", 3)
    assert find_version(store, "flowers", 3) == resolve_version(store, "flowers", 3)
    with pytest.raises(VersionNotFound, match=r"Version 8 of flowers is a candidate\. .* `flowers models take 8`"):
        resolve_version(store, "flowers", 8)


def test_no_service_tries_a_candidate(store: Path) -> None:
    publish_example(store, is_candidate=True)
    assert [stored.version for stored in list_in_turn(store, "flowers")] == [3, 2, 1]
    assert list_versions(store, "flowers") == [1, 2, 3]
    (store / "flowers" / PINNED_FILE).write_text("8\n")
    with pytest.raises(VersionNotFound, match="is a candidate"):
        list_in_turn(store, "flowers")


def test_a_model_with_candidates_alone_has_no_version(tmp_path: Path) -> None:
    publish_example(tmp_path, "garden", is_candidate=True)
    assert list_models(tmp_path) == ["garden"]
    assert find_version(tmp_path, "garden", 1).is_candidate
    for version in (None, 2):
        with pytest.raises(
            VersionNotFound, match=r"candidate is 1\. Take it with `flowers models take 1 --model garden"
        ):
            find_version(tmp_path, "garden", version)


def test_other_names_among_candidates_are_ignored(store: Path) -> None:
    for name in ("candidates/04", "candidates/x5", "candidates/.6"):
        (store / "flowers" / name).mkdir(parents=True)
    (store / "flowers" / "candidates" / "9").write_text("a file, no folder")
    assert list_candidates(store, "flowers") == []
    assert list_candidates(store, "orchids") == []


def test_a_number_counts_while_its_candidate_is_taken(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_example(store, is_candidate=True)
    folder, real_scandir = store / "flowers", os.scandir
    scanned: list[str] = []

    def scandir(path: Path) -> "os._ScandirIterator[str]":
        scanned.append(path.name)
        if len(scanned) == 2:
            (folder / "candidates" / "8").rename(folder / "8")
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert next_version(folder) == 9
    assert len(scanned) == 2
