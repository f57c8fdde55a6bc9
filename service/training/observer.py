"""Observer of a training, such as a progress bar."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a progress bar is there before Keras is
    from service.data.check import DataCheck
    from service.data.split import Split
    from service.training.checkpoint import Epoch
    from service.training.plan import Plan


class Observer:
    """Observer of a training. Its methods do nothing by default."""

    def checking(self, done: int, total: int) -> None:
        """Take note that `done` of `total` photographs are checked."""

    def found(self, check: "DataCheck") -> None:
        """Take note of the check. The split comes later and may fail."""

    def checked(self, check: "DataCheck", split: "Split") -> None:
        """Take note of the data before anything is trained."""

    def began(self, folder: Path) -> None:
        """Take note of the run folder."""

    def planned(self, plan: "Plan") -> None:
        """Take note of the plan. `stage`, `progress`, `step` and `epoch` then say where the training stands in it."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Take note of the progress of a step that has parts, such as the teacher's answers."""

    def taught(self, teacher: str, accuracy: float | None) -> None:
        """Take note that the teacher is ready. `accuracy` is its own, on held-out photographs."""

    def stage(self, name: str) -> None:
        """Take note of a stage without progress of its own."""

    def step(self, epoch: int, step: int, num_steps: int, loss: float, accuracy: float, images_per_s: float) -> None:
        """Take note of one step. Loss and accuracy are means over the epoch so far."""

    def epoch(self, result: "Epoch") -> None:
        """Take note of an epoch. It is validated, and its checkpoint is written."""

    def say(self, sentence: str) -> None:
        """Take note of a sentence worth a line of its own."""
