from pathlib import Path
from typing import Any

import numpy as np
import pytest

from service.errors import TrainingError
from service.training.checkpoint import read_arrays, write_arrays
from service.training.lesson import Components, Lesson, LessonFiles

NUM_VIEWS, NUM_PHOTOGRAPHS, NUM_CLASSES, WIDTH = 3, 4, 2, 5


def files_in(folder: Path, *, has_features: bool = True) -> LessonFiles:
    return LessonFiles(folder / "lesson.npz", (NUM_VIEWS, NUM_PHOTOGRAPHS, NUM_CLASSES), has_features)


def answer(files: LessonFiles, num_views: int) -> Lesson:
    """Answer the first views, and write each as it is there."""
    random = np.random.default_rng(3)
    lesson = Lesson(accuracy=0.75)
    if files.has_features:
        lesson.components = Components(np.arange(7, dtype=np.float32), np.eye(7, WIDTH, dtype=np.float32))
    for _ in range(num_views):
        lesson.answers.append(random.random((NUM_PHOTOGRAPHS, NUM_CLASSES), np.float32))
        if files.has_features:
            lesson.features.append(random.random((NUM_PHOTOGRAPHS, WIDTH)).astype(np.float16))
        files.save_view(lesson)
    return lesson


@pytest.mark.parametrize("has_features", [True, False])
def test_each_view_is_kept_to_the_bit(has_features: bool, tmp_path: Path) -> None:
    files = files_in(tmp_path, has_features=has_features)
    lesson, loaded = answer(files, 2), files.load_views()
    assert loaded.accuracy == 0.75
    for own, kept in ((lesson.answers, loaded.answers), (lesson.features, loaded.features)):
        np.testing.assert_array_equal(kept, own)
    features = np.ones((1, 7), np.float32)
    if lesson.components and loaded.components:
        np.testing.assert_array_equal(loaded.components(features), lesson.components(features))
    else:
        assert lesson.components is loaded.components


def test_a_view_after_a_gap_is_answered_again(tmp_path: Path) -> None:
    answer(files_in(tmp_path), 3)
    (tmp_path / "lesson-01.npz").unlink()
    assert len(files_in(tmp_path).load_views().answers) == 1


def test_the_whole_replaces_views_and_checkpoint(tmp_path: Path) -> None:
    files = files_in(tmp_path)
    targets = answer(files, 3).targets(1.0)
    files.teacher.write_bytes(b"weights")
    parts = sum(path.stat().st_size for path in tmp_path.glob("lesson-*.npz"))
    files.save_whole(targets)
    assert [path.name for path in tmp_path.iterdir()] == ["lesson.npz"]
    assert files.whole.stat().st_size < parts
    loaded = files.load_whole(1.0)
    assert loaded is not None
    np.testing.assert_array_equal(loaded.answers, targets.answers)
    np.testing.assert_array_equal(loaded.features, targets.features)


CHANGES: dict[str, dict[str, Any]] = {
    "of fewer photographs": {"answers": np.zeros((1, NUM_CLASSES), np.float32)},
    "without features": {"features": np.empty(0, np.float16)},
    "of other components": {"basis": np.zeros((7, 1), np.float32)},
    "without an accuracy": {"accuracy": np.empty(0)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_unfit_view_is_named_with_a_remedy(change: str, tmp_path: Path) -> None:
    files = files_in(tmp_path)
    answer(files, 1)
    path = tmp_path / "lesson-00.npz"
    write_arrays(path, (read_arrays(path) or {}) | CHANGES[change])
    with pytest.raises(TrainingError, match=r"lesson-00\.npz is damaged.* Remove it"):
        files.load_views()
