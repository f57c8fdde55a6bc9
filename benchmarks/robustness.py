"""Accuracy on photographs that were turned, made grey, blurred, made small, cropped or compressed.

    python -m benchmarks.robustness FOLDER [--part test] [--version N] [--model-store STORE]

FOLDER has class folders. Each change is made to the whole photograph, before the service's resize rule. Measured are
the int8 network and the SavedModel of a version, on the photographs of a part of its split that it has not learned
from. Each version and part has a row in `benchmarks/results/robustness.json`. It is replaced when it is measured again.
"""

import argparse
import io
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.machine import RESULTS, describe_machine
from service.data.split import parse_split
from service.engines.engine import Engine, Scores, join_scores
from service.engines.open_version import ServedVersion, load_engine, open_stored
from service.engines.wish import EngineWish
from service.evaluation.metrics import evaluate
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits
from service.imaging.pixels import Decoded, Pixels
from service.imaging.resize import resize
from service.machine import count_cores
from service.store.layout import SPLIT_FILE

RESULT = RESULTS / "robustness.json"
_BATCH_SIZE = 32


def turn(quarters: int) -> Callable[[Image.Image], Image.Image]:
    """Return the function that turns an image by so many quarters."""
    way = (Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)[quarters - 1]
    return lambda image: image.transpose(way)


def blur(share: float) -> Callable[[Image.Image], Image.Image]:
    """Return the function that blurs an image. The standard deviation is a share of its shorter side."""
    return lambda image: image.filter(ImageFilter.GaussianBlur(share * min(image.size)))


def shrink(image: Image.Image) -> Image.Image:
    """Scale an image so that its shorter side has 64 pixels."""
    factor = 64 / min(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BILINEAR)


def take_centre(image: Image.Image) -> Image.Image:
    """Cut out the centre, with half of both sides."""
    width, height = image.size
    return image.crop((width // 4, height // 4, width - width // 4, height - height // 4))


def compress(image: Image.Image) -> Image.Image:
    """Compress an image as a JPEG of quality 20."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=20)
    return Image.open(stream)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as it is": lambda image: image,
    "turned 90": turn(1),
    "turned 180": turn(2),
    "grey": lambda image: image.convert("L").convert("RGB"),
    "blur 1 %": blur(0.01),
    "blur 2 %": blur(0.02),
    "64 px": shrink,
    "centre 50 %": take_centre,
    "JPEG 20": compress,
}
"""Changes of a decoded RGB image, by their names."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Files, in order, with their class indices, int64 (N,)."""

    paths: list[Path]
    class_indices: NDArray[np.int64]


def list_part(opened: ServedVersion, folder: Path, part: Any) -> Labelled:
    """List the photographs of a part of a version's split."""
    entries = parse_split(opened.verified.read(SPLIT_FILE), f"of version {opened.version}").part(part)
    names = opened.metadata.class_names
    paths = [folder / entry.file for entry in entries]
    return Labelled(paths, np.array([names.index(path.parent.name) for path in paths], np.int64))


def make_squares(
    opened: ServedVersion, paths: Sequence[Path], change: Callable[[Image.Image], Image.Image] = CHANGES["as it is"]
) -> Pixels:
    """Decode, change and resize files. Return uint8 (N, 224, 224, 3)."""

    def make(path: Path) -> Pixels:
        decoded = decode_image(path.read_bytes(), ImageLimits())
        return resize(Decoded(change(decoded.image.convert("RGB")), decoded.profile), opened.rule)

    with ThreadPoolExecutor(count_cores()) as pool:
        return np.stack(list(pool.map(make, paths)))


def run_all(engine: Engine, squares: Pixels) -> Scores:
    """Score squares in batches."""
    starts = range(0, len(squares), _BATCH_SIZE)
    return join_scores([engine.run(squares[start : start + _BATCH_SIZE]) for start in starts])


def open_engines(opened: ServedVersion) -> dict[str, Engine]:
    """Load the int8 network of a version beside its SavedModel, which is open."""
    return {"int8": load_engine(opened.verified, EngineWish("onnxruntime", "cpu", "int8")), "savedmodel": opened.engine}


def save_row(result: Path, row: dict[str, Any]) -> None:
    """Add a row to the results, or replace that of the same version and part."""
    rows = json.loads(result.read_text(encoding="utf-8"))["rows"] if result.exists() else []
    rows = [one for one in rows if (one["version"], one["part"]) != (row["version"], row["part"])]
    rows = sorted([*rows, row], key=lambda one: (one["version"], one["part"]))
    document = {"machine": describe_machine(), "rows": rows}
    result.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measure(opened: ServedVersion, photographs: Labelled) -> dict[str, Any]:
    """Return the number of right answers and the accuracy of each engine for each change."""
    engines, found = open_engines(opened), {}
    for name, change in CHANGES.items():
        squares = make_squares(opened, photographs.paths, change)
        found[name] = {
            kind: run_all(engine, squares).probabilities.argmax(axis=1) == photographs.class_indices
            for kind, engine in engines.items()
        }
        print(f"{name:12}", *(f"{kind} {right.mean():.1%}" for kind, right in found[name].items()), flush=True)
    engines["int8"].close()
    return {
        kind: {
            name: {"right": int(right[kind].sum()), "accuracy": float(right[kind].mean())}
            for name, right in found.items()
        }
        for kind in engines
    }


def calibration_error(opened: ServedVersion, photographs: Labelled) -> dict[str, float]:
    """Return the expected calibration error of each engine on the photographs as they are."""
    squares, names = make_squares(opened, photographs.paths), opened.metadata.class_names
    return {
        kind: evaluate(run_all(engine, squares).probabilities, photographs.class_indices, names)
        .expected_calibration_error
        for kind, engine in open_engines(opened).items()
    }  # fmt: skip


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a benchmark of one version on one part of a folder."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--part", choices=["test", "validation"], default="test")
    parser.add_argument("--version", type=int, help="the default is the served one")
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    return parser


def main() -> None:
    """Measure, print and write."""
    asked = make_parser("robustness", __doc__).parse_args()
    wish = EngineWish("savedmodel", "cpu")
    with closing(open_stored(asked.model_store, "flowers", wish, asked.version)) as opened:
        photographs = list_part(opened, asked.folder, asked.part)
        row = {
            "version": opened.version, "part": asked.part, "num_photographs": len(photographs.paths),
            "calibration_error": calibration_error(opened, photographs), **measure(opened, photographs),
        }  # fmt: skip
    save_row(RESULT, row)


if __name__ == "__main__":
    main()
