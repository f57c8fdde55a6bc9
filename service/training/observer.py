"""The observer of a training, such as a progress bar. It is told about each stage."""

from typing import Protocol

from service.data.check import DataCheck
from service.data.split import Split
from service.training.fit import Watcher


class Observer(Watcher, Protocol):
    """A watcher of the stages, too. Its methods do nothing by default."""

    def checking(self, done: int, total: int) -> None:
        """So many photographs of so many are checked."""

    def found(self, check: DataCheck) -> None:
        """The photographs are checked. They are not divided yet, and perhaps cannot be."""

    def checked(self, check: DataCheck, split: Split) -> None:
        """The data is known; nothing has been trained yet."""

    def teaching(self, what: str, done: int, total: int) -> None:
        """The teacher has done so much of what it does."""

    def taught(self, teacher: str, accuracy: float | None) -> None:
        """The teacher is ready; `accuracy` is its own, on the validation part."""

    def stage(self, name: str) -> None:
        """A stage begins that shows no progress of its own."""
