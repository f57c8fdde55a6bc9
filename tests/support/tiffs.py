"""TIFF files of every kind, written sample by sample."""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.drawing import draw_photograph

SIDE, BLOCK = 48, 16
RGB = np.asarray(draw_photograph(2, 3, (SIDE, SIDE)))
GREY = RGB[..., 1:2]
ALPHA = np.full((SIDE, SIDE, 1), 255, np.uint8)
ALPHA[30:44, 4:20] = 0
PALETTE = np.stack([np.arange(256), 255 - np.arange(256), np.arange(256) // 2], -1)
WHITE_IS_ZERO, BLACK_IS_ZERO, COLOURS, MAPPED, INKS = 0, 1, 2, 3, 5
COMPRESSIONS: dict[str, tuple[int, Callable[[bytes], bytes]]] = {
    "none": (1, lambda raw: raw),
    "deflate": (8, zlib.compress),
    "PackBits": (32773, lambda raw: b"".join(bytes([len(run) - 1]) + run for run in runs(raw))),
}


def runs(raw: bytes) -> list[bytes]:
    return [raw[start : start + 96] for start in range(0, len(raw), 96)]


@dataclass
class Kind:
    """Samples as they are stored, and the RGB image that they are. None: nobody knows."""

    samples: NDArray[Any]
    photometric: int
    expected: NDArray[Any] | None
    bits: int = 8
    more: tuple[tuple[int, tuple[int, ...]], ...] = ()
    is_read: bool = True


def tiff(
    kind: Kind, order: str = "<", compression: str = "none", *, is_apart: bool = False, is_tiled: bool = False
) -> bytes:
    """A page in strips of 16 rows, or in tiles of 16 x 16."""
    samples, code, pack = kind.samples, *COMPRESSIONS[compression]
    count, across = samples.shape[-1], BLOCK if is_tiled else SIDE
    planes = [samples[..., i : i + 1] for i in range(count)] if is_apart else [samples]
    blocks = [
        plane[top : top + BLOCK, left : left + across]
        for plane in planes
        for top in range(0, SIDE, BLOCK)
        for left in range(0, SIDE, across)
    ]
    body, places, lengths = b"", [], []
    for block in blocks:
        packed = pack(b"".join(row_bytes(row, kind.bits, order) for row in block.reshape(len(block), -1)))
        places.append(8 + len(body))
        lengths.append(len(packed))
        body += packed + bytes(len(packed) % 2)
    entries: dict[int, tuple[int, ...]] = {
        256: (SIDE,), 257: (SIDE,), 258: (kind.bits,) * count, 259: (code,), 262: (kind.photometric,), 277: (count,),
        284: (1 + is_apart,), **dict(kind.more),
    }  # fmt: skip
    entries |= {322: (BLOCK,), 323: (BLOCK,)} if is_tiled else {278: (BLOCK,)}
    entries |= {324: tuple(places), 325: tuple(lengths)} if is_tiled else {273: tuple(places), 279: tuple(lengths)}
    return page(entries, order, body)


def row_bytes(row: NDArray[Any], bits: int, order: str) -> bytes:
    if bits >= 8:
        return row.astype(f"{order}{row.dtype.kind}{row.dtype.itemsize}").tobytes()
    text = "".join(f"{int(value):0{bits}b}" for value in row)
    return int(text, 2).to_bytes(len(text) // 8, "big")


def page(entries: dict[int, tuple[int, ...]], order: str = "<", body: bytes = b"") -> bytes:
    """A file of one page: its data, then its directory, all numbers of four bytes where they need as many."""
    end = 8 + len(body) + 2 + 12 * len(entries) + 4
    directory, beyond = struct.pack(order + "H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        letter, kind = ("H", 3) if tag not in (273, 279, 324, 325, 330, 254) else ("I", 4)
        packed = struct.pack(f"{order}{len(values)}{letter}", *values)
        if len(packed) > 4:
            packed, beyond = struct.pack(order + "I", end + len(beyond)), beyond + packed
        directory += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(body))
    return head + body + directory + bytes(4) + beyond


def as_rgb(grey: NDArray[Any]) -> NDArray[Any]:
    return np.repeat(grey, 3, axis=-1)


def wide(samples: NDArray[Any]) -> NDArray[np.uint16]:
    return samples.astype(np.uint16) * 256 + 77


def with_alpha(samples: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([samples, ALPHA], axis=-1)


def colour_map(bits: int, factor: int) -> tuple[int, tuple[int, ...]]:
    return 320, tuple(int(value) * factor for value in PALETTE[: 2**bits].T.reshape(-1))


def stretched(grey: NDArray[Any]) -> NDArray[Any]:
    values = grey.astype(float)
    return as_rgb(np.rint((values - values.min()) / (values.max() - values.min()) * 255))


ON_WHITE = np.where(ALPHA == 0, 255, RGB)
GREY_ON_WHITE = np.where(ALPHA == 0, 255, as_rgb(GREY))
CMYK = np.concatenate([255 - RGB, np.zeros_like(GREY)], axis=-1)
KINDS = {
    "grey": Kind(GREY, BLACK_IS_ZERO, as_rgb(GREY)),
    "white is zero": Kind(255 - GREY, WHITE_IS_ZERO, as_rgb(GREY)),
    "grey with alpha": Kind(with_alpha(GREY), BLACK_IS_ZERO, GREY_ON_WHITE, more=((338, (2,)),)),
    "RGB": Kind(RGB, COLOURS, RGB),
    "RGB with alpha": Kind(with_alpha(RGB), COLOURS, ON_WHITE, more=((338, (2,)),)),
    "RGB with something": Kind(with_alpha(RGB), COLOURS, RGB, more=((338, (0,)),)),
    "CMYK": Kind(CMYK, INKS, RGB),
    "16 bits, grey": Kind(wide(GREY), BLACK_IS_ZERO, as_rgb(GREY), 16),
    "16 bits, RGB": Kind(wide(RGB), COLOURS, RGB, 16),
    "16 bits, RGB with alpha": Kind(wide(with_alpha(RGB)), COLOURS, ON_WHITE, 16, more=((338, (2,)),)),
    "16 bits, CMYK": Kind(wide(CMYK), INKS, RGB, 16),
    "16 bits, white is zero": Kind(wide(255 - GREY), WHITE_IS_ZERO, as_rgb(GREY), 16, is_read=False),
    "16 bits, signed": Kind(GREY.astype(np.int16) * 100 - 5_000, BLACK_IS_ZERO, stretched(GREY), 16, ((339, (2,)),)),
    "16 bits, grey with alpha": Kind(wide(with_alpha(GREY)), BLACK_IS_ZERO, GREY_ON_WHITE, 16, ((338, (2,)),), False),
    "32 bits": Kind(GREY.astype(np.uint32) * 1_000, BLACK_IS_ZERO, stretched(GREY), 32),
    "32 bits, large": Kind(GREY.astype(np.uint32) << 24, BLACK_IS_ZERO, stretched(GREY), 32, is_read=False),
    "32 bits, signed": Kind(GREY.astype(np.int32) * 1_000 - 9_999, BLACK_IS_ZERO, stretched(GREY), 32, ((339, (2,)),)),
    "float": Kind(GREY.astype(np.float32) / 3, BLACK_IS_ZERO, stretched(GREY), 32, ((339, (3,)),)),
    "float, white is zero": Kind(
        GREY.astype(np.float32), WHITE_IS_ZERO, stretched(255 - GREY), 32, ((339, (3,)),), False
    ),
    "8 bits, signed RGB": Kind(RGB, COLOURS, None, more=((339, (2, 2, 2)),), is_read=False),
    "three inks": Kind(255 - RGB, INKS, RGB, is_read=False),
    "a filter of colours": Kind(GREY, 32_803, None, is_read=False),
    "YCbCr with halved colours": Kind(RGB, 6, None, is_read=False),
    **{
        f"{bits} bits, {name}": Kind(samples, photometric, expected, bits, more, is_read)
        for bits in (1, 2, 4, 8)
        for few in [GREY >> (8 - bits)]
        for name, samples, photometric, expected, more, is_read in (
            ("grey", few, BLACK_IS_ZERO, as_rgb(few.astype(int) * 255 // (2**bits - 1)), (), True),
            ("white is zero", 2**bits - 1 - few, 0, as_rgb(few.astype(int) * 255 // (2**bits - 1)), (), True),
            ("palette", few, MAPPED, PALETTE[few[..., 0]], (colour_map(bits, 257),), True),
            ("palette of 0 to 255", few, MAPPED, PALETTE[few[..., 0]], (colour_map(bits, 1),), False),
        )
    },
}  # fmt: skip
