"""Mirrors of a store behind real HTTP on this machine."""

import hashlib
import itertools
import os
import shutil
import threading
from pathlib import Path

import pytest
from support.processes import wait_until
from support.versions import publish_example
from support.web_store import Handler, WebStoreServer, corrupt, cut, fail, trickle, wait_for

from service.errors import ModelNotFound, RemoteStoreError
from service.remote_store.cache import ModelCache
from service.remote_store.mirror import MAX_FILES, Mirror, PullStopped
from service.remote_store.reader import open_reader
from service.store.layout import SHA256SUMS_FILE
from service.store.manage import pin_version, remove_version, unpin
from service.store.verify import verify_version
from service.store.versions import pinned_version

VARIABLES = "2/variables/variables.index"


def cached(mirror: Mirror) -> list[int]:
    return list(mirror.cache.versions())


def sign(version: Path, *more: str) -> None:
    """New SHA256SUMS over what lies in the version, and these lines."""
    files = [path for path in version.rglob("*") if path.is_file() and path.name != "SHA256SUMS"]
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(version)}\n" for path in files]
    (version / SHA256SUMS_FILE).write_text("".join([*lines, *more]))


def test_the_newest_version_is_pulled_and_sound(mirror: Mirror) -> None:
    mirror.look()
    assert cached(mirror) == [2]
    assert verify_version(mirror.cache.versions()[2]).metadata.temperature == 1.2


def test_a_pulled_version_is_not_pulled_again(mirror: Mirror, web: WebStoreServer) -> None:
    for _ in range(3):
        mirror.look()
    assert web.asked(VARIABLES) == 1


def test_a_corrupt_object_never_reaches_the_cache(mirror: Mirror, web: WebStoreServer) -> None:
    web.faults[VARIABLES] = corrupt
    mirror.look()
    assert cached(mirror) == [1], "the next older one is pulled instead"
    assert "variables/variables.index" in mirror.refused[2]


def test_a_mended_object_is_pulled_later(mirror: Mirror, web: WebStoreServer) -> None:
    mirror.retry_s = 0
    web.faults[VARIABLES] = corrupt
    mirror.look()
    web.faults.clear()
    mirror.look()
    assert (cached(mirror), mirror.refused) == ([1, 2], {})


def test_a_corrupt_version_is_not_pulled_at_every_look(mirror: Mirror, web: WebStoreServer) -> None:
    mirror.retry_s = 1000
    web.faults[VARIABLES] = corrupt
    for _ in range(3):
        mirror.look()
    assert web.asked(VARIABLES) == 1
    web.faults.clear()
    (web.store / "flowers" / "2" / "saved_model.pb").write_bytes(b"another network")
    sign(web.store / "flowers" / "2")
    mirror.look()
    assert 2 in cached(mirror), "other digests are another version"


def test_a_cut_connection_leaves_nothing_visible(mirror: Mirror, web: WebStoreServer) -> None:
    web.faults[VARIABLES] = cut
    with pytest.raises(RemoteStoreError, match=r"variables\.index"):
        mirror.look()
    assert cached(mirror) == []


def test_a_pull_goes_on_where_it_was_cut(mirror: Mirror, web: WebStoreServer) -> None:
    sums = (web.store / "flowers" / "2" / SHA256SUMS_FILE).read_text()
    last = sums.split()[-1]
    web.faults[f"2/{last}"] = cut
    with pytest.raises(RemoteStoreError):
        mirror.look()
    web.faults.clear()
    mirror.look()
    assert cached(mirror) == [2]
    assert [web.asked(f"2/{file}") for file in sums.split()[1::2]] == [1, 1, 2]


def test_a_missing_object_passes_its_version_over(mirror: Mirror, web: WebStoreServer) -> None:
    (web.store / "flowers" / "2" / SHA256SUMS_FILE).unlink()  # it is uploaded last
    mirror.look()
    assert cached(mirror) == [1]
    assert "SHA256SUMS is missing" in mirror.refused[2]


