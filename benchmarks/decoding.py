"""Gain and cost of decoding large JPEGs at a fraction of their size.

    python benchmarks/decoding.py FOLDER

It enlarges 500 photographs to 12 megapixels with a camera's noise. One thread decodes each whole and as the service
does, in turns. Time, squares and the served version's answers are compared in `benchmarks/results/decoding.json`.
"""

import argparse
import io
import json
import statistics
import time
from contextlib import closing
from pathlib import Path

import numpy as np
from machine import RESULTS, describe_machine
from PIL import Image

from service.engines.open_version import open_stored
from service.engines.wish import EngineWish
from service.imaging.decode import decode_square
from service.imaging.limits import ResizeRule
from service.imaging.pixels import Decoded
from service.imaging.resize import resize


def enlarge(path: Path, seed: int) -> bytes:
    """Return the photograph as a camera of 12 megapixels would have written it, roughly."""
    with Image.open(path) as image:
        scale = (12_000_000 / (image.width * image.height)) ** 0.5
        size = (round(image.width * scale), round(image.height * scale))
        pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS)).astype(np.int16)
    pixels += np.random.default_rng(seed).normal(0, 4, pixels.shape).astype(np.int16)
    stream = io.BytesIO()
    Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def decode_whole(data: bytes) -> np.ndarray:
    """Return the square of the photograph at full size."""
    with Image.open(io.BytesIO(data)) as image:
        return resize(Decoded(image.convert("RGB")))


def decode_scaled(data: bytes) -> np.ndarray:
    """Return the square as the service makes it."""
    return decode_square(data, ResizeRule())


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--photographs", type=int, default=500)
    asked = parser.parse_args()
    paths = sorted(asked.folder.glob("*/*.jpg"))
    paths = paths[:: max(len(paths) // asked.photographs, 1)][: asked.photographs]
    times: dict[str, list[float]] = {"whole": [], "scaled": []}
    squares: dict[str, list[np.ndarray]] = {"whole": [], "scaled": []}
    for number, path in enumerate(paths):
        data = enlarge(path, number)
        for name, decode in (("whole", decode_whole), ("scaled", decode_scaled)):
            begun = time.thread_time()
            squares[name].append(decode(data))
            times[name].append(1e3 * (time.thread_time() - begun))
    differences = [np.abs(a.astype(int) - b).mean() for a, b in zip(*squares.values(), strict=True)]
    with closing(open_stored(Path("model_store"), "flowers", EngineWish())) as local:
        whole, scaled = (local.engine.run(np.stack(images)).probabilities for images in squares.values())
    result = {
        "machine": describe_machine(),
        "photographs": len(paths),
        "decode_and_resize_ms": {
            name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
            for name, values in times.items()
        },
        "mean_absolute_difference": {"median": statistics.median(differences), "max": max(differences)},
        "same_top1": int((whole.argmax(axis=1) == scaled.argmax(axis=1)).sum()),
        "largest_probability_difference": float(np.abs(whole - scaled).max()),
    }
    (RESULTS / "decoding.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
