"""The verb `train`. It makes a new version in the model store from photographs."""

import logging
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from service.cli.remote import require_folder
from service.cli.terminal import captured_messages, open_console, open_messages
from service.cli.training_progress import ProgressObserver, print_trained, to_json
from service.errors import InvalidParameter, SettingsError, TrainingError
from service.libraries import keep_files_in, limit_tensorflow_log
from service.settings import TrainSettings
from service.store.layout import check_model_name

if TYPE_CHECKING:
    from rich.console import Console

    from service.data.folder import Folder
    from service.training.distributed import Cluster
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
    take: Annotated[
        bool | None,
        Parameter(
            help="Make the result a version that services serve, or with --no-take a candidate. Without either, a gate "
            "decides."
        ),
    ] = None,
    tensorboard: Annotated[
        bool, Parameter(help="Write the figures of each epoch for TensorBoard into the run folder.", negative="")
    ] = False,
    json: Annotated[bool, Parameter(help="Print the result as JSON.", negative="")] = False,
) -> int:
    """Train on FOLDER and publish a new version. Without FOLDER, fetch flower_photos and train `flowers`.

    The same command goes on with a run that was interrupted. Ctrl-C ends a run early and publishes its best epoch.
    Before the first epoch it publishes nothing, and says what is kept. A finished training is not repeated without
    --again. The result goes live if its training was finished and it is not significantly worse than the live version.
    Else it becomes a candidate. Processes that TF_CONFIG lists train an AlexNet together.
    """
    began = time.monotonic()
    settings = settings or TrainSettings()
    require_folder(settings.model_store, "train")
    keep_files_in(settings.cache)
    if name:
        check_model_name(name)
    if tensorboard and find_spec("tensorboard") is None:
        raise SettingsError(
            "--tensorboard writes with the library tensorboard, which is not installed. Run "
            f"`{shlex.quote(sys.executable)} -m pip install tensorboard`, or leave out the flag."
        )
    from service.data.folder import read_folder
    from service.training.choose import choose_recipe
    from service.training.recipe import find_recipe

    listed = None if folder is None else read_folder(folder)
    choice = choose_recipe(
        None if listed is None else listed.class_names, name=name, recipe=settings.recipe,
        network=settings.network, teacher=settings.teacher,
    )  # fmt: skip
    recipe = find_recipe(
        choice.recipe, network=settings.network, epochs=settings.epochs, batch_size=settings.batch_size,
        teacher=settings.teacher, begin_with=settings.begin_with,
    )  # fmt: skip
    outliers, held_out = _list_outliers(recipe, settings.outliers)
    _prepare_libraries(recipe)
    model = name or (folder.resolve().name if folder else recipe.model_name or "flowers")
    try:
        check_model_name(model)
    except InvalidParameter as error:
        raise error if name else InvalidParameter(f"{error} Name it with --name.") from None
    with open_messages() as messages, _observing(open_console(messages), tensorboard=tensorboard) as observer:
        with captured_messages():
            from service.training.distributed import open_cluster
            from service.training.keras_settings import can_export, reset_keras_settings
            from service.training.train import list_devices

            reset_keras_settings()
            cluster = open_cluster(
                os.environ.get("TF_CONFIG"), recipe, device=settings.device, is_budgeted=settings.minutes is not None
            )
            if can_export():  # a library that is missing is missed now
                import_module("service.training.export.version")
            devices = list_devices(settings.device)
        # TensorFlow imports code that it generates in the temporary folder. It deletes the code, but not its byte code.
        sys.dont_write_bytecode = True
        for backbone in recipe.backbones:  # before the photographs are fetched and checked
            from service.networks.backbones import load_backbone

            load_backbone(backbone)
        if listed is None:
            from service.data.fetch import FLOWER_PHOTOS, fetch

            listed = read_folder(fetch(FLOWER_PHOTOS, settings.cache, observer.fetching))
        used = devices if recipe.every_device and cluster.num_processes == 1 else devices[:1]
        results = _train(
            listed, model, recipe, used, settings, observer, outliers, held_out, again=again, began=began,
            why=choice.why, take=take, cluster=cluster,
        )  # fmt: skip
    if json:
        print(to_json(results))
    elif results:
        print_trained(results)
    return 0


