"""Lesson. A teacher's answers to all views, as its run folder keeps them.

While the teacher answers, each view has a file `lesson-00.npz`. All of them together become `lesson.npz`.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import TrainingError
from service.training.checkpoint import read_arrays, unfit_file, write_arrays
from service.training.targets import Float32, TeacherTargets

LESSON_FILE, TEACHER_FILE = "lesson.npz", "teacher.npz"
"""Names in a run folder of the answers to all views, and of the teacher's checkpoint."""


@dataclass(frozen=True, eq=False)
class Components:
    """Principal components, float32 (width, number), of features with this `mean`, float32 (width,)."""

    mean: Float32
    basis: Float32

    def __call__(self, features: Float32) -> Float32:
        """Return the components of features, float32 (M, width), as float32 (M, number)."""
        return np.asarray((features - self.mean) @ self.basis, np.float32)


@dataclass(eq=False)
class Lesson:
    """Answers of the first views so far.

    Each of `answers` is float32 (number of photographs, num_classes). Each of `features` is float16 (number of
    photographs, number of components), and the list stays empty without components. `accuracy` is the teacher's on
    held-out photographs, or None. Answers and accuracy are shares in [0, 1].
    """

    accuracy: float | None = None
    components: Components | None = None
    answers: list[Float32] = field(default_factory=list)
    features: list[NDArray[np.float16]] = field(default_factory=list)

    def targets(self, feature_weight: float) -> TeacherTargets:
        """Return the targets of all views."""
        features = np.stack(self.features) if self.features else None
        return TeacherTargets(np.stack(self.answers), features, self.accuracy, feature_weight)


@dataclass(frozen=True)
class LessonFiles:
    """Files of a teacher beside `whole`, the file of all answers.

    `shape` is (num_views, number of photographs, num_classes). With `has_features` the features are kept, too. Every
    method raises `TrainingError` for a file that cannot be written or read, or is of another training.
    """

    whole: Path
    shape: tuple[int, int, int]
    has_features: bool

    @property
    def teacher(self) -> Path:
        """Path of the teacher's checkpoint."""
        return self.whole.with_name(TEACHER_FILE)

    def load_whole(self, feature_weight: float) -> TeacherTargets | None:
        """Return what `save_whole` wrote, or None without a file."""
        arrays = read_arrays(self.whole)
        if arrays is None:
            return None
        answers, features = (arrays.get(name, np.empty(0)) for name in ("answers", "features"))
        is_sound = answers.shape == self.shape and answers.dtype == np.float32 and features.dtype == np.float16
        if not is_sound or (features.size and (features.ndim != 3 or features.shape[:2] != self.shape[:2])):
            raise unfit_file(self.whole)
        accuracy = _read_accuracy(self.whole, arrays)
        return TeacherTargets(answers, features if features.size else None, accuracy, feature_weight)

    def save_whole(self, targets: TeacherTargets) -> None:
        """Write the answers to all views, and remove the files of the views and the teacher's checkpoint."""
        _write(self.whole, {
            "answers": targets.answers, "features": _or_empty(targets.features),
            "accuracy": _as_array(targets.accuracy),
        })  # fmt: skip
        self.remove_parts()

    def remove_parts(self) -> None:
        """Remove the files that the whole replaces. A file that cannot be removed stays."""
        for path in (*self._views(), self.teacher):
            with suppress(OSError):
                path.unlink(missing_ok=True)

    def load_views(self) -> Lesson:
        """Return the answers that `save_view` wrote, from the first view on without a gap."""
        lesson = Lesson()
        for path in takewhile(Path.exists, self._views()):
            arrays = read_arrays(path) or {}
            answers, features = (arrays.get(name, np.empty(0)) for name in ("answers", "features"))
            is_sound = answers.shape == self.shape[1:] and answers.dtype == np.float32
            if self.has_features:
                is_sound = is_sound and features.ndim == 2 and len(features) == self.shape[1]
                is_sound = is_sound and features.dtype == np.float16
            if not is_sound:
                raise unfit_file(path)
            if not lesson.answers:
                lesson.accuracy = _read_accuracy(path, arrays)
                lesson.components = self._read_components(path, arrays) if self.has_features else None
            lesson.answers.append(answers)
            lesson.features += [features] if self.has_features else []
        return lesson

    def save_view(self, lesson: Lesson) -> None:
        """Write the last view of a lesson. The first view's file also holds accuracy and components."""
        number = len(lesson.answers) - 1
        features = lesson.features[number] if lesson.features else None
        arrays: dict[str, NDArray[Any]] = {"answers": lesson.answers[number], "features": _or_empty(features)}
        if number == 0:
            arrays["accuracy"] = _as_array(lesson.accuracy)
            if lesson.components is not None:
                arrays |= {"mean": lesson.components.mean, "basis": lesson.components.basis}
        _write(self._views()[number], arrays)

    def _views(self) -> list[Path]:
        return [self.whole.with_name(f"{self.whole.stem}-{number:02d}.npz") for number in range(self.shape[0])]

    def _read_components(self, path: Path, arrays: dict[str, NDArray[Any]]) -> Components:
        mean, basis = (arrays.get(name, np.empty(0)) for name in ("mean", "basis"))
        is_sound = mean.dtype == basis.dtype == np.float32 and basis.ndim == 2 and mean.shape == basis.shape[:1]
        if not is_sound or basis.shape[1] != arrays["features"].shape[1]:
            raise unfit_file(path)
        return Components(mean, basis)


def _or_empty(features: NDArray[np.float16] | None) -> NDArray[np.float16]:
    return np.empty(0, np.float16) if features is None else features


def _as_array(accuracy: float | None) -> NDArray[np.float64]:
    return np.array(np.nan if accuracy is None else accuracy)


def _read_accuracy(path: Path, arrays: dict[str, NDArray[Any]]) -> float | None:
    accuracy = arrays.get("accuracy", np.empty(0))
    if accuracy.shape != () or accuracy.dtype.kind != "f":
        raise unfit_file(path)
    return None if np.isnan(accuracy) else float(accuracy)


def _write(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    try:
        write_arrays(path, arrays)
    except OSError as error:
        raise TrainingError(f"the teacher's answers could not be written to {path}: {error.strerror}") from error
