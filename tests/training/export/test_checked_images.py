"""Images of a comparison: whole, in sRGB, each with its square."""

from itertools import islice
from pathlib import Path

import numpy as np
from support.drawing import draw_photograph, encode

from service.imaging.decode import decode_image, decode_square
from service.imaging.limits import ResizeRule
from service.imaging.resize import resize
from service.training.export.checked_images import NUM_CHECKED, list_views, read_pairs

RULE = ResizeRule(image_size=24, shorter_side=32)


def test_images_of_a_folder_are_spread_and_whole(tmp_path: Path) -> None:
    data = [encode(draw_photograph(0, seed)) for seed in range(3)]
    paths = [tmp_path / f"{number}.jpg" for number in range(2 * NUM_CHECKED)]
    for number, path in enumerate(paths):
        path.write_bytes(data[number % 3])
    paths[-1].write_bytes(data[2])
    pairs = list(islice(read_pairs(paths, RULE), 3))
    for (whole, square), place in zip(pairs, (0, 2, 4), strict=True):
        np.testing.assert_array_equal(square, decode_square(data[place % 3], RULE))
        np.testing.assert_array_equal(resize(whole, RULE), square)
        assert whole.shape == decode_image(data[0]).pixels.shape


def test_a_broken_image_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode(draw_photograph(0, 0)))
    (tmp_path / "b.jpg").write_bytes(b"no image")
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "missing.jpg")]
    assert len(list(read_pairs(paths, RULE))) == 1
    assert list(read_pairs([], RULE)) == []


def test_views_are_many_sizes_and_always_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(encode(draw_photograph(0, 0)))
    views = list(list_views([tmp_path / "a.jpg"], RULE))
    assert len(views) == NUM_CHECKED
    assert len({whole.shape for whole, _ in views}) > NUM_CHECKED / 2
    for (whole, square), (again, _) in zip(views[:5], list_views([tmp_path / "a.jpg"], RULE), strict=False):
        np.testing.assert_array_equal(whole, again)
        np.testing.assert_array_equal(square, resize(whole, RULE))
