"""Colour profiles as cameras, programs and printers write them."""

import struct

import numpy as np
from numpy.typing import NDArray
from support.hostile_files import profile_of

_ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))


def matrix_profile(gamma: float | None) -> bytes:
    """The primaries of Adobe RGB, under a name of its own, with this gamma; None: numbers that are linear in light."""
    primaries = {
        f"{name}XYZ".encode(): b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * value) for value in colour))
        for name, colour in zip("rgb", _ADOBE_RGB, strict=True)
    }
    return profile_of(primaries | {f"{name}TRC".encode(): _curve(gamma) for name in "rgb"})


def grey_profile(gamma: float | None) -> bytes:
    """Of grey, with this gamma."""
    return profile_of({b"kTRC": _curve(gamma)}, b"GRAYXYZ ")


def table_profile() -> bytes:
    """Of RGB, by a table of 9 x 9 x 9 colours that leaves greys as sRGB has them; a matrix beside it does not count."""
    red, green, blue = np.meshgrid(*[np.linspace(0, 1, 9)] * 3, indexing="ij")
    with_matrix = {b"A2B0": _table(3, red, green, blue)} | {f"{name}TRC".encode(): _curve(2.2) for name in "rgb"}
    primaries = {f"{name}XYZ".encode(): b"XYZ " + bytes(4) + struct.pack(">3i", 1, 1, 1) for name in "rgb"}
    return profile_of(with_matrix | primaries, b"RGB Lab ")


def cmyk_profile() -> bytes:
    """Of ink, by a table."""
    cyan, magenta, yellow, black = np.meshgrid(*[np.linspace(0, 1, 9)] * 4, indexing="ij")
    table = _table(4, (1 - cyan) * (1 - black), (1 - magenta) * (1 - black), (1 - yellow) * (1 - black))
    return profile_of({b"A2B0": table}, b"CMYKLab ")


def _curve(gamma: float | None) -> bytes:
    counted = struct.pack(">I", 0) if gamma is None else struct.pack(">IH", 1, round(256 * gamma))
    return b"curv" + bytes(4) + counted


def _table(num_inputs: int, red: NDArray[np.float64], green: NDArray[np.float64], blue: NDArray[np.float64]) -> bytes:
    """lut16Type to Lab, roughly: brighter the more light there is, redder and bluer as it should be."""
    lightness = 0.2 * red + 0.7 * green + 0.1 * blue  # of greys nearly as in sRGB, whose curve is nearly Lab's
    colours = np.stack([lightness * 0.996, 0.5 + 0.3 * (red - green), 0.5 + 0.3 * (green - blue)], axis=-1)
    straight = b"\0\0\xff\xff"
    table: bytes = (
        b"mft2" + bytes(4) + bytes((num_inputs, 3, len(red), 0)) + struct.pack(">9i", *(65536, 0, 0, 0) * 2, 65536)
        + struct.pack(">HH", 2, 2) + straight * num_inputs
        + np.rint(colours * 65535).astype(">u2").tobytes() + straight * 3
    )  # fmt: skip
    return table
