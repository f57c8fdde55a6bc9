"""Recorded squares and refusals of image files, and the drawn files among them."""

import hashlib
import itertools
import json
import os
import platform
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
from PIL import Image
from support.damage import FILES, damaged
from support.drawing import draw_photograph, encode, profile_with_red_and_green_exchanged
from support.formats_and_modes import ROWS
from support.handmade import jpeg_segment, png, png_chunk, with_segments
from support.hostile_files import chained_profile, hostile_files
from support.icc import cmyk_profile, grey_profile, matrix_profile, table_profile
from support.odd_files import BOMBS, HOSTILE, REAL, with_size_at
from support.tiffs import COMPRESSIONS, KINDS, tiff

FOLDER = Path(__file__).parents[1] / "imaging" / "golden"
MADE_WITH = {"pillow": PIL.__version__, "machine": platform.machine()}
NUM_DAMAGED = 1_500
IMAGE = draw_photograph(2, 3, (64, 48))
WRITES = os.environ.get("FLOWERS_TEST_WRITE_GOLDEN") == "1"


def compare(name: str, found: dict[str, str], *, is_whole: bool = True) -> None:
    """Compare outcomes with the recorded ones, or record them.

    Pixels depend on Pillow and the decoders inside it. Another version of it skips the test.
    FLOWERS_TEST_WRITE_GOLDEN=1 records, and skips as well.

    Args:
        name: of the recorded file, without its ending.
        found: the outcome for each image file.
        is_whole: whether each recorded image file is among the found ones.
    """
    path = FOLDER / f"{name}.json"
    if WRITES:
        if is_whole:
            write(path, found)
        pytest.skip(f"{path} was written anew" if is_whole else "it writes nothing")
    recorded = json.loads(path.read_text())
    if recorded["made_with"] != MADE_WITH:
        pytest.skip(f"{path.name} was made with {recorded['made_with']}, and this is {MADE_WITH}: write it anew")
    expected = {file: outcome for outcome, files in recorded["outcomes"].items() for file in files}
    if not is_whole:
        expected = {file: expected[file] for file in found if file in expected}
    assert len(expected) > 10
    for what, change in (("squares or kinds of refusals", kinds), ("messages", dict[str, str])):
        found_differences = differences(change(expected), change(found))
        assert not found_differences, "\n".join([f"{len(found_differences)} {what} differ", *found_differences[:20]])


def differences(expected: dict[str, str], found: dict[str, str]) -> list[str]:
    """Describe the image files whose outcomes differ."""
    files = [file for file in expected | found if expected.get(file) != found.get(file)]
    return [f"{file}: {expected.get(file)} was recorded, {found.get(file)} was found" for file in files]


def kinds(outcomes: dict[str, str]) -> dict[str, str]:
    """Cut refusals down to their class. Squares stay as they are."""
    return {file: outcome.partition(":")[0] for file, outcome in outcomes.items()}


def write(path: Path, found: dict[str, str]) -> None:
    """Write outcomes with the image files that have them, one outcome a line."""
    files: dict[str, list[str]] = {}
    for file, outcome in found.items():
        files.setdefault(outcome, []).append(file)
    lines = ",\n".join(f"{json.dumps(outcome)}: {json.dumps(names)}" for outcome, names in files.items())
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'{{"made_with": {json.dumps(MADE_WITH)}, "outcomes": {{\n{lines}\n}}}}\n')


def digest(data: bytes) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256."""
    return hashlib.sha256(data).hexdigest()[:16]


def drawn_files() -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of each drawn file, the same ones each time."""
    tables: dict[str, dict[str, Callable[[], bytes]]] = {
        "": {name: make for name, (make, _, _) in ROWS.items()},
        "bomb, ": BOMBS,
        "hostile, ": {name: make for name, (_, make) in HOSTILE.items()},
        "odd, ": REAL,
    }
    for kind, table in tables.items():
        yield from ((kind + name, make()) for name, make in table.items())
    yield from (("costly, " + name, data) for name, data in hostile_files().items())
    for family in (oriented, noted, profiled, jpegs, sizes, tiffs, cut, strangers):
        yield from family()


