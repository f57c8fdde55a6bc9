from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.data.batches import LabelledPixels, load_squares
from service.data.check import CheckedPhotograph, check_folder
from service.data.folder import read_folder
from service.imaging.limits import ImageLimits
from service.training import label_errors
from service.training.label_errors import cross_validate_layer, find_suspects, rank_suspects

CLASSES = np.repeat(np.arange(3), 20)
NAMES = ("daisy", "roses", "tulips")
FLIPPED = [0, 25, 50]


def photographs() -> list[CheckedPhotograph]:
    return [
        CheckedPhotograph(Path(f"{place}.jpg"), NAMES[index], pixels_digest=str(place), perceptual_hash=place)
        for place, index in enumerate(CLASSES)
    ]


@pytest.fixture(scope="module")
def probabilities() -> np.ndarray:
    """Of labels of which three are wrong."""
    features = 3 * np.eye(3, 8, dtype=np.float32)[CLASSES] + np.random.default_rng(0).normal(0, 0.4, (2, 60, 8))
    return cross_validate_layer(np.asarray(features, np.float32), flipped(), np.arange(60) % 5, 3)


def flipped() -> np.ndarray:
    labels = CLASSES.copy()
    labels[FLIPPED] = (labels[FLIPPED] + 1) % 3
    return labels


def test_wrong_labels_come_first_with_the_right_one(probabilities: np.ndarray) -> None:
    suspects = rank_suspects(photographs(), probabilities, flipped(), NAMES)
    assert {suspect.path for suspect in suspects[:3]} == {Path(f"{place}.jpg") for place in FLIPPED}
    assert [suspect.is_likely for suspect in suspects] == [True] * 3 + [False] * 57
    for suspect in suspects[:3]:
        place = int(suspect.path.stem)
        assert (suspect.label, suspect.other) == (NAMES[flipped()[place]], NAMES[CLASSES[place]])
        assert suspect.other_probability > 0.8 > suspect.label_probability
    margins = [suspect.label_probability - suspect.other_probability for suspect in suspects]
    assert margins == sorted(margins)


@pytest.mark.long
def test_few_squares_lie_in_memory_together(
    drawn_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = check_folder(read_folder(drawn_folder))
    sizes: list[int] = []
    done: list[tuple[int, int]] = []

    def load(photographs: Sequence[CheckedPhotograph], *given: Any) -> LabelledPixels:
        sizes.append(len(photographs))
        return load_squares(photographs, *given)

    monkeypatch.setattr(label_errors, "load_squares", load)
    whole = find_suspects(check, ImageLimits(), tmp_path / "whole", lambda *_: None)
    total = len(check.photographs)
    assert sizes == [total]
    monkeypatch.setattr(label_errors, "MOST_DECODED", total // 2 + 1)
    assert find_suspects(check, ImageLimits(), tmp_path / "pieces", lambda *of: done.append(of)) == whole
    assert sizes[1:] == [total // 2 + 1, total - total // 2 - 1]
    assert done == sorted(done)
    assert done[-1] == (total, total)


def test_a_photograph_is_judged_by_others_alone(probabilities: np.ndarray) -> None:
    """A layer that had learned the wrong label of an outlier would repeat it."""
    features = 3 * np.eye(3, 8, dtype=np.float32)[CLASSES]
    features[0] = 9 * np.eye(1, 8, 7, dtype=np.float32)  # nothing else has this direction
    judged = cross_validate_layer(features[None], CLASSES, np.arange(60) % 5, 3)
    assert judged[0].max() < 0.5
    assert np.allclose(judged.sum(axis=1), 1, atol=1e-5)


def test_a_threshold_is_of_the_other_class() -> None:
    """The class `roses` is answered with little confidence. So little of it makes a suspect."""
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1, 0], [0.4, 0.6, 0], [0.4, 0.6, 0], [0.45, 0.55, 0]], np.float32)
    suspects = rank_suspects(photographs()[:4], probabilities, labels, NAMES)
    assert [suspect.path.stem for suspect in suspects if suspect.is_likely] == ["1"]
