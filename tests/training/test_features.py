from pathlib import Path

import keras
import numpy as np
import pytest
from support.fitting import drawn_pixels

from service.errors import TrainingError
from service.imaging.pixels import Pixels
from service.training import features as features_module
from service.training.checkpoint import read_arrays, write_arrays
from service.training.features import extract_features

SQUARES = np.asarray(drawn_pixels(0, 2).images)  # ten


class Corners:
    """A model whose features are the colours of the left and of the right edge, and the images that it is shown."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[Pixels] = []
        images = keras.Input((224, 224, 3), dtype="uint8")
        numbers = keras.ops.cast(images, "float32")
        edges = [keras.ops.mean(numbers[:, :, column], axis=1) for column in (0, -1)]
        self.model = keras.Model(images, {"features": keras.ops.concatenate(edges, axis=1)})
        real = keras.Model.predict_on_batch

        def watched(model: keras.Model, batch: Pixels) -> dict[str, np.ndarray]:
            self.shown.append(batch)
            return dict(real(model, batch))

        monkeypatch.setattr(keras.Model, "predict_on_batch", watched)
        monkeypatch.setattr(features_module, "_PIECE", 4)


@pytest.fixture
def corners(monkeypatch: pytest.MonkeyPatch) -> Corners:
    return Corners(monkeypatch)


def test_the_second_view_is_the_mirror_image(corners: Corners, tmp_path: Path) -> None:
    done: list[int] = []
    features = extract_features(corners.model, SQUARES, tmp_path / "new", done.append)
    assert features.shape == (2, 10, 6)
    assert features.dtype == np.float32
    np.testing.assert_allclose(features[0, :, :3], SQUARES[:, :, 0].mean(axis=1), atol=1e-3)
    np.testing.assert_array_equal(features[1], features[0][:, [3, 4, 5, 0, 1, 2]])
    assert np.abs(features[0] - features[1]).max() > 1
    assert done == sorted(done)
    assert done[-1] == len(SQUARES)


def test_a_killed_extraction_computes_the_missing_alone(corners: Corners, tmp_path: Path) -> None:
    def kill(done: int) -> None:
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract_features(corners.model, SQUARES, tmp_path, kill)
    corners.shown.clear()
    resumed = extract_features(corners.model, SQUARES, tmp_path, lambda _: None)
    np.testing.assert_array_equal(np.concatenate(corners.shown[::2]), SQUARES[4:])  # every second is a mirror image
    corners.shown.clear()
    np.testing.assert_array_equal(extract_features(corners.model, SQUARES, tmp_path, lambda _: None), resumed)
    assert not corners.shown
    whole = extract_features(corners.model, SQUARES, tmp_path / "undisturbed", lambda _: None)
    np.testing.assert_array_equal(resumed, whole)


@pytest.mark.parametrize("damage", ["of fewer photographs", "in float64", "of other arrays"])
def test_a_file_of_other_features_is_refused(damage: str, corners: Corners, tmp_path: Path) -> None:
    extract_features(corners.model, SQUARES, tmp_path, lambda _: None)
    path = tmp_path / "0000004.npz"
    features = (read_arrays(path) or {})["features"]
    damaged = {
        "of fewer photographs": {"features": features[:, :3]},
        "in float64": {"features": features.astype(np.float64)},
        "of other arrays": {"logits": features},
    }
    write_arrays(path, damaged[damage])
    with pytest.raises(TrainingError, match=r"0000004\.npz is damaged.* Remove it"):
        extract_features(corners.model, SQUARES, tmp_path, lambda _: None)


def test_features_that_cannot_be_written_are_an_error(corners: Corners, tmp_path: Path) -> None:
    (tmp_path / "0000000.writing").mkdir()  # where the draft of the file should be
    with pytest.raises(TrainingError, match="features could not be written"):
        extract_features(corners.model, SQUARES, tmp_path, lambda _: None)
