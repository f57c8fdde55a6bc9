"""Share of images without a flower that are answered as not confident.

    python benchmarks/not_flowers.py

The served version is asked about drawn images. It is asked about every image of a hundred pixels or more in the
installed packages, too. Printed is the share with `confident` false, beside the share of flowers that the threshold was
chosen for. Nothing is promised. The results go to `benchmarks/results/not_flowers.json`.
"""

import argparse
import json
import site
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
from machine import RESULTS
from PIL import Image, ImageDraw

from service.engines.open_version import open_stored
from service.engines.wish import EngineWish
from service.errors import ImageError
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits
from service.imaging.pixels import Decoded, Pixels
from service.imaging.resize import resize

SIZE = 256


def drawn() -> Iterator[tuple[str, Pixels]]:
    """Draw two hundred images of noise, gradients, stripes, boards, discs and letters."""
    for seed in range(200):
        random = np.random.default_rng(seed)
        kind = ("noise", "gradient", "stripes", "board", "discs", "letters")[seed % 6]
        first, second = random.integers(0, 256, (2, 3))
        y, x = np.mgrid[:SIZE, :SIZE]
        if kind == "noise":
            yield kind, random.integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)
        elif kind in ("gradient", "stripes", "board"):
            share = {
                "gradient": (x + y) / (2 * SIZE),
                "stripes": (x // random.integers(4, 40)) % 2,
                "board": (x // 32 + y // 32) % 2,
            }[kind]
            yield kind, (first * share[..., None] + second * (1 - share[..., None])).astype(np.uint8)
        else:
            image = Image.new("RGB", (SIZE, SIZE), tuple(map(int, first)))
            draw = ImageDraw.Draw(image)
            for _ in range(12):
                x, y = map(int, random.integers(0, SIZE, 2))
                color = tuple(map(int, random.integers(0, 256, 3)))
                if kind == "discs":
                    draw.circle((x, y), int(random.integers(5, 50)), color)
                else:
                    draw.text((x, y), "".join(map(chr, random.integers(65, 91, 8))), color, font_size=30)
            yield kind, np.asarray(image)


def carried() -> Iterator[tuple[str, Decoded]]:
    """Yield images of the installed packages."""
    for root in site.getsitepackages():
        for path in sorted(Path(root).rglob("*")):
            if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
                try:
                    image = decode_image(path.read_bytes(), ImageLimits())
                except ImageError:
                    continue
                if min(image.image.size) >= 100:
                    yield path.relative_to(root).parts[0], image


def main() -> None:
    """Ask, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    asked = parser.parse_args()
    result = {}
    with closing(open_stored(asked.model_store, "flowers", EngineWish())) as local:
        threshold = local.metadata.confidence_threshold
        for source, images in (("drawn", drawn()), ("carried by packages", carried())):
            squares = np.stack([resize(image, local.rule) for _, image in images])
            rule = local.confident_rule
            reasons = [
                rule.doubt(float(probabilities.max()), energy, distance)
                for probabilities, energy, distance in local.engine.run(squares).rows()
            ]
            flagged = [reason is not None for reason in reasons]
            unlike = [reason == "unlike-training" for reason in reasons]
            result[source] = {
                "images": len(reasons), "flagged": float(np.mean(flagged)), "unlike_training": float(np.mean(unlike))
            }  # fmt: skip
            print(f"{source}: {result[source]['flagged']:.0%} of {len(reasons)} flagged", file=sys.stderr)
        document = {"version": local.version, "confidence_threshold": threshold, "not_flowers": result}
    (RESULTS / "not_flowers.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
