import numpy as np
import pytest
from numpy.typing import NDArray
from support.fakes import FakeEngine

from service.engines.engine import Probabilities, failed_run, no_memory_to_load, run_and_check
from service.errors import EngineFailed, OutOfMemory
from service.imaging.pixels import Pixels


class Answering(FakeEngine):
    """An engine that gives the first rows of a table."""

    def __init__(self, table: NDArray[np.float32]) -> None:
        super().__init__(num_classes=2, image_size=4)
        self.table = table

    def run(self, images: Pixels) -> Probabilities:
        super().run(images)
        return self.table[: len(images)]


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

    def run(self, images: Pixels) -> Probabilities:
        return super().run(images)[::-1]


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


@pytest.mark.parametrize(("cause", "kind"), [(ValueError("nan"), EngineFailed), (MemoryError(), OutOfMemory)])
def test_a_failed_call_is_told_from_want_of_memory(cause: Exception, kind: type[Exception]) -> None:
    error = failed_run(3, cause)
    assert type(error) is kind
    assert "3" in str(error)


def test_want_of_memory_names_the_version() -> None:
    assert "version 7" in str(no_memory_to_load("7"))