def oriented() -> Iterator[tuple[str, bytes]]:
    for image_format, orientation in itertools.product(("JPEG", "PNG", "WEBP", "TIFF", "AVIF"), range(10)):
        exif = Image.Exif()
        exif[0x0112] = orientation
        yield f"{image_format}, orientation {orientation}", encode(IMAGE.copy(), image_format, exif=exif)
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    yield "WebP, orientation in XMP", encode(IMAGE, "WEBP", lossless=True, xmp=xmp)
    yield "TIFF, orientation twice", encode(IMAGE.copy(), "TIFF", tiffinfo={0x0112: 6, 700: xmp})
    for note in (b"", b"MM", b"MM\0*\0\0\0\x08", b"MM\0*\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"rubbish"):
        yield f"JPEG, EXIF {note!r}", with_segments(encode(IMAGE), jpeg_segment(0xE1, b"Exif\0\0" + note))


def noted() -> Iterator[tuple[str, bytes]]:
    rows = b"".join(b"\0" + row.tobytes() for row in np.asarray(IMAGE))
    kinds = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"tRNS", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"eXIf", b"prVt", b"acTL",
             b"fcTL", b"PLTE", b"IDAT", b"CgBI")  # fmt: skip
    for kind, body in itertools.product(kinds, (b"", b"k\0\0text", bytes(6), bytes(9), bytes(26))):
        chunk = png_chunk(kind, body)
        name = f"PNG, {kind.decode()} of {body!r}"
        yield name, png(64, 48, rows, before=chunk)
        yield f"{name}, damaged", png(64, 48, rows, before=chunk[:-1] + bytes([chunk[-1] ^ 1]))
    for missing in (1, 20):
        yield f"PNG, {missing} rows missing", png(64, 48, rows[: -193 * missing])
    for depth, colour_type, most in ((16, 0, 4_095), (16, 0, 4_096), (16, 2, 9), (4, 0, 0), (2, 0, 0)):
        row = b"\0" + most.to_bytes(2, "big") * 12
        yield (
            f"PNG, {depth} bits of colour type {colour_type} up to {most}",
            png(4, 1, row[: 1 + 4 * (1 + colour_type) * depth // 8], bit_depth=depth, colour_type=colour_type),
        )


def profiled() -> Iterator[tuple[str, bytes]]:
    profiles = {
        "exchanged": profile_with_red_and_green_exchanged(), "gamma 2.2": matrix_profile(2.2),
        "gamma 1": matrix_profile(1.0), "linear": matrix_profile(None), "table": table_profile(),
        "ink": cmyk_profile(), "grey": grey_profile(2.2), "linear grey": grey_profile(None),
        "chained": chained_profile(2), "rubbish": b"rubbish" * 20, "cut": matrix_profile(2.2)[:200], "a byte": b"\0",
    }  # fmt: skip
    for (name, profile), mode in itertools.product(profiles.items(), ("RGB", "L", "CMYK")):
        for image_format in ("JPEG", "TIFF") if mode == "CMYK" else ("JPEG", "PNG", "TIFF", "WEBP"):
            data = encode(IMAGE.convert(mode), image_format, icc_profile=profile)
            yield f"{image_format}, {mode}, profile {name}", data


def jpegs() -> Iterator[tuple[str, bytes]]:
    plain = encode(IMAGE)
    at = plain.index(b"\xff\xc0")
    for marker, precision in itertools.product((0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD), (8, 12)):
        frame = bytes([0xFF, marker]) + plain[at + 2 : at + 4] + bytes([precision])
        yield f"JPEG, frame {marker:x} of {precision} bits", plain[:at] + frame + plain[at + 5 :]
    ways: dict[str, dict[str, Any]] = {
        "baseline": {}, "restarts": {"restart_marker_blocks": 4}, "optimised": {"optimize": True},
        "full colour": {"subsampling": 0}, "4:2:2": {"subsampling": 1}, "coarse": {"quality": 5},
        "progressive": {"progressive": True},
    }  # fmt: skip
    for (way, options), mode in itertools.product(ways.items(), ("RGB", "L", "CMYK")):
        data = encode(IMAGE.convert(mode), **options)
        yield f"JPEG, {way}, {mode}", data
        scan = data.rindex(b"\xff\xda") + 14
        yield f"JPEG, {way}, {mode}, half a scan", data[: (scan + len(data)) // 2].rstrip(b"\xff") + b"\xff\xd9"
        yield f"JPEG, {way}, {mode}, text behind", data + b"PK\3\4rubbish"
        huge = [(12_000, 9_000), (20_000, 10_000), (20_002, 10_000)] if mode == "RGB" else []
        for width, height in ((1_024, 1_500), (2_050, 1_030), *huge):
            frame_at = data.index(b"\xff\xc2" if "progressive" in options else b"\xff\xc0") + 5
            yield f"JPEG, {way}, {mode}, as {width} x {height}", with_size_at(data, frame_at, ">HH", height, width)


def sizes() -> Iterator[tuple[str, bytes]]:
    for width, height in ((1, 1), (2, 3), (1, 5_000), (5_000, 1), (224, 224), (513, 600)):
        for image_format in ("JPEG", "PNG"):
            data = encode(IMAGE.resize((width, height)), image_format)
            yield f"{image_format}, {width} x {height}", data
    for width, height in ((1_023, 1_100), (1_024, 1_100), (2_500, 2_200)):
        yield f"JPEG, {width} x {height}", encode(IMAGE.resize((width, height)))
        yield f"JPEG, progressive, {width} x {height}", encode(IMAGE.resize((width, height)), progressive=True)
    for image_format in ("PNG", "GIF", "BMP", "WEBP", "AVIF"):
        yield f"{image_format}, 2200 x 2000", encode(Image.new("RGB", (2_200, 2_000), (9, 80, 200)), image_format)


def tiffs() -> Iterator[tuple[str, bytes]]:
    for name, kind in KINDS.items():
        for order, way, is_apart, is_tiled in itertools.product("<>", COMPRESSIONS, (False, True), (False, True)):
            parts = "apart" if is_apart else "together", "tiles" if is_tiled else "strips"
            data = tiff(kind, order, way, is_apart=is_apart, is_tiled=is_tiled)
            yield f"TIFF, {name}, {order} {way} {' '.join(parts)}", data
    for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        yield f"TIFF, {way}", encode(IMAGE.copy(), "TIFF", compression=way)


def cut() -> Iterator[tuple[str, bytes]]:
    for number, data in enumerate(FILES):
        for length in (1, 4, 12, 20, 40, len(data) // 4, len(data) // 2, len(data) - 20, len(data) - 2, len(data) - 1):
            yield f"file {number} cut to {length}", data[:length]


def strangers() -> Iterator[tuple[str, bytes]]:
    yield "no bytes", b""
    yield "too many bytes", bytes(20 * 1024 * 1024 + 1)
    starts = (b"%PDF-1.7\n", b"<!DOCTYPE html><html>", b"\xef\xbb\xbf\n <HTML>", b"<svg>", b"<?xml?><svg>",
              b"<?xml?><rss>", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", b"PK\3\4",
              b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", b"8BPS\0\1", b"\xff\x0a\xfa", b"data:image/png;base64,", b"{",
              b"BMW sells cars", b"hello", b"\0\1\2\3\xfe\xff", b"\x1f\x8b", b"MM\0+", b"MZ", b"\x7fELF", b"%!PS",
              b"\0\0\1\0", b"\xff\x4f\xff\x51", b"\x1aE\xdf\xa3", b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ")  # fmt: skip
    yield from ((f"begins with {start!r}", start) for start in starts)
    yield from ((f"begins with {start!r}, then zeros", start + bytes(200)) for start in starts)


def damaged_files() -> Iterator[tuple[str, bytes]]:
    """Yield files that were damaged at random, the same ones each time."""
    for seed in range(NUM_DAMAGED):
        source = random.Random(seed)
        yield str(seed), damaged(source.choice(FILES), FILES, source)
