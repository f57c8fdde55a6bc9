"""What is refused before anything is decoded: too many pixels, files cut short, work out of proportion."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image
from support.drawing import encode
from support.handmade import jpeg_segment, png_chunk, run_length_bmp, with_segments
from support.hostile_files import tiff, tiff_with_notes
from support.odd_files import BOMBS, HOSTILE, JPEG, PICTURE, REAL, TIFF_ENTRIES, black_png, png_with, with_size_at

from service.errors import ImageTooLarge, InvalidImage, UnsupportedImageFormat
from service.imaging.decode import decode_image
from service.imaging.header import announced_pixels

IN_LITTLE_MEMORY = """
import pathlib, resource, sys
from service.errors import ImageTooLarge
from service.imaging.decode import decode_image
held = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 64 * 2**20,) * 2)
for path in sys.argv[1:]:
    try:
        decode_image(pathlib.Path(path).read_bytes())
    except ImageTooLarge as error:
        print(pathlib.Path(path).name, error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_too_many_pixels_are_refused_from_the_header(tmp_path: Path) -> None:
    """In a process that may take 64 MiB more; any of the bombs would need 250 MB and more if it were decoded."""
    for name, make in BOMBS.items():
        (tmp_path / name).write_bytes(make())
    ran = subprocess.run(
        [sys.executable, "-c", IN_LITTLE_MEMORY, *map(str, sorted(tmp_path.iterdir()))],
        capture_output=True, text=True, check=True, cwd=Path(__file__).resolve().parents[2],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = ran.stdout.splitlines()
    assert [line.partition(" The ")[0] for line in lines] == sorted(BOMBS)


def test_the_bomb_of_the_png_is_small() -> None:
    assert len(black_png(19_000)) < 50_000


@pytest.mark.parametrize("name", BOMBS)
def test_the_message_says_how_many_pixels_are_taken(name: str) -> None:
    with pytest.raises(
        ImageTooLarge,
        match=r"^The (JPEG )?image has [\d.]+ million pixels( to decode)?\. Up to (50|200) million are taken\. Send",
    ):
        decode_image(BOMBS[name]())


@pytest.mark.parametrize("name", HOSTILE)
def test_work_out_of_proportion_is_refused(name: str) -> None:
    what, make = HOSTILE[name]
    with pytest.raises(InvalidImage, match=rf"holds more {what}.* than it needs\. Send a copy"):
        decode_image(make())


@pytest.mark.parametrize("name", REAL)
def test_notes_of_real_files_are_not_refused(name: str) -> None:
    assert decode_image(REAL[name]()).pixels.size


@pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt"])
def test_a_text_that_unpacks_to_megabytes_is_refused(kind: bytes) -> None:
    flags = {b"zTXt": b"k\0\0", b"iCCP": b"k\0\0", b"iTXt": b"k\0\x01\0\0\0"}[kind]
    with pytest.raises(InvalidImage):
        decode_image(png_with(png_chunk(kind, flags + zlib.compress(bytes(20_000_000)))))


def test_many_texts_that_unpack_to_megabytes_together_are_refused() -> None:
    text = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1_000_000)))
    with pytest.raises(InvalidImage):
        decode_image(png_with(text * 100))


def test_a_large_run_length_bmp_is_refused() -> None:
    assert announced_pixels(run_length_bmp(512, 7), "BMP") == 512 * 512
    with pytest.raises(UnsupportedImageFormat, match=r"run-length compressed\. .* Send it as PNG"):
        decode_image(run_length_bmp(513, 7))
    with pytest.raises(UnsupportedImageFormat, match="run-length compressed"):
        decode_image(run_length_bmp(16, 7) + bytes(256 * 1024))


@pytest.mark.parametrize(("place", "layout", "value"), [(30, "<I", 4), (30, "<I", 5), (28, "<H", 2), (28, "<H", 64)])
def test_a_rare_kind_of_bmp_is_not_called_broken(place: int, layout: str, value: int) -> None:
    data = with_size_at(encode(PICTURE, "BMP"), place, layout, value)
    with pytest.raises(UnsupportedImageFormat, match=r"BMP image is packed in a rare way\. .* Send it as PNG"):
        decode_image(data)


@pytest.mark.parametrize("compression", [34925, 50000, 50001, 34887, 6])
def test_a_tiff_with_a_rare_compression_is_refused(compression: int) -> None:
    entries = [entry for entry in TIFF_ENTRIES if entry[0] != 259]
    with pytest.raises(UnsupportedImageFormat, match=r"compressed in a rare way\. .* Send it as JPEG or PNG"):
        decode_image(tiff([*entries, (259, 3, 1, compression)]))


def test_a_tiff_size_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidImage, match="size of the TIFF image is not a number"):
        decode_image(tiff([(256, 9, 1, 8), *TIFF_ENTRIES[1:]]))


