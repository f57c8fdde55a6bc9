import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from service.data.views import Photographs, View, Views, memory_left

IMAGES = [np.full((4, 4, 3), index, np.uint8) for index in range(10)]
ALL = np.arange(10)
PLENTY, NOTHING = (lambda: 2**30), (lambda: 0)


def noisy_view(photographs: Photographs, number: int, random: np.random.Generator) -> View:
    pixels = random.integers(0, 256, photographs[number].shape, np.uint8)
    return View(pixels, int(random.integers(10)), float(random.random()))


def views_of(memory_left, num_views: int = 3) -> tuple[Views, list[int]]:  # type: ignore[no-untyped-def]
    """Views, and the photographs whose views have been made so far."""
    made: list[int] = []

    def make(photographs: Photographs, number: int, random: np.random.Generator) -> View:
        made.append(number)
        return noisy_view(photographs, number, random)

    views = Views(IMAGES, make, 1, num_views, memory_left)
    made.clear()  # one was made to know its size
    return views, made


def test_views_that_are_kept_are_those_that_are_made_anew() -> None:
    kept, anew = (views_of(memory_left)[0] for memory_left in (PLENTY, NOTHING))
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


@pytest.mark.parametrize(("left", "is_keeping"), [(2 * 3 * 10 * 48, True), (2 * 3 * 10 * 48 - 1, False)])
def test_views_are_kept_in_no_more_than_half_of_the_memory_that_is_left(left: int, is_keeping: bool) -> None:
    assert views_of(lambda: left)[0].is_keeping is is_keeping


def test_views_without_number_are_not_kept() -> None:
    assert not views_of(PLENTY, num_views=0)[0].is_keeping


def test_threads_that_ask_at_once_get_the_same_views() -> None:
    views, _ = views_of(PLENTY)
    numbers = np.tile(np.arange(3), 4)[:10]
    expected = views_of(NOTHING)[0].batch(ALL, numbers).images
    begin = threading.Barrier(8)

    def is_right(_: int) -> bool:
        begin.wait(10)
        return all(np.array_equal(views.batch(ALL, numbers).images, expected) for _ in range(50))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_right, range(8)))


@pytest.mark.parametrize(
    ("limit", "taken", "expected"),
    [(None, None, 8 * 2**30), ("max", "5", 8 * 2**30), (str(3 * 2**30), str(2**30), 2 * 2**30), ("5", "9", 0)],
)
def test_the_memory_that_is_left_is_the_machines_or_the_containers(
    limit: str | None, taken: str | None, expected: int, tmp_path: Path
) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n", encoding="utf-8")
    if limit and taken:
        (tmp_path / "memory.max").write_text(limit + "\n", encoding="utf-8")
        (tmp_path / "memory.current").write_text(taken + "\n", encoding="utf-8")
    assert memory_left(tmp_path / "meminfo", tmp_path) == expected


def test_where_memory_is_not_told_of_nothing_is_left(tmp_path: Path) -> None:
    assert memory_left(tmp_path / "missing", tmp_path) == 0
