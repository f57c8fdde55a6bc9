"""`flowers doctor`: what was found on this machine, and what stands in the way of serving."""

import platform
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from service import __version__
from service.cli.machine import describe_cpu, describe_memory, find_packages
from service.cli.terminal import describe_error, print_json, print_result
from service.engines.choose import Machine, find_gpu_problem, inspect_machine, load_engine
from service.engines.engine import EngineInfo, check_shapes
from service.errors import DeviceUnavailable, FlowersError, SettingsError, StoreError
from service.installation import install_command
from service.settings import ServeSettings, TrainSettings
from service.store.verify import verify_version
from service.store.versions import StoredVersion, list_candidates, list_models, list_versions


@dataclass(frozen=True)
class Finding:
    """A problem and its remedy, one sentence; `is_fatal`: it keeps `flowers serve` from being ready."""

    sentence: str
    is_fatal: bool


@dataclass(frozen=True)
class Trial:
    """What came of loading the model as `flowers serve` would: version and engine, if any, and problems."""

    version: int | None
    engine: EngineInfo | None
    findings: tuple[Finding, ...]


def doctor(
    *,
    settings: ServeSettings | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Say what was found: devices, engines, packages, store, settings; and each problem with its remedy.

    The model that `flowers serve` would take with the same flags is verified, loaded and run once. Exits
    with 1 if that fails, or if the API keys would be refused.

    Args:
        as_json: print JSON instead of a table.
    """
    settings = settings or ServeSettings()
    packages, machine = find_packages(), inspect_machine()
    trial = try_to_serve(settings)
    problems = (*find_environment_problems(packages, machine), *find_key_problems(settings), *trial.findings)
    findings = tuple(dict.fromkeys(problems))
    facts = {
        "version": __version__,
        "python": f"{platform.python_version()} on {platform.platform()}",
        "packages": packages,
        "cpu": describe_cpu(),
        "memory": describe_memory(),
        "gpu": {"driver": machine.driver_gpus, "tensorflow": machine.tensorflow_gpus},
        "store": describe_store(settings.model_store),
        "serves": {"model": settings.model, "version": trial.version},
        "engine": _describe_engine(trial.engine) if trial.engine else None,
        "settings": list_changed_settings(settings),
    }
    if as_json:
        document = {**facts, "problems": [asdict(finding) for finding in findings]}
        print_json(document, indent=2)
    else:
        print_result(_to_table(facts, findings))
    return int(any(finding.is_fatal for finding in findings))


def find_environment_problems(packages: dict[str, str | None], machine: Machine) -> Iterator[Finding]:
    """What is wrong with the installation; whether these settings can be served is the trial's affair."""
    if packages["tensorflow"] and packages["tensorflow-cpu"]:
        yield Finding(
            "tensorflow and tensorflow-cpu are both installed and overwrite each other's files: uninstall "
            f"both, then `{install_command()}`",
            is_fatal=False,
        )
    problem = find_gpu_problem(machine)
    if problem and machine.driver_gpus:
        yield Finding(f"{problem.what}: {problem.remedy}", is_fatal=False)
    if packages["onnxruntime"] is None:
        yield Finding("onnxruntime, which serves on the CPU, is missing: install this package anew", is_fatal=False)


def find_key_problems(settings: ServeSettings) -> Iterator[Finding]:
    """Whether `flowers serve` would refuse the API keys."""
    from service.api.access import read_keys  # brings FastAPI, which nothing else here needs

    try:
        read_keys(settings.api_keys, settings.api_keys_file)
    except SettingsError as error:
        yield Finding(str(error), is_fatal=True)


def try_to_serve(settings: ServeSettings) -> Trial:
    """Verify, load and run what `flowers serve` would: the pinned version, else the newest that is good."""
    findings: list[Finding] = []
    try:
        for stored in list_candidates(settings.model_store, settings.model):
            try:
                engine = _try_version(stored, settings)
            except (DeviceUnavailable, SettingsError):
                raise
            except FlowersError as error:
                findings.append(
                    Finding(f"version {stored.version} cannot be served: {describe_error(error)}", is_fatal=False)
                )
            else:
                if engine.warning:
                    findings.append(Finding(engine.warning, is_fatal=False))
                return Trial(stored.version, engine, tuple(findings))
    except (DeviceUnavailable, SettingsError, StoreError) as error:
        findings.append(Finding(str(error), is_fatal=True))
    else:
        findings.append(
            Finding(
                f"no version of {settings.model} can be served: train one, or copy one here again",
                is_fatal=True,
            )
        )
    return Trial(None, None, tuple(findings))


def _describe_engine(engine: EngineInfo) -> dict[str, str]:
    """Its warning is among the findings."""
    return {name: value for name, value in asdict(engine).items() if name != "warning"}


def _try_version(stored: StoredVersion, settings: ServeSettings) -> EngineInfo:
    verified = verify_version(stored.folder)
    metadata = verified.metadata
    engine = load_engine(
        verified,
        engine=settings.engine,
        device=settings.device,
        precision=settings.precision,
        threads=settings.engine_threads,
        gpu_memory_limit_mb=settings.gpu_memory_limit_mb,
    )
    try:
        check_shapes(engine, stored.version, len(metadata.class_names), metadata.preprocessing.image_size)
        engine.warm_up(1)
        return engine.info
    finally:
        engine.close()


def describe_store(store: Path) -> dict[str, Any]:
    """Where it is and what is in it; that it cannot be read is a finding of the trial."""
    try:
        models = {model: list_versions(store, model) for model in list_models(store)}
    except StoreError:
        models = {}
    return {"folder": str(store.absolute()), "models": models}


def list_changed_settings(settings: ServeSettings) -> dict[str, str]:
    """The settings, of serving and of training, that are not at their default."""
    changed = {}
    for program in (TrainSettings(), settings):
        for name, field in type(program).model_fields.items():
            if getattr(program, name) != field.default:
                changed[name] = str(getattr(program, name))
    return changed


def _to_table(facts: dict[str, Any], findings: tuple[Finding, ...]) -> Table:
    table = Table(show_header=False)
    for name, value in {**facts, "settings": facts["settings"] or "all at their defaults"}.items():
        table.add_row(name, Text(_as_text(value)))
    table.add_section()
    for finding in findings:
        kind = Text("problem", style="red") if finding.is_fatal else Text("warning", style="yellow")
        table.add_row(kind, Text(finding.sentence))
    if not findings:
        table.add_row(Text("problems", style="green"), "none")
    return table


def _as_text(value: Any) -> str:
    match value:
        case dict():
            return "\n".join(f"{name}: {_as_text(item)}" for name, item in value.items()) or "none"
        case list() | tuple():
            return ", ".join(map(_as_text, value)) or "none"
        case None:
            return "none"
    return str(value)