@contextmanager
def _observing(console: "Console", *, tensorboard: bool) -> Iterator[ProgressObserver]:
    """Show the progress. Ctrl-C before the training becomes a message."""
    kind = ProgressObserver
    if tensorboard:
        from service.cli.tensorboard import TensorBoardObserver  # here, as its library may be missing

        kind = TensorBoardObserver
    with kind(console) as observer:
        try:
            yield observer
        except KeyboardInterrupt:
            raise TrainingError(
                f"Interrupted ({observer.at}). No training has begun. The same command begins anew."
            ) from None


def _train(
    listed: "Folder", model: str, recipe: "Recipe", devices: list[str], settings: TrainSettings,
    observer: ProgressObserver, outliers: tuple[Path, ...], held_out: dict[str, list[Path]], *, again: bool,
    began: float, why: str, take: bool | None, cluster: "Cluster",
) -> "list[Trained]":  # fmt: skip
    """Check the photographs, and train on each device. Return the versions that were published.

    Each device gets its share of the minutes that are left. Raises `TrainingError` if Ctrl-C came before there was
    anything to publish.
    """
    from service.data.cache import PixelCache
    from service.data.dataset import open_dataset
    from service.imaging.limits import ImageLimits
    from service.store.publish import check_can_publish
    from service.training.kept import describe_kept
    from service.training.plan import Budget
    from service.training.run import name_run, open_run
    from service.training.train import train

    store = require_folder(settings.model_store, "train")
    check_can_publish(store, model)
    limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
    folder = Path(os.path.expanduser(settings.cache), "decoded")  # noqa: PTH111 - no error without a home folder
    cache = PixelCache(folder, settings.max_decoded_bytes)
    dataset = open_dataset(listed, settings.seed, limits, cache=cache, checking=observer.checking, found=observer.found)
    dataset = replace(dataset, outliers=outliers, held_out_sources=held_out)
    observer.checked(dataset.check, dataset.split)
    if dataset.is_larger_than_memory:
        observer.say(f"The decoded photographs do not fit into memory. They are kept in {folder}.")
    results: list[Trained] = []
    minutes = settings.minutes
    for number, device in enumerate(devices):
        run_name = name_run(model, recipe, dataset, device, minutes)
        budget = None
        if minutes is not None:
            now = time.monotonic()
            budget = Budget((minutes - (now - began) / 60) / (len(devices) - number), now)
        with open_run(
            settings.runs, run_name, model=model, store=store, device=device, again=again, cluster=cluster
        ) as run:
            observer.began(run.folder)
            try:
                result = train(dataset, recipe, run, observer, why=why, budget=budget, take=take)
            except KeyboardInterrupt:
                interrupted = f"Interrupted ({observer.at}). {describe_kept(run)}"
                if not results:
                    raise TrainingError(interrupted) from None
                observer.say(interrupted)
                break
        results += [result] if result else []
    return results


def _list_outliers(recipe: "Recipe", folder: Path | None) -> tuple[tuple[Path, ...], dict[str, list[Path]]]:
    """List the outliers that a recipe takes from a folder, and its held-out sources. None means no folder."""
    from service.data.outliers import list_outliers
    from service.training.recipe import AlexNetRecipe

    if folder is None:
        return (), {}
    if not isinstance(recipe, AlexNetRecipe):
        raise SettingsError(f"--outliers is for an AlexNet. Leave it out, or take another recipe than {recipe.name}.")
    sources = list_outliers(folder, without=recipe.held_out_sources, most=recipe.most_of_source)
    learned = tuple(path for paths in sources.values() for path in paths)
    return learned, {name: paths for name, paths in list_outliers(folder).items() if name in recipe.held_out_sources}


def _prepare_libraries(recipe: "Recipe") -> None:
    # The export is TensorFlow's. A backend that the user has chosen for other programs has no effect, unless the recipe
    # is made for it.
    has_tensorflow, has_jax = (find_spec(library) is not None for library in ("tensorflow", "jax"))
    is_wanted = recipe.is_for_jax and os.environ.get("KERAS_BACKEND") == "jax"
    os.environ["KERAS_BACKEND"] = "jax" if has_jax and (is_wanted or not has_tensorflow) else "tensorflow"
    # Read when TensorFlow is imported: no chatter before our own lines, no seizing of the GPU's whole memory.
    limit_tensorflow_log(3)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # it warns of each network that is traced anew
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
