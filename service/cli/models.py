"""`flowers models`: list, show, verify, pin and remove versions."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table
from rich.text import Text

from service.cli.terminal import as_text, complain, print_json, print_result, printable
from service.errors import InvalidVersion, StoreError, UsageError
from service.settings import StoreSettings
from service.store import versions
from service.store.layout import METADATA_FILE, parse_version
from service.store.manage import pin_version, remove_version, unpin
from service.store.metadata import Metadata, read_metadata
from service.store.verify import verify_version
from service.store.versions import FoundVersion, StoredVersion

models = App(name="models", version_flags=[], help="The store: list, show, verify, use and remove versions.")

AsJson = Annotated[bool, Parameter(name="--json", negative="")]


@models.command(name="list")
def list_(*, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """List the versions of every model, or of the one that --model names, oldest first.

    Args:
        as_json: Print a JSON list instead of a table.
    """
    settings = settings or StoreSettings()
    names = [settings.model] if "model" in settings.model_fields_set else versions.list_models(settings.model_store)
    rows = [row for name in names for row in _list_model(settings, name)]
    if not rows:
        complain(
            f"There is no model in {settings.model_store.absolute()}. Train one with `flowers train`, or name another "
            "folder with --model-store."
        )
    if as_json:
        print_json(rows, indent=2)
    elif rows:
        print_result(_list_table(rows))
    return 0


@models.command
def show(version: str | None = None, /, *, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """Show the metadata of a version, after verifying it.

    Args:
        version: Its number. Without it, the version that is served.
        as_json: Print its metadata.json instead of a table.
    """
    settings = settings or StoreSettings()
    stored = versions.find_version(settings.model_store, settings.model, None if version is None else _number(version))
    metadata = verify_version(stored.folder).metadata
    if as_json:
        print_json(metadata.model_dump(mode="json"), indent=2)
    else:
        print_result(_show_table(stored, metadata))
    return 0


@models.command
def verify(version: str | None = None, /, *, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """Compare every file of a version with its SHA256SUMS. The exit code is 1 if one differs.

    Args:
        version: Its number. Without it, every version of the model.
        as_json: Print a JSON list instead of sentences.
    """
    settings = settings or StoreSettings()
    store, model = settings.model_store, settings.model
    if version is None:
        versions.list_versions(store, model)  # raises if there is none
        chosen = versions.list_stored(store, model)
    else:
        chosen = [versions.resolve_version(store, model, _number(version))]
    problems = {stored.version: _find_problem(stored) for stored in chosen}
    if as_json:
        rows = [{"model": model, "version": number, "problem": problem} for number, problem in problems.items()]
        print_json(rows, indent=2)
    else:
        for number, problem in problems.items():
            print(printable(problem) if problem else f"Version {number} of {model} is what was published.")
    return 1 if any(problems.values()) else 0


@models.command
def use(version: str, /, *, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """Pin the version to serve, after verifying it. A running service switches by itself.

    Args:
        version: Its number, or `latest` to serve the newest again.
        as_json: Print a JSON object instead of a sentence.
    """
    settings = settings or StoreSettings()
    store, model = settings.model_store, settings.model
    if version == "latest":
        unpin(store, model)
        served = _find_served(store, model)
        number = served.stored.version if served.stored else None
        newest = "newest version that is sound" if served.damaged else "newest version"
        done = f"{model} serves its {newest}, {number}." if number else f"{model} is unpinned. It has no sound version."
    else:
        number = _number(version)
        verify_version(versions.resolve_version(store, model, number).folder)
        pin_version(store, model, number)
        done = f"{model} serves version {number} until `flowers models use latest`."
    print(json.dumps({"model": model, "version": number, "is_pinned": version != "latest"}) if as_json else done)
    return 0


@models.command
def remove(
    version: str,
    /,
    *,
    settings: StoreSettings | None = None,
    force: Annotated[bool, Parameter(negative="")] = False,
    as_json: AsJson = False,
) -> int:
    """Delete a version. Its number is never given again.

    Args:
        version: Its number.
        force: Delete it even if it is pinned or the one that is served.
        as_json: Print a JSON object instead of a sentence.
    """
    settings = settings or StoreSettings()
    number, model = _number(version), settings.model
    remove_version(settings.model_store, model, number, force=force)
    done = f"Version {number} of {model} is removed."
    print(json.dumps({"model": model, "version": number, "is_removed": True}) if as_json else done)
    return 0


def _number(text: str) -> int:
    number = parse_version(text)
    if number is None:
        raise UsageError(f"{text!r} is no version. Give its number, as `flowers models list` shows it.")
    return number


def _find_problem(stored: StoredVersion) -> str | None:
    try:
        verify_version(stored.folder)
    except InvalidVersion as error:
        return str(error)
    return None


def _find_served(store: Path, model: str) -> FoundVersion:
    """Find the version that a service takes. Those it passes over are named on stderr, with the reason."""
    served = versions.find_served(store, model)
    for problem in served.damaged.values():
        complain(f"Model {model} passes over a version. {problem}")
    return served


def _list_model(settings: StoreSettings, model: str) -> list[dict[str, Any]]:
    store = settings.model_store
    versions.list_versions(store, model)  # raises if there is none
    try:
        served = _find_served(store, model)
    except StoreError as error:  # a pin that leads nowhere hides no version
        complain(str(error))
        served = FoundVersion(None)
    return [_row(stored, served) for stored in versions.list_stored(store, model)]


def _row(stored: StoredVersion, served: FoundVersion) -> dict[str, Any]:
    problem, metadata = served.damaged.get(stored.version), None
    try:
        metadata = read_metadata(stored.folder / METADATA_FILE)
    except InvalidVersion as error:
        problem = problem or str(error)
    stated = metadata.stated if metadata else None
    return {
        "model": stored.model,
        "version": stored.version,
        "is_live": stored == served.stored,
        "is_pinned": stored.pinned,
        "created": metadata.created.isoformat() if metadata else None,
        "network": metadata.network.name if metadata else None,
        "accuracy": stated.accuracy if stated else None,
        "part": stated.part if stated else None,
        "size_bytes": sum(path.stat().st_size for path in stored.folder.rglob("*") if path.is_file()),
        "problem": problem,
    }


def _list_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("model", "version", "serves", "created", "network", "accuracy", "size")
    for row in rows:
        is_live = row["is_live"] and not row["is_pinned"]
        states = {"pinned": row["is_pinned"], "live": is_live, "damaged": row["problem"]}
        state = ", ".join(word for word, holds in states.items() if holds)
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1%} on {row['part']}"
        created = "cannot be read" if row["created"] is None else row["created"][:16].replace("T", " ")
        size = f"{row['size_bytes'] / 1e6:.1f} MB"
        network = Text(row["network"] or "")
        table.add_row(row["model"], str(row["version"]), state, created, network, accuracy, size)
    return table


def _show_table(stored: StoredVersion, metadata: Metadata) -> Table:
    table = Table(show_header=False)
    table.add_row("folder", Text(f"{stored.folder}{' (pinned)' if stored.pinned else ''}"))
    for name, value in metadata.model_dump(mode="json").items():
        table.add_row(name.replace("_", " "), Text(as_text(value, is_compact=True)))
    return table
