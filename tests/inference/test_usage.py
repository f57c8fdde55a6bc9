"""Usage of a process: what waits, and the share of a process alone."""

import pytest

from service.inference.usage import Alone, OwnUsage, num_waiting


@pytest.mark.parametrize(("num_images", "num_computing", "waiting"), [(0, 0, 0), (5, 2, 3), (5, 5, 0), (1, 2, 0)])
def test_images_in_the_lane_do_not_wait(num_images: int, num_computing: int, waiting: int) -> None:
    """Another process writes the numbers one after the other, so for a moment they may not agree."""
    assert num_waiting(OwnUsage(num_images=num_images, num_computing=num_computing)) == waiting


def test_a_process_alone_has_no_neighbours() -> None:
    alone = Alone()
    assert list(alone.others) == []
    assert alone.own == OwnUsage()


def test_a_turn_excludes_the_others_of_a_process() -> None:
    alone = Alone()
    with alone.turn():
        assert not alone.turn().acquire(blocking=False)  # type: ignore[attr-defined]
    with alone.turn():
        pass


def test_two_processes_alone_share_nothing() -> None:
    first, second = Alone(), Alone()
    first.own.num_images = 3
    with first.turn(), second.turn():
        assert second.own.num_images == 0
