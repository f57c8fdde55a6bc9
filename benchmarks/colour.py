"""Cost of colour profiles, and the effect of their late conversion.

    python -m benchmarks.colour FOLDER

FOLDER holds one folder of JPEGs per class, such as the unpacked flower_photos. Each photograph with a profile is made a
square in three ways, in turns, on one thread. The first is the service's way. The second leaves the profile out. The
third is the former way. It converts the colours first, anew for each photograph. The squares are compared. So are the
served version's answers on the test part. The results go to `benchmarks/results/colour.json`.
"""

import argparse
import io
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from benchmarks.machine import RESULTS, describe_machine
from benchmarks.serving.photographs import without_profile
from service.data.split import parse_split
from service.engines.open_version import open_stored
from service.engines.wish import EngineName, EngineWish, PrecisionWish
from service.imaging.decode import decode_image, decode_square
from service.imaging.limits import ResizeRule
from service.imaging.pixels import Decoded, Pixels
from service.imaging.profiles import find_conversion, to_srgb
from service.imaging.resize import resize
from service.store.layout import SPLIT_FILE

_RULE = ResizeRule()
_SRGB = ImageCms.createProfile("sRGB")


@dataclass(frozen=True)
class Cost:
    """Least milliseconds of each way for one photograph, and the mean difference of the order in levels."""

    is_converted: bool
    as_served_ms: float
    bare_ms: float
    as_before_ms: float
    difference: float


def convert_first(data: bytes) -> Pixels:
    """Make the square in the former way. It keeps nothing from one photograph to the next."""
    decoded = decode_image(data)
    if not decoded.profile:
        return resize(decoded)
    profile = ImageCms.ImageCmsProfile(io.BytesIO(decoded.profile))
    name = profile.profile.profile_description or ""
    if profile.profile.xcolor_space != "RGB " or name.startswith("sRGB"):
        return resize(Decoded(decoded.image))
    converted = ImageCms.profileToProfile(decoded.image, profile, _SRGB, outputMode="RGB")
    assert converted is not None
    return resize(Decoded(converted))


def milliseconds(way: Callable[[], Pixels]) -> float:
    """Return the time of one call."""
    begun = time.perf_counter()
    way()
    return 1e3 * (time.perf_counter() - begun)


def measure(data: bytes, rounds: int) -> Cost:
    """Measure the three ways in turns, so many times."""
    bare = without_profile(data)
    ways: tuple[Callable[[], Pixels], ...] = (
        lambda: decode_square(data, _RULE),
        lambda: decode_square(bare, _RULE),
        lambda: convert_first(data),
    )
    times: list[list[float]] = [[], [], []]
    for _ in range(rounds):
        for way, own_times in zip(ways, times, strict=True):
            own_times.append(milliseconds(way))
    difference = np.abs(ways[0]().astype(int) - ways[2]()).mean()
    is_converted = find_conversion((decoded := decode_image(data)).profile, decoded.image.mode) is not None
    as_served_ms, bare_ms, as_before_ms = map(min, times)
    return Cost(is_converted, as_served_ms, bare_ms, as_before_ms, float(difference))


def summarise(costs: Sequence[Cost], num_photographs: int, bare_ms_of_others: float) -> dict[str, Any]:
    """Return means over the photographs with a profile, and over the whole folder."""

    def times(some: Sequence[Cost], more_photographs: int = 0, more_ms: float = 0.0) -> dict[str, float]:
        count = len(some) + more_photographs
        served, bare, before = (
            (sum(getattr(cost, name) for cost in some) + more_ms) / count
            for name in ("as_served_ms", "bare_ms", "as_before_ms")
        )
        return {
            "photographs": count,
            "as_served_ms": round(served, 3),
            "without_profile_ms": round(bare, 3),
            "as_before_ms": round(before, 3),
            "as_served_to_without_profile": round(served / bare, 3),
            "as_before_to_without_profile": round(before / bare, 3),
        }

    converted = [cost for cost in costs if cost.is_converted]
    differences = [cost.difference for cost in converted]
    return {
        "times": {
            "all photographs": times(costs, num_photographs - len(costs), bare_ms_of_others),
            "with a profile": times(costs),
            "with a profile that changes nothing": times([cost for cost in costs if not cost.is_converted]),
            "with a profile that is applied": times(converted),
        },
        "difference_to_converting_first": {
            "mean_of_those_whose_profile_is_applied": round(float(np.mean(differences)), 4),
            "largest_of_one_photograph": round(max(differences), 4),
            "mean_of_all_photographs": round(sum(differences) / num_photographs, 4),
        },
    }


def render(result: dict[str, Any]) -> str:
    """Return the rows of the table in docs/reference/images.md."""
    return "\n".join(
        f"| {name} | {row['photographs']:,} | {row['as_served_ms']:.2f} | {row['without_profile_ms']:.2f} "
        f"| {row['as_served_to_without_profile']:.2f} | {row['as_before_ms']:.2f} |"
        for name, row in result["times"].items()
    )


def compare_answers(folder: Path, store: Path) -> dict[str, Any]:
    """Ask the served version about its test part, with the colours converted last, first and not at all."""
    result: dict[str, Any] = {}
    choices: tuple[tuple[EngineName, PrecisionWish], ...] = (("savedmodel", "float32"), ("onnxruntime", "int8"))
    for engine, precision in choices:
        with closing(open_stored(store, "flowers", EngineWish(engine, "cpu", precision))) as local:
            names = list(local.metadata.class_names)
            entries = parse_split(local.verified.read(SPLIT_FILE), "of the version").part("test")
            images = [decode_image((folder / entry.file).read_bytes()) for entry in entries]
            truth = np.array([names.index(entry.file.partition("/")[0]) for entry in entries])
            orders: dict[str, Callable[[Decoded], Pixels]] = {
                "last": resize,
                "first": lambda image: resize(to_srgb(image)),
                "not at all": lambda image: resize(Decoded(image.image)),
            }
            rows = {name: _run(local.engine.run, [make(image) for image in images]) for name, make in orders.items()}
            result["version"] = local.version
        result[precision] = {
            name: {
                "right": int((row.argmax(axis=1) == truth).sum()),
                "of": len(truth),
                "same_label_as_last": int((row.argmax(axis=1) == rows["last"].argmax(axis=1)).sum()),
                "largest_probability_difference": round(float(np.abs(row - rows["last"]).max()), 4),
            }
            for name, row in rows.items()
        }
    return result


def _run(engine: Callable[[Pixels], Any], squares: Sequence[Pixels]) -> Any:
    starts = range(0, len(squares), 32)
    return np.concatenate([engine(np.stack(squares[start : start + 32])).probabilities for start in starts])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.colour", description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    asked = parser.parse_args()
    paths = sorted(asked.folder.glob("*/*.jpg"))
    costs, others_ms = [], 0.0
    for path in paths:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            has_profile = "icc_profile" in image.info
        if has_profile:
            costs.append(measure(data, asked.rounds))
        else:
            others_ms += min(milliseconds(partial(decode_square, data, _RULE)) for _ in range(asked.rounds))
    result = {
        "machine": describe_machine(),
        **summarise(costs, len(paths), others_ms),
        "answers": compare_answers(asked.folder, asked.model_store),
    }
    (RESULTS / "colour.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(render(result))


if __name__ == "__main__":
    main()
