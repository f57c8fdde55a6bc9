"""The verb `train`. It makes a new version in the model store from photographs."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.terminal import captured_messages, make_progress, open_console, open_messages, print_result, printable
from service.errors import InvalidParameter
from service.libraries import keep_files_in, limit_tensorflow_log
from service.settings import TrainSettings
from service.store.layout import check_model_name
from service.training.observer import Observer

if TYPE_CHECKING:
    from service.data.check import DataCheck
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
        str | None,
        Parameter(help="Name of the model. The default is the folder's, or without one the recipe's or flowers."),
    ] = None,
    again: Annotated[
        bool, Parameter(help="Train anew what the same command has finished before.", negative="")
    ] = False,
    json: Annotated[bool, Parameter(help="Print the result as JSON.", negative="")] = False,
) -> int:
    """Train on FOLDER and publish a new version. Without FOLDER, fetch flower_photos and train `flowers`.

    The same command goes on with a run that was interrupted. Ctrl-C ends a run early and publishes its best epoch.
    A finished training is not repeated without --again.
    """
    settings = settings or TrainSettings()
    if name:
        check_model_name(name)
    from service.data.folder import read_folder
    from service.training.choose import choose_recipe
    from service.training.recipe import find_recipe

    choice = choose_recipe(
        None if folder is None else read_folder(folder).class_names, name=name, recipe=settings.recipe,
        network=settings.network, teacher=settings.teacher,
    )  # fmt: skip
    recipe = find_recipe(
        choice.recipe, network=settings.network, epochs=settings.epochs, batch_size=settings.batch_size,
        teacher=settings.teacher,
    )  # fmt: skip
    _prepare_libraries(recipe)
    keep_files_in(settings.cache)
    model = name or (folder.resolve().name if folder else recipe.model_name or "flowers")
    try:
        check_model_name(model)
    except InvalidParameter as error:
        raise error if name else InvalidParameter(f"{error}: name it with --name") from None
    with open_messages() as messages, ProgressObserver(open_console(messages)) as observer:
        with captured_messages():
            from service.training.keras_settings import can_export, reset_keras_settings
            from service.training.train import list_devices

            reset_keras_settings()
            if can_export():  # a library that is missing is missed now
                import_module("service.training.export.version")
            devices = list_devices(settings.device)
        # TensorFlow imports code that it generates in the temporary folder. It deletes the code, but not its byte code.
        sys.dont_write_bytecode = True
        if recipe.backbone:  # before the photographs are fetched and checked
            from service.networks.backbones import load_backbone

            load_backbone(recipe.backbone)
        if folder is None:
            from service.data.fetch import FLOWER_PHOTOS, fetch

            folder = fetch(FLOWER_PHOTOS, settings.cache, observer.fetching)
        used = devices if recipe.every_device else devices[:1]
        results = _train(folder, model, recipe, used, settings, observer, again=again)
    if json:
        print(_to_json(results))
    elif results:
        print_result(_to_table(results))
    return 0


def _train(
    folder: Path, model: str, recipe: "Recipe", devices: list[str], settings: TrainSettings, observer: Observer, *,
    again: bool,
) -> "list[Trained]":  # fmt: skip
    """Check the photographs, and train on each device. Return the versions that were published."""
    from service.data.dataset import open_dataset
    from service.data.folder import read_folder
    from service.imaging.limits import ImageLimits
    from service.store.publish import check_can_publish
    from service.training.run import name_run, open_run
    from service.training.train import train

    listed = read_folder(folder)
    check_can_publish(settings.model_store, model)
    limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
    dataset = open_dataset(listed, settings.seed, limits, checking=observer.checking, found=observer.found)
    observer.checked(dataset.check, dataset.split)
    results = []
    for device in devices:
        run_name = name_run(model, recipe, dataset, device)
        store = settings.model_store
        with open_run(settings.runs, run_name, model=model, store=store, device=device, again=again) as run:
            results.append(train(dataset, recipe, run, observer))
    return [result for result in results if result is not None]


def _prepare_libraries(recipe: "Recipe") -> None:
    # The export is TensorFlow's. A backend that the user has chosen for other programs has no effect, unless the recipe
    # is made for it.
    has_tensorflow, has_jax = (find_spec(library) is not None for library in ("tensorflow", "jax"))
    is_wanted = getattr(recipe, "num_folds", 0) > 0 and os.environ.get("KERAS_BACKEND") == "jax"
    os.environ["KERAS_BACKEND"] = "jax" if has_jax and (is_wanted or not has_tensorflow) else "tensorflow"
    # Read when TensorFlow is imported: no chatter before our own lines, no seizing of the GPU's whole memory.
    limit_tensorflow_log(3)
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")


class ProgressObserver(Observer):
    """Observer that shows a training on standard error: bars while it moves, one line per epoch to keep."""

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
        self._show("fetching MB", done_bytes // 1_000_000, total_bytes // 1_000_000)

    def checking(self, done: int, total: int) -> None:
        self._show("checking", done, total)

    def found(self, check: "DataCheck") -> None:
        for finding in check.findings:
            self.say(finding.sentence)

    def checked(self, check: "DataCheck", split: "Split") -> None:
        for finding in split.set_aside:
            self.say(finding.sentence)
        sizes = ", ".join(f"{len(photographs)} {part}" for part, photographs in split.photographs.items())
        self.say(f"{len(check.photographs)} photographs: {sizes}")

    def progress(self, what: str, done: int, total: int) -> None:
        self._show(what, done, total)

    def taught(self, teacher: str, accuracy: float | None) -> None:
        if accuracy is not None:
            self.say(f"{teacher} teaches: {accuracy:.1%} of the validation part right")

    def stage(self, name: str) -> None:
        self._show(name, 0, None)

    def step(self, epoch: int, step: int, num_steps: int, loss: float, accuracy: float, images_per_s: float) -> None:
        figures = f"loss {loss:.3f}  accuracy {accuracy:.3f}  {images_per_s:.0f} images/s"
        self._show(f"epoch {epoch + 1}", step, num_steps, figures)

    def epoch(self, result: "Epoch") -> None:
        validation = ""
        if result.validation_loss is not None:
            figures = result.validation_loss, result.validation_accuracy
            validation = "validation loss {:.4f}, validation accuracy {:.4f}, ".format(*figures)
        self.say(
            f"epoch {result.epoch + 1}: loss {result.loss:.4f}, accuracy {result.accuracy:.4f}, "
            f"{validation}{result.seconds:.1f} s, {result.images_per_s:.0f} images/s"
        )

    def say(self, sentence: str) -> None:
        self._console.print(printable(sentence), soft_wrap=True)


def _to_table(results: "list[Trained]") -> Table:
    table = Table(title="trained")
    for column in ("model", "version", "device", "epochs", "s / epoch", "test accuracy", "95 % interval"):
        table.add_column(column)
    for result in results:
        test = result.test
        table.add_row(
            Text(result.model), str(result.version), result.device,
            f"{result.num_epochs}{' (interrupted)' if result.interrupted else ''}", f"{result.seconds_per_epoch:.1f}",
            f"{100 * test.accuracy:.2f} % ({test.num_correct} of {test.num_photographs})",
            f"{100 * test.accuracy_low:.1f}-{100 * test.accuracy_high:.1f} %",
        )  # fmt: skip
    return table


def _to_json(results: "list[Trained]") -> str:
    from json import dumps

    documents = [
        {
            "model": result.model, "version": result.version, "device": result.device, "epochs": result.num_epochs,
            "interrupted": result.interrupted, "seconds_per_epoch": result.seconds_per_epoch,
            "test_accuracy": result.test.accuracy, "run": str(result.run),
        }
        for result in results
    ]  # fmt: skip
    return dumps(documents, indent=1)
