import io

import numpy as np
import pytest
from PIL import Image
from support.drawing import draw_photograph

from service.training.distort import add_border, degrade, make_grey, turn

VIEW = draw_photograph(2, seed=3, size=(224, 224))
PIXELS = np.asarray(VIEW)


def test_a_turn_is_by_one_two_or_three_quarters() -> None:
    quarters = [np.rot90(PIXELS, number) for number in (1, 2, 3)]
    found: set[int] = set()
    for seed in range(20):
        turned = np.asarray(turn(VIEW, np.random.default_rng(seed)))
        found.update(number for number, quarter in enumerate(quarters) if np.array_equal(turned, quarter))
    assert found == {0, 1, 2}


def test_a_grey_view_has_three_equal_channels() -> None:
    grey = np.asarray(make_grey(VIEW))
    assert grey.shape == PIXELS.shape
    assert (grey == grey[..., :1]).all()
    np.testing.assert_allclose(grey[..., 0], PIXELS @ [0.299, 0.587, 0.114], atol=1)


def test_each_degradation_takes_detail_or_adds_noise() -> None:
    kinds: dict[int, float] = {}
    for seed in range(24):
        random = np.random.default_rng(seed)
        kind = int(np.random.default_rng(seed).integers(4))
        degraded = degrade(VIEW, random)
        assert (degraded.mode, degraded.size) == ("RGB", VIEW.size)
        change = np.asarray(degraded, float) - PIXELS
        kinds[kind] = max(kinds.get(kind, 0.0), float(np.abs(change).mean()))
    assert sorted(kinds) == [0, 1, 2, 3]
    assert min(kinds.values()) > 0.5
    assert max(kinds.values()) < 40


def test_a_border_is_plain_and_the_whole_view_stays() -> None:
    for seed in range(12):
        framed = np.asarray(add_border(VIEW, np.random.default_rng(seed)))
        assert framed.shape == PIXELS.shape
        ground = np.abs(framed.astype(int) - framed[..., :1]).max(axis=2) == 0
        rows, columns = ground.all(axis=1), ground.all(axis=0)
        assert 0.05 < 1 - (~rows).mean() * (~columns).mean() < 0.85
        inside = framed[~rows][:, ~columns]
        small = VIEW.resize(inside.shape[1::-1], Image.Resampling.BILINEAR)
        assert np.abs(inside.astype(int) - np.asarray(small)).mean() < 6


@pytest.mark.parametrize("change", [turn, degrade, add_border])
def test_one_seed_gives_one_distortion(change) -> None:  # type: ignore[no-untyped-def]
    streams = [io.BytesIO(), io.BytesIO()]
    for stream in streams:
        change(VIEW, np.random.default_rng(5)).save(stream, "PNG")
    assert streams[0].getvalue() == streams[1].getvalue()
