"""Archives of versions: packed, pulled, and refused whatever is in them."""

import gzip
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest
from support.versions import example_metadata, publish_example

from service.errors import ArchiveError, InvalidVersion, PublishError, UsageError
from service.store.archive import PulledVersion, pack_version, pull_version
from service.store.manage import remove_version
from service.store.verify import verify_version
from service.store.versions import find_version, list_candidates, list_versions

Change = Callable[[tarfile.TarInfo], None]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An archive of version 1 of `flowers`."""
    folder = tmp_path_factory.mktemp("packed")
    publish_example(folder / "store")
    pack_version(find_version(folder / "store", "flowers", 1), folder / "a.tar.gz")
    return (folder / "a.tar.gz").read_bytes()


def repack(data: bytes, *added: tuple[tarfile.TarInfo, bytes], change: Change = lambda _: None) -> bytes:
    """The same entries, each after `change`, and some more."""
    target = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as source,
        tarfile.open(fileobj=target, mode="w:gz", format=tarfile.PAX_FORMAT) as tar,
    ):
        for entry in source:
            content = source.extractfile(entry)
            change(entry)
            tar.addfile(entry, content)
        for entry, text in added:
            tar.addfile(entry, io.BytesIO(text))
    return target.getvalue()


def entry(
    name: str, kind: bytes = tarfile.REGTYPE, content: bytes = b"", link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    added = tarfile.TarInfo(name)
    added.type, added.size, added.linkname = kind, len(content), link
    return added, content


def pull(store: Path, data: bytes, model: str | None = None, *, take: bool | None = None) -> PulledVersion:
    return pull_version(store, io.BytesIO(data), model=model, take=take)


def test_a_pulled_version_is_what_was_packed(tmp_path: Path, packed: bytes) -> None:
    stored = pull(tmp_path, packed).stored
    assert (stored.model, stored.version, stored.is_candidate) == ("flowers", 1, False)
    assert verify_version(stored.folder).metadata == example_metadata()
    assert sorted(path.name for path in (tmp_path / "flowers").iterdir()) == ["1"]


def test_equal_versions_give_equal_archives(tmp_path: Path, packed: bytes) -> None:
    pack_version(pull(tmp_path / "store", packed).stored, tmp_path / "again.tar.gz")
    assert (tmp_path / "again.tar.gz").read_bytes() == packed
    with tarfile.open(tmp_path / "again.tar.gz") as tar:
        names = tar.getnames()
    assert names == sorted(names)
    assert "flowers/1/assets.extra/SHA256SUMS" in names
    assert packed[4:8] == bytes(4)  # the time of a gzip file


def test_a_damaged_version_is_not_packed(store: Path, tmp_path: Path) -> None:
    (store / "flowers" / "1" / "saved_model.pb").write_bytes(b"another")
    with pytest.raises(InvalidVersion, match=r"saved_model\.pb was changed"):
        pack_version(find_version(store, "flowers", 1), tmp_path / "a.tar.gz")
    assert list(tmp_path.glob("*.gz")) == []


def test_a_file_that_is_there_is_not_replaced(store: Path, tmp_path: Path) -> None:
    (tmp_path / "a.tar.gz").write_text("mine")
    with pytest.raises(UsageError, match="is there already"):
        pack_version(find_version(store, "flowers", 1), tmp_path / "a.tar.gz")
    with pytest.raises(ArchiveError, match="cannot be written"):
        pack_version(find_version(store, "flowers", 1), tmp_path / "nowhere" / "a.tar.gz")
    assert (tmp_path / "a.tar.gz").read_text() == "mine"


def test_a_version_keeps_its_number_where_it_can(tmp_path: Path, packed: bytes) -> None:
    ninth = repack(packed, change=lambda one: setattr(one, "name", one.name.replace("/1/", "/9/")))
    assert pull(tmp_path / "empty", ninth).stored.version == 9
    for _ in range(2):
        publish_example(tmp_path / "store", temperature=1.5)
    remove_version(tmp_path / "store", "flowers", 2, force=True)
    assert pull(tmp_path / "store", packed).stored.version == 3


@pytest.mark.parametrize("take", [None, True, False])
def test_a_later_version_becomes_a_candidate_unless_taken(tmp_path: Path, packed: bytes, take: bool | None) -> None:
    publish_example(tmp_path, temperature=1.5)
    assert pull(tmp_path, packed, take=take).stored.is_candidate is not take
    assert list_versions(tmp_path, "flowers") == ([1, 2] if take else [1])
    assert [one.version for one in list_candidates(tmp_path, "flowers")] == ([] if take else [2])


def test_a_packed_candidate_stays_a_candidate(tmp_path: Path) -> None:
    publish_example(tmp_path / "a", is_candidate=True)
    pack_version(find_version(tmp_path / "a", "flowers", 1), tmp_path / "a.tar.gz")
    pulled = pull(tmp_path / "b", (tmp_path / "a.tar.gz").read_bytes()).stored
    assert pulled.folder == tmp_path / "b" / "flowers" / "candidates" / "1"
    assert pulled.is_candidate


def test_a_version_is_pulled_once(tmp_path: Path, packed: bytes) -> None:
    first = pull(tmp_path, packed)
    again = pull(tmp_path, packed)
    assert (first.is_new, again.is_new) == (True, False)
    assert again.stored == first.stored
    (tmp_path / "flowers" / "1" / "saved_model.pb").write_bytes(b"another")
    assert pull(tmp_path, packed).is_new


def test_another_model_than_the_named_is_refused(tmp_path: Path, packed: bytes) -> None:
    with pytest.raises(ArchiveError, match="holds a version of flowers, not of birds"):
        pull(tmp_path, packed, "birds")
    assert pull(tmp_path, packed, "flowers").is_new


def rename(start: str) -> Change:
    return lambda one: setattr(one, "name", start + one.name.removeprefix("flowers/1"))


SPECIAL, PATH, TWICE = "is a link, a device or another special file", "is no relative path of plain names", "twice"
HOME, RATIO, UNLISTED = (
    "does not hold the files of one version",
    "4 times its size",
    "is not in assets.extra/SHA256SUMS",
)


@pytest.mark.parametrize(
    ("added", "said"),
    [
        (entry("flowers/1/link", tarfile.SYMTYPE, link="/etc/passwd"), SPECIAL),
        (entry("flowers/1/link", tarfile.LNKTYPE, link="flowers/1/saved_model.pb"), SPECIAL),
        (entry("flowers/1/device", tarfile.CHRTYPE), SPECIAL),
        (entry("flowers/1/device", tarfile.BLKTYPE), SPECIAL),
        (entry("flowers/1/pipe", tarfile.FIFOTYPE), SPECIAL),
        (entry("flowers/1/sparse", tarfile.GNUTYPE_SPARSE), SPECIAL),
        (entry("/flowers/1/absolute"), PATH),
        (entry("flowers/1/../../outside"), PATH),
        (entry("flowers/1/..", tarfile.DIRTYPE), PATH),
        (entry("flowers/1/./more"), PATH),
        (entry("flowers/1//more"), PATH),
        (entry("flowers/1/a\nb"), PATH),
        (entry("flowers/1/a\\b"), PATH),
        (entry("flowers/1/saved_model.pb", content=b"twice"), TWICE),
        (entry("flowers/1/more", content=b"unlisted"), UNLISTED),
        (entry("flowers/1"), HOME),
        (entry("flowers/2/more"), HOME),
        (entry("birds/1/more"), HOME),
        (entry("more"), HOME),
        (entry("flowers/1/zeros", content=bytes(4_000_000)), RATIO),
        (entry("flowers/1/saved_model.pb/more"), "could not be written"),
    ],
    ids=lambda added: f"{added[0].name!a} {added[0].type!a}" if isinstance(added, tuple) else "",
)
def test_an_archive_with_an_odd_entry_leaves_nothing(
    tmp_path: Path, packed: bytes, added: tuple[tarfile.TarInfo, bytes], said: str
) -> None:
    with pytest.raises((ArchiveError, PublishError), match=said):
        pull(tmp_path / "store", repack(packed, added))
    assert not [path for path in tmp_path.rglob("*") if path != tmp_path / "store"]


def test_a_sparse_file_of_newer_kind_is_refused(tmp_path: Path, packed: bytes) -> None:
    sparse, content = entry("flowers/1/sparse", content=b"1\n0\n0\n".ljust(512, b"\0"))
    kind = {"major": "1", "minor": "0", "name": "flowers/1/sparse", "realsize": "1000000000"}
    sparse.pax_headers = {f"GNU.sparse.{name}": value for name, value in kind.items()}
    with pytest.raises(ArchiveError, match=SPECIAL):
        pull(tmp_path / "store", repack(packed, (sparse, content)))


@pytest.mark.parametrize(
    "start", ["../1", "candidates/1", "flowers/01", "flowers/candidates/../1", "flowers/candidates", ".x/1", ""]
)
def test_a_name_that_leaves_the_store_is_refused(tmp_path: Path, packed: bytes, start: str) -> None:
    with pytest.raises(ArchiveError):
        pull(tmp_path / "store", repack(packed, change=rename(start)))
    assert list(tmp_path.iterdir()) == []


def test_too_many_entries_are_refused(tmp_path: Path, packed: bytes) -> None:
    folders = [entry(f"flowers/1/{number}", tarfile.DIRTYPE) for number in range(256)]
    with pytest.raises(ArchiveError, match="more than 256 entries"):
        pull(tmp_path / "store", repack(packed, *folders))
    assert pull(tmp_path / "store", repack(packed, *folders[:200])).is_new


def test_a_large_header_takes_no_memory(tmp_path: Path, packed: bytes) -> None:
    def write(one: tarfile.TarInfo) -> None:
        one.pax_headers = {"comment": "x" * 100_000}

    with pytest.raises(ArchiveError, match="header of more than 65,536 bytes"):
        pull(tmp_path / "store", repack(packed, change=write))


def test_an_archive_that_expands_is_refused_soon(tmp_path: Path, packed: bytes) -> None:
    bomb = repack(packed, entry("flowers/1/zeros", content=bytes(20_000_000)))
    assert len(bomb) < 100_000
    with pytest.raises(ArchiveError, match="4 times its size"):
        pull(tmp_path / "store", bomb)


def test_a_broken_archive_is_refused(tmp_path: Path, packed: bytes) -> None:
    plain = gzip.decompress(packed)
    broken = [
        b"", b"no archive", packed[: len(packed) // 2], packed[:-4], plain, gzip.compress(b"no tar" * 200),
        gzip.compress(plain[:700]), gzip.compress(plain[:257] + b"\xff" * 300 + plain[557:]),
        *(gzip.compress(plain[:place] + b"\x80" + plain[place + 1 :]) for place in range(0, 512, 40)),
        *(packed[:place] + b"\x55" + packed[place + 1 :] for place in range(0, len(packed), len(packed) // 16)),
    ]  # fmt: skip
    for number, data in enumerate(broken):
        try:
            pull(tmp_path / str(number), data)
        except (ArchiveError, PublishError):
            assert not list(tmp_path.glob(f"{number}/*"))
        else:  # a date, or another field that nothing depends on
            verify_version(tmp_path / str(number) / "flowers" / "1")


@pytest.mark.parametrize("file", ["saved_model.pb", "assets.extra/SHA256SUMS", "assets.extra/metadata.json"])
def test_a_version_without_its_files_leaves_nothing(tmp_path: Path, packed: bytes, file: str) -> None:
    def take_away(one: tarfile.TarInfo) -> None:
        one.name += "2" * one.name.endswith(file)

    with pytest.raises(ArchiveError, match=r"holds no sound version\. .* Pack it again"):
        pull(tmp_path, repack(packed, change=take_away))
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_pull_leaves_nothing(tmp_path: Path, packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(source: IO[bytes], target: IO[bytes], length: int) -> None:
        target.write(source.read(10))
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfileobj", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pull(tmp_path, packed)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, packed: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(PublishError, match="No space left"):
        pull(tmp_path, packed)
    assert list(tmp_path.iterdir()) == []