def test_a_pin_is_mirrored_in_both_directions(mirror: Mirror, web: WebStoreServer, tmp_path: Path) -> None:
    mirror.look()
    pin_version(web.store, "flowers", 1)
    web.index()
    mirror.look(in_use=2)
    assert (cached(mirror), pinned_version(tmp_path / "cache", "flowers")) == ([1, 2], 1)
    unpin(web.store, "flowers")
    web.index()
    mirror.look(in_use=1)
    assert pinned_version(tmp_path / "cache", "flowers") is None


def test_a_pin_waits_for_its_version(mirror: Mirror, web: WebStoreServer, tmp_path: Path) -> None:
    mirror.look()
    pin_version(web.store, "flowers", 1)
    web.index()
    web.faults["1/saved_model.pb"] = corrupt
    mirror.look(in_use=2)
    assert (cached(mirror), pinned_version(tmp_path / "cache", "flowers")) == ([2], None)


def test_the_limit_drops_the_oldest_versions(mirror: Mirror, web: WebStoreServer, tmp_path: Path) -> None:
    for version in (1, 2):
        mirror.obtain(version)
    for expected in ([1, 2, 3], [1, 4], [1, 5]):
        publish_example(web.store)
        web.index()
        mirror.look(in_use=1)
        assert cached(mirror) == expected
        mirror.max_bytes = 1


def test_the_pinned_version_is_never_dropped(mirror: Mirror, web: WebStoreServer) -> None:
    mirror.max_bytes = 1
    mirror.obtain(2)
    pin_version(web.store, "flowers", 1)
    publish_example(web.store)
    web.index()
    mirror.obtain(3)
    mirror.look(in_use=2)
    assert cached(mirror) == [1, 2, 3], "pinned, live, newest"


def test_a_version_gone_from_the_store_is_left(mirror: Mirror, web: WebStoreServer, tmp_path: Path) -> None:
    mirror.look()
    remove_version(web.store, "flowers", 2, force=True)
    web.index()
    mirror.look(in_use=2)
    assert (cached(mirror), pinned_version(tmp_path / "cache", "flowers")) == ([1, 2], 1), "the live version stays"
    mirror.look(in_use=1)
    assert (cached(mirror), pinned_version(tmp_path / "cache", "flowers")) == ([1], None)


def test_an_empty_store_empties_no_cache(mirror: Mirror, web: WebStoreServer) -> None:
    mirror.look()
    (web.store / "index.json").write_text("[]")
    with pytest.raises(ModelNotFound, match="no version of flowers"):
        mirror.look()
    assert cached(mirror) == [2]


def test_a_version_that_no_engine_loads_is_passed_over(mirror: Mirror) -> None:
    mirror.look()
    mirror.look(refused=(2,))
    assert cached(mirror) == [1, 2]


def test_a_version_damaged_in_the_cache_is_pulled_again(mirror: Mirror) -> None:
    mirror.look()
    (mirror.cache.versions()[2] / "saved_model.pb").write_bytes(b"damaged")
    mirror.look(refused=(2,))
    verify_version(mirror.cache.versions()[2])
    assert cached(mirror) == [2]


def test_a_replaced_version_is_pulled_again(mirror: Mirror, web: WebStoreServer) -> None:
    mirror.look()
    shutil.copy(web.store / "flowers/1/assets.extra/metadata.json", web.store / "flowers/2/assets.extra/metadata.json")
    sign(web.store / "flowers" / "2")
    mirror.look()
    assert verify_version(mirror.cache.versions()[2]).metadata.temperature == 1.1


def test_a_half_replaced_version_leaves_the_cached_one(mirror: Mirror, web: WebStoreServer) -> None:
    mirror.look()
    (web.store / "flowers" / "2" / SHA256SUMS_FILE).write_text(f"{'0' * 64}  saved_model.pb\n")
    mirror.look(in_use=2)
    assert cached(mirror) == [2]
    verify_version(mirror.cache.versions()[2])


