"""Observer that writes the figures of each epoch for TensorBoard, beside the progress."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from tensorboard.summary import Writer

from service.cli.training_progress import ProgressObserver
from service.training.plan import NETWORK_LEARNS

if TYPE_CHECKING:
    from service.training.checkpoint import Epoch


class TensorBoardObserver(ProgressObserver):
    """Progress, and a log in `tensorboard/` of the run folder. Each network of the training has a folder there."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._folder = Path()
        self._writers: dict[Path, Writer] = {}

    def began(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"

    def epoch(self, result: "Epoch") -> None:
        super().epoch(result)
        steps = self._plan.steps[: self._plan.place + 1] if self._plan else ()
        folder = self._folder / f"network-{max(1, sum(step.name == NETWORK_LEARNS for step in steps))}"
        if folder not in self._writers:
            self._writers[folder] = Writer(str(folder))
        writer = self._writers[folder]
        for name, value in vars(result).items():
            if name != "epoch" and value is not None:
                writer.add_scalar(name, value, step=result.epoch + 1)
        writer.flush()

    def __exit__(self, *arguments: object) -> None:
        super().__exit__(*arguments)
        for writer in self._writers.values():
            writer.close()
