"""The numbers of a TIFF's first page."""

import struct

import pytest
from support.hostile_files import tiff

from service.errors import InvalidImage
from service.imaging.tiff_directory import Tag, read_page

SIZES = [(256, 4, 1, 40), (257, 3, 1, 30), (258, 3, 3, 86), (277, 3, 1, 3)]


def test_numbers_are_read_where_an_entry_points() -> None:
    page = read_page(tiff([*SIZES, (322, 4, 1, 64), (323, 4, 1, 64)], tail=struct.pack("<3H", 16, 16, 16)))
    assert page.numbers[Tag.WIDTH] == (40,)
    assert page.is_little
    assert page.pixels == 64 * 64  # of its tile, which is larger


def test_bits_tell_how_far_numbers_go() -> None:
    page = read_page(tiff(SIZES, tail=struct.pack("<24H", *[16] * 24)))
    assert page.bits == (16, 16, 16)
    assert page.unsigned_bits == 16


def test_a_tag_that_is_missing_has_a_default() -> None:
    assert read_page(tiff(SIZES, tail=bytes(60))).one(Tag.COMPRESSION, 1) == 1


def test_a_size_that_is_no_number_is_refused() -> None:
    with pytest.raises(InvalidImage, match="size of the TIFF image is not a number"):
        read_page(tiff([(256, 2, 1, 40), *SIZES[1:]], tail=bytes(60)))
