"""Folder of class folders, with drawn photographs: `python examples/draw_garden.py FOLDER [PHOTOGRAPHS_PER_CLASS]`.

`flowers train FOLDER` takes a folder of this shape. Each class folder holds the photographs of one class.
"""

import math
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

_SIZE = (320, 240)
_PETALS = {"bluebell": (5, (70, 80, 220)), "poppy": (4, (220, 40, 30)), "primrose": (6, (245, 225, 90))}
"""Class -> number of petals and their colour, RGB."""


def draw_flower(label: str, random: np.random.Generator) -> Image.Image:
    """Draw one flower of a class on noisy ground. RGB, 320 x 240 pixels."""
    num_petals, colour = _PETALS[label]
    patches = Image.fromarray(random.integers(0, 110, size=(6, 8, 3), dtype=np.uint8))
    image = patches.resize(_SIZE, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image)
    x, y = random.uniform(120, 200), random.uniform(90, 150)
    radius, turn = random.uniform(30, 50), random.uniform(0, 2 * math.pi)
    for petal in range(num_petals):
        angle = turn + 2 * math.pi * petal / num_petals
        centre = (x + radius * math.cos(angle), y + radius * math.sin(angle))
        draw.circle(centre, radius * 0.7, fill=colour)
    draw.circle((x, y), radius * 0.4, fill=(90, 60, 20))
    return image


def draw_garden(folder: Path, photographs_per_class: int = 30) -> None:
    """Draw the same number of photographs for each of three classes. `folder` must not exist."""
    random = np.random.default_rng(0)
    for label in _PETALS:
        (folder / label).mkdir(parents=True)
        for number in range(photographs_per_class):
            draw_flower(label, random).save(folder / label / f"{number:03d}.jpg", quality=90)


if __name__ == "__main__":
    draw_garden(Path(sys.argv[1]), *map(int, sys.argv[2:]))
