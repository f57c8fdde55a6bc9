from pathlib import Path

import numpy as np
import pytest
from support.memory import growth_bytes

from service.data.stored import (
    Selection,
    StoredPixels,
    is_sound,
    is_stored,
    record_bytes,
    to_record,
)
from service.errors import TrainingError
from service.imaging.pixels import Pixels

SIZES = [(4, 6), (5, 4), (4, 4), (8, 4)]


def draw(seed: int, size: tuple[int, int]) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


IMAGES = [draw(seed, size) for seed, size in enumerate(SIZES)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of four photographs."""
    path = tmp_path / "four.pixels"
    path.write_bytes(b"".join(map(to_record, IMAGES)))
    return path


def open_stored(path: Path) -> StoredPixels:
    return StoredPixels(path.open("rb"), SIZES)


def test_stored_photographs_have_the_same_pixels(path: Path) -> None:
    stored = open_stored(path)
    assert len(stored) == len(IMAGES)
    for image, kept in zip(IMAGES, stored, strict=True):
        np.testing.assert_array_equal(kept, image)
        assert kept.dtype == np.uint8
        assert not kept.flags.writeable
    np.testing.assert_array_equal(stored[-1], IMAGES[-1])
    for image, kept in zip(IMAGES[1:3], stored[1:3], strict=True):
        np.testing.assert_array_equal(kept, image)


def test_a_record_has_the_bytes_that_are_foretold() -> None:
    assert [len(to_record(image)) for image in IMAGES] == [record_bytes(size) for size in SIZES]


@pytest.mark.parametrize("place", [0, 40, 4 * 6 * 3])  # the last is of the checksum
def test_a_changed_byte_makes_a_record_unsound(place: int) -> None:
    record = bytearray(to_record(IMAGES[0]))
    assert is_sound(bytes(record))
    record[place] ^= 1
    assert not is_sound(bytes(record))
    assert not is_sound(b"")


def test_a_damaged_photograph_is_named_with_the_remedy(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[record_bytes(SIZES[0]) + 7] ^= 0xFF
    path.write_bytes(data[:-1])
    stored = open_stored(path)
    np.testing.assert_array_equal(stored[0], IMAGES[0])
    for place, number in ((1, 2), (3, 4)):
        with pytest.raises(TrainingError) as caught:
            stored[place]
        assert f"{path} is damaged at photograph {number} of 4." in str(caught.value)
        assert f"Delete {path}, and give the command again." in str(caught.value)


def test_reading_many_photographs_takes_the_memory_of_one(tmp_path: Path) -> None:
    size, number = (600, 600), 80
    path = tmp_path / "large.pixels"
    path.write_bytes(to_record(draw(0, size)) * number)
    stored = StoredPixels(path.open("rb"), [size] * number)
    assert growth_bytes(lambda: [image.max() for image in stored]) < 10 * record_bytes(size)


def test_a_selection_has_its_photographs_in_order(path: Path) -> None:
    stored, others = open_stored(path), [draw(9, (3, 3))]
    both = [*IMAGES, *others]
    for image, found in zip(both, Selection([stored, others]), strict=True):
        np.testing.assert_array_equal(found, image)
    places = [4, 0, 0, 3]
    chosen = Selection([stored, others], places)
    assert len(chosen) == 4
    for place, found in zip(places, chosen, strict=True):
        np.testing.assert_array_equal(found, both[place])
    assert [image.shape for image in chosen[1:]] == [both[place].shape for place in places[1:]]


def test_a_selection_reads_nothing_before_it_is_asked(path: Path) -> None:
    path.write_bytes(b"")
    chosen = Selection([Selection([open_stored(path)] * 3)], [0, 5])
    assert len(chosen) == 2
    with pytest.raises(TrainingError, match="damaged"):
        chosen[1]


def test_photographs_in_a_file_are_known_in_any_selection(path: Path) -> None:
    stored = open_stored(path)
    assert is_stored(Selection([IMAGES, Selection([stored], [1])]))
    assert is_stored(stored)
    assert not is_stored(Selection([IMAGES, IMAGES]))
    assert not is_stored(IMAGES)
