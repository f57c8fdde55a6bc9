from collections.abc import Iterator
from pathlib import Path

import pytest

from service.data.dataset import Dataset, open_dataset
from service.data.folder import read_folder
from service.imaging.limits import ImageLimits
from service.training.run import Run


@pytest.fixture(scope="session")
def dataset(drawn_folder: Path) -> Dataset:
    """39 drawn photographs to train on, 11 to validate and 10 to test."""
    return open_dataset(read_folder(drawn_folder), 2, ImageLimits())


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """An empty run folder of the model `drawn`."""
    run = Run(tmp_path / "run", "drawn", tmp_path / "store", "cpu")
    run.make()
    return run


@pytest.fixture
def eager() -> Iterator[None]:
    """TensorFlow runs without graphs. To trace one takes longer than the few steps of a test."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
