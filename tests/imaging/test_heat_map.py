import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.heat_map import draw_heat_map
from service.imaging.pixels import Pixels

SQUARE = np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8)


def grid_of(**cells: float) -> NDArray[np.float32]:
    """Zeros but for these cells: `r2c5` is row 2 and column 5."""
    grid = np.zeros((7, 7), np.float32)
    for cell, value in cells.items():
        grid[int(cell[1]), int(cell[3])] = value
    return grid


def draw(grid: NDArray[np.float32]) -> Pixels:
    image = Image.open(io.BytesIO(draw_heat_map(SQUARE, grid)))
    assert (image.format, image.mode, image.size) == ("PNG", "RGB", (224, 224))
    return np.asarray(image)


def changed_cells(pixels: Pixels) -> set[tuple[int, int]]:
    """The cells whose centre is no longer that of the square."""
    return {
        (row, column)
        for row in range(7)
        for column in range(7)
        if (pixels != SQUARE)[row * 32 + 8 : row * 32 + 24, column * 32 + 8 : column * 32 + 24].any()
    }


def test_a_grid_without_positive_values_leaves_the_square() -> None:
    np.testing.assert_array_equal(draw(grid_of()), SQUARE)
    np.testing.assert_array_equal(draw(np.full((7, 7), -0.5, np.float32)), SQUARE)


def test_only_cells_beside_positive_values_change() -> None:
    cells = changed_cells(draw(grid_of(r2c5=0.3, r6c0=-0.9)))
    assert (2, 5) in cells
    assert cells <= {(row, column) for row in (1, 2, 3) for column in (4, 5, 6)}


def test_larger_values_cover_more() -> None:
    pixels = draw(grid_of(r1c1=0.4, r5c5=0.1)).astype(int)
    changes = np.abs(pixels - SQUARE)
    assert changes[40:56, 40:56].mean() > 2 * changes[168:184, 168:184].mean() > 0


def test_the_largest_value_is_scaled_to_full_opacity() -> None:
    np.testing.assert_array_equal(draw(grid_of(r3c3=0.9)), draw(grid_of(r3c3=0.02)))


def test_a_tiny_drop_stays_faint() -> None:
    faint, full = (np.abs(draw(grid_of(r3c3=drop)).astype(int) - SQUARE).mean() for drop in (0.0005, 0.5))
    assert faint < full / 10


def test_the_grid_is_not_changed() -> None:
    grid = grid_of(r3c3=0.5, r0c0=-0.5)
    draw(grid)
    np.testing.assert_array_equal(grid, grid_of(r3c3=0.5, r0c0=-0.5))
