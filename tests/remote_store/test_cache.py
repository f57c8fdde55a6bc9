import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY
from support.versions import publish_example

from service.errors import RemoteStoreError
from service.remote_store.cache import ModelCache, check_platform, size_of
from service.store.layout import SHA256SUMS_FILE
from service.store.verify import verify_version

HOLD = """
import sys
from pathlib import Path
from service.remote_store.cache import ModelCache
cache = ModelCache(Path(sys.argv[1]), "flowers")
with cache.locked() as is_ours:
    cache.lease({1})
    print(is_ours, flush=True)
    sys.stdin.readline()
print("unlocked", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def cache(tmp_path: Path) -> ModelCache:
    publish_example(tmp_path)
    return ModelCache(tmp_path, "flowers")


def test_another_process_neither_locks_nor_drops(cache: ModelCache, tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "True\n"
        with cache.locked() as is_ours:
            assert not is_ours
        other.stdin.write("\n")
        assert other.stdout.readline() == "unlocked\n"
        with cache.locked() as is_ours:
            assert is_ours
            assert not cache.drop(1)
        other.kill()
    assert list(cache.versions()) == [1]
    assert cache.drop(1), "a lease ends with its process"
    assert not cache.versions()


def test_an_own_lease_guards_as_well(cache: ModelCache) -> None:
    cache.lease({1})
    assert set(cache.leased) == {1}
    assert not cache.drop(1)
    cache.lease(set())
    assert cache.drop(1)


def test_a_draft_is_kept_for_the_same_digests(cache: ModelCache) -> None:
    draft = cache.begin(2, b"one")
    (draft / "file").write_bytes(b"pulled")
    assert (cache.begin(2, b"one") / "file").exists()
    assert not (cache.begin(2, b"two") / "file").exists()
    assert (draft / SHA256SUMS_FILE).read_bytes() == b"two"
    cache.begin(3, b"three")
    assert not draft.exists()
    assert list(cache.versions()) == [1]


def test_a_placed_draft_replaces_its_version(cache: ModelCache, tmp_path: Path) -> None:
    publish_example(tmp_path / "other", temperature=2.0)
    draft = cache.begin(1, b"")
    draft.rename(tmp_path / "draft")
    (tmp_path / "other" / "flowers" / "1").rename(draft)
    cache.place(draft, 1)
    assert verify_version(cache.versions()[1]).metadata.temperature == 2.0
    assert not draft.exists()


def test_a_pin_is_written_and_removed(cache: ModelCache, tmp_path: Path) -> None:
    cache.pin(1)
    assert (tmp_path / "flowers" / "PINNED").read_text() == "1\n"
    cache.pin(None)
    cache.pin(None)
    assert not (tmp_path / "flowers" / "PINNED").exists()


def test_a_new_cache_is_closed_to_other_users(tmp_path: Path) -> None:
    with ModelCache(tmp_path / "new", "flowers").locked():
        assert (tmp_path / "new" / "flowers").stat().st_mode & 0o077 == 0


def test_an_unwritable_cache_names_its_flag(tmp_path: Path) -> None:
    (tmp_path / "flowers").write_text("no folder")
    with pytest.raises(RemoteStoreError, match="--cache"), ModelCache(tmp_path, "flowers").locked():
        pass


def test_sizes_are_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").write_bytes(bytes(1000))
    assert size_of(tmp_path) == 1000
    check_platform()
