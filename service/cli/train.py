"""`flowers train [FOLDER]`: photographs in, a new version in the model store out."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.terminal import (
    captured_messages,
    make_progress,
    open_console,
    open_messages,
    print_result,
    printable,
)
from service.errors import InvalidParameter
from service.libraries import keep_files_in, limit_tensorflow_log
from service.settings import TrainSettings
from service.store.layout import check_model_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from service.data.check import DataCheck, Finding
    from service.data.split import Split
    from service.training.checkpoint import Epoch
    from service.training.recipe import Recipe
    from service.training.train import Trained


def train(
    folder: Annotated[Path | None, Parameter(help="One folder of photographs per class.")] = None,
    /,
    *,
    settings: TrainSettings | None = None,
    name: Annotated[
        str | None, Parameter(help="Name of the model; default: the folder's, or without one the recipe's or flowers.")
    ] = None,
    again: Annotated[
        bool, Parameter(help="Train anew what the same command has finished before.", negative="")
    ] = False,
    json: Annotated[bool, Parameter(help="Print the result as JSON.", negative="")] = False,
) -> int:
    """Train on FOLDER and publish a new version; without FOLDER, fetch flower_photos and train `flowers`.

    The same command goes on with a run that was interrupted. Ctrl-C ends a run early and publishes its best epoch.
    A finished training is not repeated without --again.
    """
    settings = settings or TrainSettings()
    _prepare_libraries()
    keep_files_in(settings.cache)
    from service.training.recipe import find_recipe

    recipe = _adapt(find_recipe(settings.recipe), settings)
    model = name or (folder.resolve().name if folder else recipe.model_name or "flowers")
    try:
        check_model_name(model)
    except InvalidParameter as error:
        raise error if name else InvalidParameter(f"{error}: name it with --name") from None
    with open_messages() as messages, ProgressObserver(open_console(messages)) as observer:
        with captured_messages():
            from service.imaging.pixels import ImageLimits
            from service.training.keras_settings import reset_keras_settings
            from service.training.train import list_devices, train

            reset_keras_settings()
            devices = list_devices(settings.device)
        # TensorFlow imports code that it generates in the temporary folder. It deletes the code, but not its byte code.
        sys.dont_write_bytecode = True
        _check_teacher(recipe)
        photographs = folder or _fetch(settings, observer)
        results = [
            train(
                photographs, model, recipe, seed=settings.seed, device=device,
                store=settings.model_store, runs=settings.runs, observer=observer, again=again,
                limits=ImageLimits(settings.max_image_bytes, settings.max_image_pixels),
            )
            for device in (devices if recipe.every_device else devices[:1])
        ]  # fmt: skip
    if json:
        print(_to_json(results))
    else:
        print_result(_to_table(results))
    return 0


def _prepare_libraries() -> None:
    # The export is TensorFlow's. A backend that the user has chosen for other programs has no effect.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Read when TensorFlow is imported: no chatter before our own lines, no seizing of the GPU's whole memory.
    limit_tensorflow_log(3)
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


def _adapt(recipe: "Recipe", settings: TrainSettings) -> "Recipe":
    return replace(
        recipe,
        epochs=settings.epochs or recipe.epochs,
        batch_size=settings.batch_size or recipe.batch_size,
        network=settings.network or recipe.network,
        teacher=settings.teacher or recipe.teacher,
    )


def _check_teacher(recipe: "Recipe") -> None:
    """Find out before the photographs are fetched and checked whether there is such a teacher, and its weights."""
    if recipe.teacher != "none":
        from service.networks.backbones import load_backbone

        load_backbone(recipe.teacher)


def _fetch(settings: TrainSettings, observer: "ProgressObserver") -> Path:
    from service.data.fetch import FLOWER_PHOTOS, fetch

    return fetch(FLOWER_PHOTOS, settings.cache, observer.fetching)


class ProgressObserver:
    """Shows a training on standard error: bars while it moves, one line per epoch to keep."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = make_progress(console)
        self._task = self._progress.add_task("loading TensorFlow", total=None, figures="")

    def __enter__(self) -> "ProgressObserver":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def _show(self, description: str, done: int, total: int | None, figures: str = "") -> None:
        if self._progress.tasks[0].description != description:
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(description, total=total, figures="")
            if not self._console.is_terminal:  # a log shows no bars
                self.say(description)
        self._progress.update(self._task, completed=done, total=total, figures=figures)

    def fetching(self, done_bytes: int, total_bytes: int) -> None:
        """So much of the data set is here."""
        self._show("fetching MB", done_bytes // 1_000_000, total_bytes // 1_000_000)

    def checking(self, done: int, total: int) -> None:
        """So many photographs are checked."""
        self._show("checking", done, total)

    def found(self, check: "DataCheck") -> None:
        """Print every finding of the check."""
        self._print_findings(check.findings)

    def checked(self, check: "DataCheck", split: "Split") -> None:
        """Print what the split sets aside, and the sizes of the parts."""
        self._print_findings(split.set_aside)
        sizes = ", ".join(f"{len(photographs)} {part}" for part, photographs in split.photographs.items())
        self.say(f"{len(check.photographs)} photographs: {sizes}")

    def _print_findings(self, findings: "Iterable[Finding]") -> None:
        for finding in findings:
            self.say(finding.sentence)

    def teaching(self, what: str, done: int, total: int) -> None:
        """The teacher has done so much."""
        self._show(what, done, total)

    def taught(self, teacher: str, accuracy: float | None) -> None:
        """Print what the teacher is worth."""
        if accuracy is not None:
            self.say(f"{teacher} teaches: {accuracy:.1%} of the validation part right")

    def stage(self, name: str) -> None:
        """A stage without figures begins."""
        self._show(name, 0, None)

    def step(self, epoch: int, step: int, num_steps: int, loss: float, accuracy: float, images_per_s: float) -> None:
        """Move the bar of the epoch."""
        figures = f"loss {loss:.3f}  accuracy {accuracy:.3f}  {images_per_s:.0f} images/s"
        self._show(f"epoch {epoch + 1}", step, num_steps, figures)

    def epoch(self, result: "Epoch") -> None:
        """Print the epoch's line."""
        self.say(
            f"epoch {result.epoch + 1}: loss {result.loss:.4f}, accuracy {result.accuracy:.4f}, "
            f"{_validation(result)}"
            f"{result.seconds:.1f} s, {result.images_per_s:.0f} images/s"
        )

    def say(self, sentence: str) -> None:
        """Print a line to keep."""
        self._console.print(printable(sentence), soft_wrap=True)


def _validation(result: "Epoch") -> str:
    if result.validation_loss is None:
        return ""
    return f"validation loss {result.validation_loss:.4f}, validation accuracy {result.validation_accuracy:.4f}, "


def _to_table(results: "list[Trained]") -> Table:
    table = Table(title="trained")
    for column in ("model", "version", "device", "epochs", "s / epoch", "test accuracy", "95 % interval"):
        table.add_column(column)
    for result in results:
        test = result.test
        table.add_row(
            Text(result.model),
            str(result.version),
            result.device,
            f"{len(result.history)}{' (interrupted)' if result.interrupted else ''}",
            f"{result.seconds_per_epoch:.1f}",
            f"{100 * test.accuracy:.2f} % ({test.num_correct} of {test.num_photographs})",
            f"{100 * test.accuracy_low:.1f}-{100 * test.accuracy_high:.1f} %",
        )
    return table


def _to_json(results: "list[Trained]") -> str:
    from json import dumps

    return dumps(
        [
            {
                "model": result.model,
                "version": result.version,
                "device": result.device,
                "epochs": len(result.history),
                "interrupted": result.interrupted,
                "seconds_per_epoch": result.seconds_per_epoch,
                "test_accuracy": result.test.accuracy,
                "run": str(result.run),
            }
            for result in results
        ],
        indent=1,
    )
