from collections.abc import Iterator
from pathlib import Path

import pytest

from service.data.dataset import Dataset, open_dataset
from service.data.folder import read_folder
from service.imaging.limits import ImageLimits


@pytest.fixture(scope="session")
def dataset(drawn_folder: Path) -> Dataset:
    """39 drawn photographs to train on, 11 to validate and 10 to test."""
    return open_dataset(read_folder(drawn_folder), 2, ImageLimits())


@pytest.fixture
def eager() -> Iterator[None]:
    """TensorFlow runs without graphs. To trace one takes longer than the few steps of a test."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
