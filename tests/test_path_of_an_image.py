"""The way of a small image through the app: how many files have it in their hands."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.drawing import draw_photograph, encode
from support.running import running

import service

SERVICE = Path(service.__file__).parent
STORE = SERVICE.parent / "model_store"
NUM_CLASSES = 5


def is_the_image(value: Any) -> bool:
    """Its bytes, its pixels or its row."""
    if isinstance(value, bytes | bytearray | memoryview):
        return len(value) >= 4096
    if isinstance(value, np.ndarray):
        is_row = value.dtype == np.float32 and value.shape[-1:] == (NUM_CLASSES,)
        return bool(is_row or value.dtype == np.uint8)
    return isinstance(value, Image.Image)


@contextmanager
def holders() -> Iterator[set[str]]:
    """The files of the service whose functions get or return it, on any thread that begins meanwhile."""
    files: set[str] = set()

    def note(frame: FrameType, event: str, value: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event in ("call", "return") and path.is_relative_to(SERVICE):
            values = frame.f_locals.values() if event == "call" else [value]
            if any(map(is_the_image, values)):
                files.add(path.relative_to(SERVICE).as_posix())

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield files
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


PHOTOGRAPH = encode(draw_photograph(0, seed=1), "JPEG")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [{"content": PHOTOGRAPH, "headers": {"Content-Type": "image/jpeg"}}, {"files": {"file": ("a.jpg", PHOTOGRAPH)}}],
    ids=["whole body", "form"],
)
async def test_ten_files_hold_a_small_image(body: dict[str, Any]) -> None:
    with holders() as files:
        async with running(STORE, precision="float32") as service:
            files.clear()
            answer = await service.client.post("/predict", **body)
    assert answer.status_code == 200
    assert {"inference/batcher.py", "imaging/decode.py", "engines/onnx_runtime.py"} <= files  # those of the lane, too
    assert len(files) <= 10, sorted(files)
