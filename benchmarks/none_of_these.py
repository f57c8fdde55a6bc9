"""Share of photographs without a flower that the rule of `confident` flags, for each source.

    python -m benchmarks.none_of_these FOLDER OTHERS [--part test] [--version N] [--model-store STORE]

FOLDER has class folders. OTHERS has a folder of photographs without any of the classes for each source. A source that
the version has learned from looks better than anything else. So the recipe's held-out sources are counted apart. Stated
is the share flagged by the version's own limits. Beside it stands the share flagged by each score alone, at the limit
that 95 % of the flowers of the part pass. The flowers are also re-coded as the sources were, so that a detector of JPEG
traces shows. Each version and part has a row in `benchmarks/results/none_of_these.json`.
"""

import io
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import RESULTS
from benchmarks.robustness import list_part, make_parser, make_squares, open_engines, run_all, save_row
from service.data.outliers import list_outliers
from service.engines.engine import Scores
from service.engines.open_version import open_stored
from service.engines.wish import EngineWish
from service.evaluation.none_of_these import find_confident
from service.ranking import ConfidentRule

RESULT = RESULTS / "none_of_these.json"
COVERAGE = 0.95


def recode(image: Image.Image) -> Image.Image:
    """Make a photograph as those of the sources were made: 224 pixels high or wide, a JPEG of quality 85."""
    factor = 224 / min(image.size)
    small = image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    return Image.open(stream)


def list_doubts(scores: Scores) -> dict[str, NDArray[np.floating]]:
    """Return each score that tells doubt, higher for more of it, by its name."""
    found = {"probability": 1 - scores.probabilities.max(axis=1), "energy": scores.energy}
    return {name: values for name, values in found.items() if values is not None}


def area_under_roc(kept: NDArray[np.floating], others: NDArray[np.floating]) -> float:
    """Return the chance that one of `others` has more doubt than one of `kept`."""
    ordered = np.sort(kept)
    below, upto = (np.searchsorted(ordered, others, side) for side in ("left", "right"))
    return float(((below + upto) / 2 / len(kept)).mean())


def summarise(
    rule: ConfidentRule, flowers: Scores, recoded: Scores, truth: NDArray[np.int64], sources: Mapping[str, Scores],
    held_out: list[str],
) -> dict[str, Any]:  # fmt: skip
    """Return the figures of one engine."""
    flagged = {name: ~find_confident(rule, scores) for name, scores in sources.items()}
    of_flowers, is_wrong = ~find_confident(rule, flowers), flowers.probabilities.argmax(axis=1) != truth
    found: dict[str, Any] = {
        "flowers_kept": float(1 - of_flowers.mean()),
        "flowers_kept_recoded": float(find_confident(rule, recoded).mean()),
        "errors": int(is_wrong.sum()),
        "errors_flagged": int(of_flowers[is_wrong].sum()),
        "flagged": {name: float(one.mean()) for name, one in flagged.items()},
    }
    groups = {"all sources": list(sources), "held-out sources": [name for name in sources if name in held_out]}
    for group, names in groups.items():
        if not names:
            continue
        found[f"flagged of {group}"] = float(np.concatenate([flagged[name] for name in names]).mean())
        for kind, doubt in list_doubts(flowers).items():
            others = np.concatenate([list_doubts(sources[name])[kind] for name in names])
            found[f"{kind} alone, {group}"] = {
                "auroc": area_under_roc(doubt, others),
                "flagged_at_95_kept": float((others > np.quantile(doubt, COVERAGE)).mean()),
            }
    return found


def main() -> None:
    """Measure, print and write."""
    parser = make_parser("none_of_these", __doc__)
    parser.add_argument("others", type=Path, help="photographs of none of the classes, one folder per source")
    asked = parser.parse_args()
    wish = EngineWish("savedmodel", "cpu")
    with closing(open_stored(asked.model_store, "flowers", wish, asked.version)) as opened:
        photographs = list_part(opened, asked.folder, asked.part)
        listed = list_outliers(asked.others)
        held_out = opened.metadata.recipe.get("held_out_sources", list(listed))
        squares = {name: make_squares(opened, paths) for name, paths in listed.items()}
        plain, recoded = (make_squares(opened, photographs.paths, *change) for change in ((), (recode,)))
        row: dict[str, Any] = {
            "version": opened.version, "part": asked.part, "held_out_sources": held_out,
            "images": {name: len(paths) for name, paths in listed.items()},
        }  # fmt: skip
        for kind, engine in open_engines(opened).items():
            of_sources = {name: run_all(engine, images) for name, images in squares.items()}
            flowers, again = run_all(engine, plain), run_all(engine, recoded)
            row[kind] = summarise(
                opened.confident_rule, flowers, again, photographs.class_indices, of_sources, held_out
            )  # fmt: skip
            print(kind, *(f"{name}: {value}" for name, value in row[kind].items()), sep="\n  ", flush=True)
    save_row(RESULT, row)


if __name__ == "__main__":
    main()
