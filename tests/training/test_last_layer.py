from dataclasses import astuple

import numpy as np
import pytest

from service.training.last_layer import LastLayer, find_centres, learn_last_layer

CLASSES = np.repeat(np.arange(3), 20)
MEANS = 3 * np.eye(3, 8, dtype=np.float32)


def drawn_features(seed: int, classes: np.ndarray = CLASSES) -> np.ndarray:
    """Two views of photographs whose classes lie in three directions: float32 (2, N, 8)."""
    noise = np.random.default_rng(seed).normal(0, 0.4, (2, len(classes), 8))
    return np.asarray(MEANS[classes] + noise, np.float32)


@pytest.fixture(scope="module")
def learned() -> LastLayer:
    return learn_last_layer(drawn_features(0), CLASSES, 3)


def test_separable_features_are_learned_the_same_each_time(learned: LastLayer) -> None:
    assert (learned.logits(drawn_features(1)[0]).argmax(axis=1) == CLASSES).all()
    for one, other in zip(astuple(learned), astuple(learn_last_layer(drawn_features(0), CLASSES, 3)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_both_views_teach_and_the_first_gives_centres(learned: LastLayer) -> None:
    views = drawn_features(0)
    views[1] = -views[1]
    other = learn_last_layer(views, CLASSES, 3)
    assert np.abs(other.kernel - learned.kernel).max() > 0.1
    np.testing.assert_array_equal(other.centres, learned.centres)
    np.testing.assert_array_equal(learned.centres, find_centres(views[0], CLASSES))


def test_the_distance_is_0_at_a_centre_and_grows() -> None:
    centres = find_centres(drawn_features(0)[0], CLASSES)
    last = LastLayer(np.zeros((8, 3), np.float32), np.zeros(3, np.float32), centres)
    assert centres.shape == (8, 12)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(last.distances(7 * centres.T), 0, atol=1e-5)
    aside = np.eye(8, dtype=np.float32)[7]
    moved = np.stack([centres[:, 0] + share * aside for share in (0, 0.5, 1, 4)])
    distances = last.distances(moved)
    assert (np.diff(distances) > 0.03).all()
    assert last.distances(-MEANS).max() <= 2


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 0, 2]], ids=["one each", "one missing"])
def test_few_photographs_are_enough(classes: list[int]) -> None:
    class_indices = np.array(classes)
    last = learn_last_layer(drawn_features(3, class_indices), class_indices, 3)
    assert last.kernel.shape == (8, 3)
    assert last.centres.shape == (8, 3)
    answers = last.logits(drawn_features(4, class_indices)[0])
    np.testing.assert_array_equal(answers.argmax(axis=1), class_indices)