@pytest.mark.parametrize(
    "name",
    ["../../escaped", "/tmp/escaped", "a//b", "./a", "a/../../../escaped", "assets.extra/SHA256SUMS", "a" * 300,
     "saved_model.pb/more"],
)  # fmt: skip
def test_no_file_is_written_elsewhere(mirror: Mirror, web: WebStoreServer, tmp_path: Path, name: str) -> None:
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    sign(web.store / "flowers" / "2", f"{'0' * 64}  {name}\n")
    mirror.look()
    assert cached(mirror) == [1]
    assert "no relative path of a file" in mirror.refused[2]
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before
    assert not Path("/tmp/escaped").exists()


def test_a_version_of_too_many_files_is_refused(mirror: Mirror, web: WebStoreServer) -> None:
    sign(web.store / "flowers" / "2", *(f"{'0' * 64}  file{number}\n" for number in range(MAX_FILES)))
    mirror.look()
    assert "more than 256 files" in mirror.refused[2]
    assert not web.asked("file0")


def test_an_endless_list_of_files_is_refused(mirror: Mirror, web: WebStoreServer) -> None:
    web.faults["2/assets.extra/SHA256SUMS"] = lambda handler, _: handler.answer(200, bytes(1_100_000))
    mirror.look()
    assert "SHA256SUMS has more than 1,048,576 bytes" in mirror.refused[2]


def test_an_endless_file_ends_with_the_process(mirror: Mirror, web: WebStoreServer) -> None:
    web.faults[VARIABLES] = trickle
    calls = itertools.count()
    mirror.is_stopping = lambda: next(calls) > 5
    with pytest.raises(PullStopped):
        mirror.look()
    assert cached(mirror) == []


def test_a_pin_overtakes_a_slow_pull(mirror: Mirror, web: WebStoreServer, tmp_path: Path) -> None:
    def pin_and_trickle(handler: Handler, content: bytes) -> None:
        pin_version(web.store, "flowers", 1)
        web.index()
        trickle(handler, content)

    web.faults[VARIABLES] = pin_and_trickle
    mirror.relook_s = 0.05
    mirror.look()
    assert (cached(mirror), pinned_version(tmp_path / "cache", "flowers")) == ([1], 1)


def test_two_mirrors_pull_once(web: WebStoreServer, tmp_path: Path) -> None:
    over = threading.Event()
    web.faults[VARIABLES] = wait_for(over)
    one, other = (
        Mirror(open_reader(web.url), ModelCache(tmp_path / "cache", "flowers"), "flowers", 10**9) for _ in range(2)
    )
    thread = threading.Thread(target=one.look)
    thread.start()
    wait_until(lambda: web.asked(VARIABLES) == 1)
    assert other.look() is None
    over.set()
    thread.join()
    other.look()
    assert (cached(other), web.asked(VARIABLES)) == ([2], 1)


def test_the_live_version_of_another_process_stays(web: WebStoreServer, tmp_path: Path) -> None:
    one, other = (Mirror(open_reader(web.url), ModelCache(tmp_path / "cache", "flowers"), "flowers", 1) for _ in "ab")
    one.obtain(1)
    one.look(in_use=1)
    other.look()
    assert cached(other) == [1, 2]
    one.look(in_use=2)
    other.look()
    assert cached(other) == [2]


def test_a_full_disk_is_reported_with_its_flag(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RemoteStoreError, match=r"No space left.*--cache"):
        mirror.look()
    assert cached(mirror) == []


def test_a_store_that_denies_leaves_the_cache(mirror: Mirror, web: WebStoreServer) -> None:
    mirror.look()
    web.faults["index.json"] = fail(403)
    with pytest.raises(RemoteStoreError):
        mirror.look()
    assert cached(mirror) == [2]