def test_a_tiff_may_have_strips_for_each_colour() -> None:
    end = 8 + 2 + 12 * 9 + 4
    entries = [(256, 3, 1, 8), (257, 3, 1, 8), (258, 3, 3, end), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3)]
    entries += [(273, 4, 6, end + 6), (278, 3, 1, 4), (284, 3, 1, 2)]
    places = [end + 30 + 32 * number for number in range(6)]
    data = tiff(entries, tail=struct.pack("<3H6I", 8, 8, 8, *places) + bytes(64) + b"\1" * 64 + b"\2" * 64)
    assert (decode_image(data).pixels == (0, 1, 2)).all()


def test_a_tiff_size_may_stand_elsewhere_in_the_file() -> None:
    """A number of eight bytes does not fit into its entry, which only says where it is."""
    end = 8 + 2 + 12 * len(TIFF_ENTRIES) + 4
    entries = [(256, 16, 1, end), (257, 16, 1, end), *TIFF_ENTRIES[2:]]
    assert announced_pixels(tiff(entries, tail=struct.pack("<Q", 20_000)), "TIFF") == 400_000_000


def test_tiff_strips_of_the_same_data_are_refused() -> None:
    """Eight rows of 400 bytes each, in a file of half a kilobyte."""
    compressed = [entry for entry in TIFF_ENTRIES if entry[0] != 259]
    compressed += [(259, 3, 1, 32_773), (273, 4, 8, 122), (278, 3, 1, 1), (279, 4, 8, 122 + 32)]
    data = tiff(compressed, struct.pack("<16I", *[122 + 64] * 8, *[400] * 8))
    assert announced_pixels(data + bytes(2_000), "TIFF") == 64
    with pytest.raises(InvalidImage, match="TIFF image is cut short"):
        decode_image(data + bytes(400))
    for kind in (9, 17):  # as signed numbers, which the library takes as well
        hidden = data.replace(struct.pack("<HHI", 279, 4, 8), struct.pack("<HHI", 279, kind, 8))
        with pytest.raises(InvalidImage, match="size of the TIFF image is not a number"):
            decode_image(hidden + bytes(400))


@pytest.mark.parametrize("is_tiled", [False, True])
def test_a_tiff_that_repeats_its_strips_is_refused(is_tiled: bool) -> None:
    """Pillow would decode the image anew each time; where tiles are announced as well, it takes the strips."""
    entries = [*TIFF_ENTRIES, (278, 3, 1, 4), *([(322, 3, 1, 1), (323, 3, 1, 1)] if is_tiled else [])]
    end = 8 + 2 + 12 * (len(entries) + 1) + 4
    for count, is_good in ((8, True), (9, False)):
        data = tiff([*entries, (273, 4, count, end)], tail=struct.pack("<9I", *[end + 36] * 9) + bytes(64))
        if is_good:
            assert not decode_image(data).pixels.any()
        else:
            with pytest.raises(InvalidImage, match=r"lists its strips more than once\. Send a copy"):
                decode_image(data)


def test_notes_inside_a_tiff_s_notes_are_not_read() -> None:
    """EXIF of 300,000 fractions, which would be 60 MB in Python, and take a second."""
    data = tiff_with_notes(300_000)
    with Image.open(io.BytesIO(data)) as image:
        assert len(image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime]) == 300_000
    tracemalloc.start()
    try:
        assert decode_image(data).pixels[..., 0].tolist() == np.arange(64).reshape(8, 8).tolist()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_files_without_their_end_mark_are_cut_short() -> None:
    with pytest.raises(InvalidImage, match=r"JPEG image is cut short\. Send the whole file again"):
        decode_image(JPEG[:-2])
    with pytest.raises(InvalidImage, match=r"PNG image is cut short\. Send the whole file again"):
        decode_image(encode(PICTURE, "PNG")[:-12])


def test_a_thumbnail_s_end_does_not_end_the_image() -> None:
    thumbnail = encode(PICTURE.resize((8, 6)))
    data = with_segments(JPEG, jpeg_segment(0xE1, b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0" + thumbnail))
    assert decode_image(data).pixels.shape == (36, 48, 3)
    with pytest.raises(InvalidImage, match="cut short"):
        decode_image(data[:-2])


def test_a_png_with_damaged_image_data_is_refused() -> None:
    """Uncompressed inside, so that only the checksum can tell."""
    data = bytearray(encode(Image.new("RGB", (40, 40), (1, 2, 3)), "PNG", compress_level=0))
    data[data.index(b"IDAT") + 100] ^= 0xFF
    with pytest.raises(InvalidImage, match="a checksum differs"):
        decode_image(bytes(data))


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_rubbish_behind_the_image_does_not_matter(image_format: str) -> None:
    data = encode(PICTURE, image_format)
    assert np.array_equal(decode_image(data + b"PK\x03\x04rubbish" * 50).pixels, decode_image(data).pixels)


def test_a_bmp_of_os_2_is_read() -> None:
    """Its header has 12 bytes."""
    data = (
        b"BM"
        + struct.pack("<IHHI", 0, 0, 0, 26)
        + struct.pack("<IHHHH", 12, 2, 1, 1, 24)
        + bytes((1, 2, 3) * 2 + (0, 0))
    )
    assert decode_image(data).pixels.tolist() == [[[3, 2, 1]] * 2]
