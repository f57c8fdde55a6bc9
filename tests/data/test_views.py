import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from service.data.stored import Photographs
from service.data.views import View, Views

IMAGES = [np.full((4, 4, 3), index, np.uint8) for index in range(10)]
ALL = np.arange(10)
PLENTY, NOTHING = 2**30, 0


def noisy_view(photographs: Photographs, number: int, random: np.random.Generator) -> View:
    pixels = random.integers(0, 256, photographs[number].shape, np.uint8)
    return View(pixels, int(random.integers(10)), float(random.random()))


def views_of(free_bytes: int, num_views: int = 3) -> tuple[Views, list[int]]:
    """Views, and the photographs whose views have been made so far."""
    made: list[int] = []

    def make(photographs: Photographs, number: int, random: np.random.Generator) -> View:
        made.append(number)
        return noisy_view(photographs, number, random)

    views = Views(IMAGES, make, 1, num_views, free_bytes)
    made.clear()  # one was made to know its size
    return views, made


def test_kept_views_are_those_made_anew() -> None:
    kept, anew = (views_of(free_bytes)[0] for free_bytes in (PLENTY, NOTHING))
    assert kept.is_keeping
    assert not anew.is_keeping
    some = np.array([7, 0, 3])
    for views in (np.array([2, 2, 0]), np.array([0, 2, 1]), np.array([2, 2, 0])):
        first, second = kept.batch(some, views), anew.batch(some, views)
        for field in ("images", "photographs", "views", "others", "shares"):
            np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
            assert getattr(first, field).dtype == getattr(second, field).dtype


def test_a_view_that_is_kept_is_made_once() -> None:
    views, made = views_of(PLENTY)
    for _ in range(4):
        for number in range(3):
            views.batch(ALL, np.full(10, number))
    assert sorted(made) == sorted(np.repeat(ALL, 3))


def test_what_is_kept_is_not_what_was_handed_out() -> None:
    views, _ = views_of(PLENTY)
    first = views.batch(ALL, np.zeros(10, np.int64))
    before = first.images.copy()
    first.images[:] = 0
    np.testing.assert_array_equal(views.batch(ALL, np.zeros(10, np.int64)).images, before)


@pytest.mark.parametrize(("free_bytes", "is_keeping"), [(2 * 3 * 10 * 48, True), (2 * 3 * 10 * 48 - 1, False)])
def test_views_are_kept_in_half_of_the_free_memory(free_bytes: int, is_keeping: bool) -> None:
    assert views_of(free_bytes)[0].is_keeping is is_keeping


def test_views_without_number_are_not_kept() -> None:
    assert not views_of(PLENTY, num_views=0)[0].is_keeping


def test_a_view_in_the_making_is_not_taken() -> None:
    is_begun, may_end = threading.Event(), threading.Event()

    def slow(photographs: Photographs, number: int, random: np.random.Generator) -> View:
        if threading.current_thread() is not threading.main_thread():
            is_begun.set()
            assert may_end.wait(10)
        return noisy_view(photographs, number, random)

    views = Views(IMAGES, slow, 1, 3, PLENTY)
    one = np.array([4]), np.array([2])
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(views.batch, *one)
        assert is_begun.wait(10)
        mine = views.batch(*one)
        may_end.set()
        expected = views_of(NOTHING)[0].batch(*one)
        for batch in (mine, other.result(10)):
            np.testing.assert_array_equal(batch.images, expected.images)
            np.testing.assert_array_equal(batch.shares, expected.shares)


def test_another_seed_makes_other_views() -> None:
    one, same, other = (Views(IMAGES, noisy_view, seed).batch(ALL, ALL) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.images, same.images)
    assert (one.images != other.images).any(axis=(1, 2, 3)).all()


def test_views_made_elsewhere_are_kept_and_not_made_again() -> None:
    views, made = views_of(PLENTY)
    elsewhere = Views(IMAGES, noisy_view, 2).batch(ALL, np.full(10, 1))
    views.keep(elsewhere)
    np.testing.assert_array_equal(views.batch(ALL, np.full(10, 1)).images, elsewhere.images)
    assert not made
