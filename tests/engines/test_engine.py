from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.fakes import FakeEngine

from service.engines.engine import Scores, failed_run, join_scores, no_memory_to_load, run_and_check
from service.errors import EngineFailed, OutOfMemory
from service.imaging.pixels import Pixels


class Answering(FakeEngine):
    """An engine that gives the first rows of its answer."""

    def __init__(self, probabilities: NDArray[np.float32], *columns: NDArray[np.float32] | None) -> None:
        super().__init__(num_classes=2, image_size=4)
        self.answer = Scores(probabilities, *columns)

    def run(self, images: Pixels) -> Scores:
        super().run(images)
        return self.answer.first(len(images))


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ((1.5, -0.5), "no probability distribution"),
        ((0.5, 0.6), "no probability distribution"),
        ((0.5, 0.50005), "no probability distribution"),
        ((np.nan, 1.0), "no table of finite numbers"),
        ((0.2, 0.3, 0.5), "no table of finite numbers"),
    ],
)
def test_rows_that_are_no_probabilities_are_refused(row: tuple[float, ...], found: str) -> None:
    with pytest.raises(EngineFailed, match=found):
        run_and_check(Answering(np.tile(np.array(row, np.float32), (2, 1))), (1, 2))


def test_rows_that_depend_on_the_batch_are_refused() -> None:
    with pytest.raises(EngineFailed, match=r"differ by 0\.8 from those it gets alone"):
        run_and_check(Answering(np.array([(0.1, 0.9), (0.9, 0.1)], np.float32)), (1, 2))


class Reversing(FakeEngine):
    """An engine that gives the rows in another order than the images."""

    def run(self, images: Pixels) -> Scores:
        return Scores(super().run(images).probabilities[::-1])


def test_rows_of_other_images_are_refused() -> None:
    with pytest.raises(EngineFailed, match="differ by"):
        run_and_check(Reversing(image_size=4), (1, 4))


def test_a_difference_above_the_tolerance_is_refused() -> None:
    with pytest.raises(EngineFailed, match="differ by 5e-05"):
        run_and_check(Answering(np.array([(0.5, 0.5), (0.50005, 0.49995)], np.float32)), (1, 2))


def test_each_batch_size_and_its_last_image_are_run() -> None:
    engine = Answering(np.full((4, 2), 0.5, np.float32))
    run_and_check(engine, (1, 4))
    assert engine.batches == [1, 1, 4, 1]


EVEN = np.full((2, 2), 0.5, np.float32)


@pytest.mark.parametrize("place", [0, 1])
@pytest.mark.parametrize(
    ("column", "found"),
    [
        ((1000.0, np.nan), "no table of finite numbers"),
        ((1000.0, -np.inf), "no table of finite numbers"),
        (((1000.0,), (1000.0,)), "no table of finite numbers"),
        ((1000.0, 1002.0), "(energy|distance) values at batch size 2 .* differ by 0.002"),
        ((0.5, 0.502), "(energy|distance) values at batch size 2 .* differ by 0.002"),
    ],
)
def test_energy_and_distance_are_checked_like_rows(column: Any, found: str, place: int) -> None:
    columns: list[NDArray[np.float32] | None] = [None, None]
    columns[place] = np.array(column, np.float32)
    with pytest.raises(EngineFailed, match=found):
        run_and_check(Answering(EVEN, *columns), (1, 2))


def test_rounding_of_a_large_energy_is_no_difference() -> None:
    run_and_check(Answering(EVEN, np.array([-1000, -1000.5], np.float32)), (1, 2))


def test_pieces_are_joined_column_by_column() -> None:
    whole = Scores(EVEN, energy=np.array([1, 2], np.float32))
    joined = join_scores([whole.first(1), whole])
    assert joined.energy is not None
    assert joined.energy.tolist() == [1, 1, 2]
    assert (joined.probabilities.shape, joined.distance) == ((3, 2), None)


@pytest.mark.parametrize(("cause", "kind"), [(ValueError("nan"), EngineFailed), (MemoryError(), OutOfMemory)])
def test_a_failed_call_is_told_from_want_of_memory(cause: Exception, kind: type[Exception]) -> None:
    error = failed_run(3, cause)
    assert type(error) is kind
    assert "3" in str(error)


def test_want_of_memory_names_the_version() -> None:
    assert "version 7" in str(no_memory_to_load("7"))
