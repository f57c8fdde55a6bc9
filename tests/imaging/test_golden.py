"""Squares and refusals stay as they were recorded, bit for bit."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.damage import LIMITS
from support.golden import compare, damaged_files, digest, drawn_files

from service.errors import ImageError
from service.imaging.decode import decode_square
from service.imaging.inspection import inspect
from service.imaging.limits import ImageLimits, ResizeRule
from service.inference.decode_process import Job
from service.inference.decoders import DecodeProcesses

EVERY = 12
MOST_PIXELS = 4_000_000


@pytest.fixture(scope="module")
def processes() -> Iterator[DecodeProcesses]:
    with closing(DecodeProcesses()) as processes:
        yield processes


@pytest.fixture(autouse=True)
def has_no_heic(monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcomes are recorded without the optional library."""
    monkeypatch.setitem(sys.modules, "pi_heif", None)


def square_or_refusal(data: bytes, processes: DecodeProcesses, limits: ImageLimits | None = None) -> str:
    """Decode an image as the service does.

    Returns:
        The digest of the square's pixels, or the error's class and message.
    """

    try:
        inspection = inspect(data, limits or ImageLimits())
        if inspection.is_memory_bounded and inspection.num_pixels <= MOST_PIXELS:
            square = decode_square(data, ResizeRule(), inspection)
        else:
            square = processes.decode(Job(data, inspection, ResizeRule(), time.monotonic() + 60))
    except ImageError as error:
        return f"{type(error).__name__}: {error}"
    assert square.shape == (224, 224, 3)
    return digest(square.tobytes())


@pytest.mark.long
def test_drawn_files_have_the_recorded_outcomes(processes: DecodeProcesses) -> None:
    compare("drawn", {name: square_or_refusal(data, processes) for name, data in drawn_files()})


def test_damaged_files_have_the_recorded_outcomes() -> None:
    with closing(DecodeProcesses()) as processes:
        found = {name: square_or_refusal(data, processes, LIMITS) for name, data in damaged_files()}
    compare("damaged", found)


def all_photographs(photographs: Path, folder: str) -> list[Path]:
    root = photographs if folder == "flower_photos" else photographs.parent / folder
    if not root.is_dir():
        pytest.skip(f"no photographs at {root}")
    return sorted(root.glob("*/*.jpg"))


def compare_photographs(folder: str, paths: list[Path], processes: DecodeProcesses, *, is_whole: bool) -> None:
    found = {f"{path.parent.name}/{path.name}": square_or_refusal(path.read_bytes(), processes) for path in paths}
    compare(folder, found, is_whole=is_whole)


@pytest.mark.photographs
@pytest.mark.parametrize("folder", ["flower_photos", "not_flowers"])
def test_some_photographs_have_the_recorded_squares(folder: str, photographs: Path, processes: DecodeProcesses) -> None:
    compare_photographs(folder, all_photographs(photographs, folder)[::EVERY], processes, is_whole=False)


@pytest.mark.long
@pytest.mark.photographs
@pytest.mark.parametrize("folder", ["flower_photos", "not_flowers"])
def test_all_photographs_have_the_recorded_squares(folder: str, photographs: Path, processes: DecodeProcesses) -> None:
    compare_photographs(folder, all_photographs(photographs, folder), processes, is_whole=True)
