"""`flowers models`: what is in the store, whether it is sound, and which version is served."""

import json
import sys
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from service.cli.terminal import print_result
from service.errors import InvalidVersion, ModelNotFound, StoreError, UsageError
from service.settings import StoreSettings
from service.store.layout import METADATA_FILE, parse_version
from service.store.metadata import Metadata, read_metadata
from service.store.resolve import (
    StoredVersion,
    list_models,
    list_versions,
    pin_version,
    remove_version,
    resolve_version,
    unpin,
)
from service.store.verify import verify_version

models = App(name="models", version_flags=[], help="The store: list, show, verify, use and remove versions.")

AsJson = Annotated[bool, Parameter(name="--json", negative="")]


@models.command(name="list")
def list_(*, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """List the versions of every model, or of the one that --model names, oldest first.

    Args:
        as_json: print a JSON list instead of a table.
    """
    settings = settings or StoreSettings()
    names = [settings.model] if "model" in settings.model_fields_set else list_models(settings.model_store)
    rows = [row for name in names for row in _list_model(settings, name)]
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif rows:
        print_result(_list_table(rows))
    else:
        raise ModelNotFound(
            f"there is no model in {settings.model_store}: train one with `flowers train`, or name another "
            "folder with --model-store"
        )
    return 0


@models.command
def show(version: str | None = None, /, *, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """Show what a version says of itself.

    Args:
        version: its number; without one, the version that is served.
        as_json: print its metadata.json instead of a table.
    """
    settings = settings or StoreSettings()
    stored = resolve_version(settings.model_store, settings.model, _number(version))
    metadata = read_metadata(stored.folder / METADATA_FILE)
    if as_json:
        print(metadata.model_dump_json(indent=2))
    else:
        print_result(_show_table(stored, metadata))
    return 0


@models.command
def verify(version: str | None = None, /, *, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """Check every file of a version against its SHA256SUMS; exit code 1 if one is not what was published.

    Args:
        version: its number; without one, every version of the model.
        as_json: print a JSON list instead of sentences.
    """
    settings = settings or StoreSettings()
    store, model, number = settings.model_store, settings.model, _number(version)
    numbers = list_versions(store, model) if number is None else [number]
    problems = {number: _find_problem(resolve_version(store, model, number)) for number in numbers}
    if as_json:
        rows = [{"model": model, "version": number, "problem": problem} for number, problem in problems.items()]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        for number, problem in problems.items():
            print(problem or f"version {number} of {model} is what was published")
    return 1 if any(problems.values()) else 0


@models.command
def use(version: str, /, *, settings: StoreSettings | None = None) -> int:
    """Pin the version to serve, after verifying it; a running service switches by itself.

    Args:
        version: its number, or `latest` to serve the newest again.
    """
    settings = settings or StoreSettings()
    store, model = settings.model_store, settings.model
    if version == "latest":
        unpin(store, model)
        print(f"{model} serves its newest version, {resolve_version(store, model).version}")
        return 0
    number = _number(version)
    assert number is not None
    verify_version(resolve_version(store, model, number).folder)
    pin_version(store, model, number)
    print(f"{model} serves version {number} until `flowers models use latest`")
    return 0


@models.command
def remove(
    version: str,
    /,
    *,
    settings: StoreSettings | None = None,
    force: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Delete a version; its number is never given again.

    Args:
        version: its number.
        force: delete it even if it is the one that is served.
    """
    settings = settings or StoreSettings()
    number = _number(version)
    assert number is not None
    remove_version(settings.model_store, settings.model, number, force=force)
    print(f"version {number} of {settings.model} is removed")
    return 0


def _number(text: str | None) -> int | None:
    number = None if text is None else parse_version(text)
    if text is not None and number is None:
        raise UsageError(f"{text!r} is no version: give its number, as `flowers models list` shows it")
    return number


def _find_problem(stored: StoredVersion) -> str | None:
    try:
        verify_version(stored.folder)
    except InvalidVersion as error:
        return str(error)
    return None


def _list_model(settings: StoreSettings, model: str) -> list[dict[str, Any]]:
    store = settings.model_store
    versions = list_versions(store, model)
    try:
        live = resolve_version(store, model)
    except StoreError as error:  # a pin that leads nowhere hides no version
        print(f"flowers: {error}", file=sys.stderr)
        live = None
    return [_row(resolve_version(store, model, version), live) for version in versions]


def _row(stored: StoredVersion, live: StoredVersion | None) -> dict[str, Any]:
    row = {
        "model": stored.model,
        "version": stored.version,
        "is_live": stored == live,
        "is_pinned": stored.pinned,
        "created": None,
        "network": None,
        "accuracy": None,
        "part": None,
        "size_bytes": sum(path.stat().st_size for path in stored.folder.rglob("*") if path.is_file()),
        "problem": None,
    }
    try:
        metadata = read_metadata(stored.folder / METADATA_FILE)
    except InvalidVersion as error:
        return {**row, "problem": str(error)}
    stated = metadata.stated
    return {
        **row,
        "created": metadata.created.isoformat(),
        "network": metadata.network.name,
        "accuracy": stated.accuracy if stated else None,
        "part": stated.part if stated else None,
    }


def _list_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("model", "version", "serves", "created", "network", "accuracy", "size")
    for row in rows:
        state = ("pinned" if row["is_pinned"] else "live") if row["is_live"] else ""
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1%} on {row['part']}"
        created = "cannot be read" if row["problem"] else row["created"][:16].replace("T", " ")
        size = f"{row['size_bytes'] / 1e6:.1f} MB"
        network = Text(row["network"] or "")
        table.add_row(row["model"], str(row["version"]), state, created, network, accuracy, size)
    return table


def _show_table(stored: StoredVersion, metadata: Metadata) -> Table:
    table = Table(show_header=False)
    table.add_row("folder", Text(f"{stored.folder}{' (pinned)' if stored.pinned else ''}"))
    for name, value in metadata.model_dump(mode="json").items():
        table.add_row(name.replace("_", " "), Text(_as_text(value)))
    return table


def _as_text(value: Any) -> str:
    """A value of the metadata on few lines: lists of records one a line, other lists and records in one."""
    match value:
        case [dict(), *_]:
            return "\n".join(map(_as_text, value))
        case list():
            return ", ".join(map(_as_text, value))
        case dict():
            return ", ".join(f"{name} {_as_text(item)}" for name, item in value.items())
        case float():
            return f"{value:.4g}"
    return str(value)
