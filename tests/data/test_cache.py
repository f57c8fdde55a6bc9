import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from service.data.cache import PixelCache, name_part
from service.data.stored import StoredPixels, record_bytes, to_record
from service.errors import TrainingError
from service.imaging.pixels import Pixels

SIZES = [(6, 8)] * 10
IMAGES = [np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8) for seed, size in enumerate(SIZES)]
FILE_BYTES = sum(map(record_bytes, SIZES))


class Usage(NamedTuple):
    total: int
    used: int
    free: int


class Source:
    """The photographs from a number on, and the numbers that were asked for. It may stop like a killed process."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.asked: list[int] = []
        self._stop_at = stop_at

    def __call__(self, number: int) -> Iterator[Pixels]:
        self.asked.append(number)
        for place in range(number, len(IMAGES)):
            if place == self._stop_at:
                raise KeyboardInterrupt
            yield IMAGES[place]


def make_cache(tmp_path: Path, max_bytes: int = 10**9, memory_bytes: int = 0) -> PixelCache:
    return PixelCache(tmp_path / "decoded", max_bytes, memory_bytes)


def assert_same(stored: StoredPixels | None) -> None:
    assert stored is not None
    for image, kept in zip(IMAGES, stored, strict=True):
        np.testing.assert_array_equal(kept, image)


def list_names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "decoded").iterdir() if path.name != "lock")


def interrupt(cache: PixelCache, key: str, stop_at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        cache.write(key, SIZES, Source(stop_at))


def test_photographs_are_written_once(tmp_path: Path) -> None:
    source = Source()
    assert make_cache(tmp_path).find("a", SIZES) is None
    assert_same(make_cache(tmp_path).write("a", SIZES, source))
    assert_same(make_cache(tmp_path).write("a", SIZES, source))
    assert_same(make_cache(tmp_path).find("a", SIZES))
    assert source.asked == [0]
    assert list_names(tmp_path) == ["a.pixels"]


def test_a_killed_write_goes_on_where_it_was(tmp_path: Path) -> None:
    cache, source = make_cache(tmp_path), Source()
    interrupt(cache, "a", stop_at=6)
    assert cache.find("a", SIZES) is None
    with (tmp_path / "decoded" / "a.draft").open("ab") as draft:
        draft.write(to_record(IMAGES[6])[:50])  # half a record, as a kill leaves it
    assert_same(cache.write("a", SIZES, source))
    assert source.asked == [6]
    assert list_names(tmp_path) == ["a.pixels"]


def test_a_damaged_draft_is_written_anew_from_there(tmp_path: Path) -> None:
    cache, source = make_cache(tmp_path), Source()
    interrupt(cache, "a", stop_at=6)
    path = tmp_path / "decoded" / "a.draft"
    data = bytearray(path.read_bytes())
    data[2 * record_bytes(SIZES[0]) + 5] ^= 1
    path.write_bytes(data)
    assert_same(cache.write("a", SIZES, source))
    assert source.asked == [2]


def test_a_file_of_another_size_is_written_anew(tmp_path: Path) -> None:
    cache, source = make_cache(tmp_path), Source()
    cache.write("a", SIZES, Source())
    path = tmp_path / "decoded" / "a.pixels"
    os.truncate(path, path.stat().st_size - 1)
    assert cache.find("a", SIZES) is None
    assert_same(cache.write("a", SIZES, source))
    assert source.asked == [0]


def test_two_processes_write_one_file_once(tmp_path: Path) -> None:
    source = Source()
    with ThreadPoolExecutor(4) as pool:  # each opens the files itself, as a process does
        found = list(pool.map(lambda _: make_cache(tmp_path).write("a", SIZES, source), range(4)))
    for stored in found:
        assert_same(stored)
    assert source.asked == [0]
    assert list_names(tmp_path) == ["a.pixels"]


def test_a_full_disk_is_refused_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, 200_000_000))
    source = Source()
    with pytest.raises(TrainingError) as caught:
        make_cache(tmp_path).write("a", SIZES, source)
    message = str(caught.value)
    assert f"need 0.3 GB in {tmp_path / 'decoded'}, and 0.2 GB are free there." in message
    assert message.endswith("Make room, or name a folder on another disk with --cache (FLOWERS_CACHE).")
    assert source.asked == []


def test_a_folder_that_cannot_be_written_names_the_flag(tmp_path: Path) -> None:
    (tmp_path / "decoded").write_text("a file where the folder should be")
    with pytest.raises(TrainingError, match=r"cannot be kept in .*decoded \(.*\)\. .* --cache \(FLOWERS_CACHE\)"):
        make_cache(tmp_path).write("a", SIZES, Source())


def test_a_file_that_cannot_be_read_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / "decoded").mkdir()
    (tmp_path / "decoded" / "a.pixels").symlink_to("a.pixels")
    assert make_cache(tmp_path).find("a", SIZES) is None  # there may be room in memory
    with pytest.raises(TrainingError, match="cannot be kept in"):
        make_cache(tmp_path).write("a", SIZES, Source())


def test_the_longest_unused_file_makes_room(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, max_bytes=3 * FILE_BYTES)
    for day, key in enumerate(("a", "b", "c")):
        cache.write(key, SIZES, Source())
        os.utime(tmp_path / "decoded" / f"{key}.pixels", (day, day))
    assert_same(cache.find("a", SIZES))  # used again
    assert_same(cache.write("d", SIZES, Source()))
    assert list_names(tmp_path) == ["a.pixels", "c.pixels", "d.pixels"]


def test_unused_files_make_room_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = make_cache(tmp_path)
    for key in ("a", "b"):
        cache.write(key, SIZES, Source())
    os.utime(tmp_path / "decoded" / "a.pixels", (0, 0))
    room_of_none = 256 * 1024 * 1024 + FILE_BYTES - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, room_of_none))
    assert_same(cache.write("c", SIZES, Source()))
    assert list_names(tmp_path) == ["b.pixels", "c.pixels"]


def test_a_part_above_the_limit_deletes_nothing(tmp_path: Path) -> None:
    make_cache(tmp_path).write("a", SIZES, Source())
    with pytest.raises(TrainingError, match="--max-decoded-bytes"):
        make_cache(tmp_path, max_bytes=FILE_BYTES - 1).write("b", SIZES, Source())
    assert "a.pixels" in list_names(tmp_path)


def test_a_file_in_use_is_never_deleted(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, max_bytes=2 * FILE_BYTES)
    used = cache.write("a", SIZES, Source())
    cache.write("b", SIZES, Source())
    os.utime(tmp_path / "decoded" / "a.pixels", (0, 0))
    also_used = cache.write("c", SIZES, Source())
    assert list_names(tmp_path) == ["a.pixels", "c.pixels"]
    with pytest.raises(TrainingError, match=f"Raise --max-decoded-bytes to {3 * FILE_BYTES}"):
        cache.write("d", SIZES, Source())
    assert_same(used)
    assert_same(also_used)


def test_the_cache_is_for_what_memory_cannot_hold(tmp_path: Path) -> None:
    cache = make_cache(tmp_path, memory_bytes=2000)
    assert not cache.is_needed(1000)
    assert cache.is_needed(1001)


@pytest.mark.parametrize(("left", "is_needed"), [(0, False), (100, True), (10**18, False)])
def test_the_machine_is_asked_for_its_free_memory(
    left: int, is_needed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("service.data.cache.memory_left", lambda: left)  # 0 means unknown
    assert PixelCache(tmp_path, 10**9).is_needed(1000) is is_needed


@pytest.mark.parametrize(
    "other",
    [
        lambda: name_part("square", (256, 224), ["x", "y"]),
        lambda: name_part("full", (256, 225), ["x", "y"]),
        lambda: name_part("full", (256, 224), ["x", "z"]),
        lambda: name_part("full", (256, 224), ["y", "x"]),
    ],
)
def test_all_that_decides_the_pixels_is_in_the_key(other: Callable[[], str]) -> None:
    assert name_part("full", (256, 224), ["x", "y"]) == name_part("full", (256, 224), ["x", "y"])
    assert other() != name_part("full", (256, 224), ["x", "y"])


def test_another_decoder_has_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = name_part("full", (), ["x"])
    monkeypatch.setattr("service.data.cache.pillow_version", "0.1")
    assert name_part("full", (), ["x"]) != before
