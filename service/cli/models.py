"""`flowers models`: list, show, verify, pin, take, remove, pack and pull versions."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from service.cli.archives import pack, pull
from service.cli.help import describe_usage
from service.cli.model_tables import list_take_commands, to_card, to_list
from service.cli.remote import fetch_store, require_folder
from service.cli.terminal import complain, print_json, print_result, printable
from service.cli.version_number import read_number
from service.errors import InvalidVersion, StoreError
from service.settings import StoreSettings
from service.store import versions
from service.store.candidates import take_candidate
from service.store.layout import METADATA_FILE, version_command
from service.store.manage import pin_version, remove_version, unpin
from service.store.metadata import read_metadata
from service.store.verify import verify_version
from service.store.versions import FoundVersion, StoredVersion

models = App(
    name="models", version_flags=[], help="Look after the versions in the store.", usage=describe_usage("models")
)

models.command(pack)
models.command(pull)

AsJson = Annotated[bool, Parameter(name="--json", negative="")]


@models.command(name="list")
def list_(*, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """List the versions and candidates of every model, or of the one that --model names, oldest first.

    Args:
        as_json: Print a JSON list instead of a table.
    """
    settings = settings or StoreSettings()
    store = fetch_store(settings)
    names = [settings.model] if "model" in settings.model_fields_set else versions.list_models(store)
    rows = [row for name in names for row in _list_model(store, name)]
    if not rows:
        complain(
            f"There is no model in {store.absolute()}. Train one with `flowers train`, or name another "
            "folder with --model-store."
        )
    if as_json:
        print_json(rows, indent=2)
    elif rows:
        print_result(to_list(rows))
        for command in list_take_commands(rows):
            print(f"No service serves a candidate. Take one with `{command}`.")
    return 0


@models.command
def show(version: str | None = None, /, *, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """Show the metadata of a version or a candidate, after verifying it.

    Args:
        version: Its number. Without it, the version that is served.
        as_json: Print its metadata.json, which says more.
    """
    settings = settings or StoreSettings()
    number = None if version is None else read_number(version)
    store = fetch_store(settings, number)
    stored = versions.find_version(store, settings.model, number)
    metadata = verify_version(stored.folder).metadata
    if as_json:
        print_json(metadata.model_dump(mode="json"), indent=2)
    else:
        is_newest = stored in versions.list_stored(store, settings.model)[-1:]
        print_result(to_card(stored, metadata, is_newest=is_newest))
    return 0


@models.command
def verify(version: str | None = None, /, *, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """Compare every file of a version or a candidate with its SHA256SUMS. The exit code is 1 if one differs.

    Args:
        version: Its number. Without it, every version and candidate of the model.
        as_json: Print a JSON list instead of sentences.
    """
    settings = settings or StoreSettings()
    number = None if version is None else read_number(version)
    store, model = fetch_store(settings, number), settings.model
    chosen = _list_all(store, model) if number is None else [versions.find_version(store, model, number)]
    rows = [{"model": model, "version": stored.version, "problem": _find_problem(stored)} for stored in chosen]
    if as_json:
        print_json(rows, indent=2)
    else:
        for row in rows:
            sound = f"Version {row['version']} of {model} is what was published."
            print(printable(str(row["problem"] or sound)))
    return 1 if any(row["problem"] for row in rows) else 0


@models.command
def use(version: str, /, *, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """Pin the version to serve, after verifying it. A running service switches by itself.

    Args:
        version: Its number, or `latest` to serve the newest again.
        as_json: Print a JSON object instead of a sentence.
    """
    settings = settings or StoreSettings()
    store, model = require_folder(settings.model_store, "models use"), settings.model
    if version == "latest":
        unpin(store, model)
        served = _find_served(store, model)
        number = served.stored.version if served.stored else None
        newest = "newest version that is sound" if served.damaged else "newest version"
        done = f"{model} serves its {newest}, {number}." if number else f"{model} is unpinned. It has no sound version."
    else:
        number = read_number(version)
        verify_version(versions.resolve_version(store, model, number).folder)
        pin_version(store, model, number)
        done = f"{model} serves version {number} until `flowers models use latest`."
    print(json.dumps({"model": model, "version": number, "is_pinned": version != "latest"}) if as_json else done)
    return 0


@models.command
def take(version: str, /, *, settings: StoreSettings | None = None, as_json: AsJson = False) -> int:
    """Make a candidate a version, after verifying it. A running service switches by itself if it is the one to serve.

    Args:
        version: Its number. It stays the same.
        as_json: Print a JSON object instead of sentences.
    """
    settings = settings or StoreSettings()
    number, model = read_number(version), settings.model
    store = require_folder(settings.model_store, "models take")
    take_candidate(store, model, number)
    served = _find_served_or_complain(store, model).stored
    live_version = served.version if served else None
    done = f"Version {number} of {model} is taken."
    if live_version == number:
        done += " A running service switches to it by itself."
    else:
        serves = (
            f"{model} serves version {live_version} instead" if served else f"The pin of {model} names no sound version"
        )
        done += f" {serves}. Serve {number} with `{version_command('use', model, number)}`."
    document = {"model": model, "version": number, "is_live": live_version == number, "live_version": live_version}
    print(json.dumps(document) if as_json else done)
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
    """Delete a version or a candidate. Its number is never given again.

    Args:
        version: Its number.
        force: Delete it even if it is pinned or the one that is served.
        as_json: Print a JSON object instead of a sentence.
    """
    settings = settings or StoreSettings()
    number, model = read_number(version), settings.model
    remove_version(require_folder(settings.model_store, "models remove"), model, number, force=force)
    done = f"Version {number} of {model} is removed."
    print(json.dumps({"model": model, "version": number, "is_removed": True}) if as_json else done)
    return 0


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


def _find_served_or_complain(store: Path, model: str) -> FoundVersion:
    """Find the served version. Without any, as with a pin that leads nowhere, the reason goes to stderr."""
    try:
        return _find_served(store, model)
    except StoreError as error:
        complain(str(error))
        return FoundVersion(None)


def _list_all(store: Path, model: str) -> list[StoredVersion]:
    """List versions and candidates, oldest first. Raises as `list_versions` if there is none of either."""
    found = [*versions.list_stored(store, model), *versions.list_candidates(store, model)]
    if not found:
        versions.list_versions(store, model)
    return sorted(found, key=lambda stored: stored.version)


def _list_model(store: Path, model: str) -> list[dict[str, Any]]:
    found = _list_all(store, model)
    has_versions = not all(stored.is_candidate for stored in found)
    served = _find_served_or_complain(store, model) if has_versions else FoundVersion(None)
    return [_row(stored, served) for stored in found]


def _row(stored: StoredVersion, served: FoundVersion) -> dict[str, Any]:
    problem, metadata = served.damaged.get(stored.version), None
    try:
        metadata = read_metadata(stored.folder / METADATA_FILE)
    except InvalidVersion as error:
        problem = problem or str(error)
    stated = metadata.stated if metadata else None
    is_live = stored == served.stored
    states = {
        "damaged": problem is not None,
        "candidate": stored.is_candidate,
        "pinned": stored.pinned,
        "live": is_live,
        "version": True,
    }
    return {
        "model": stored.model,
        "version": stored.version,
        "state": next(state for state, holds in states.items() if holds),
        "is_live": is_live,
        "is_pinned": stored.pinned,
        "is_candidate": stored.is_candidate,
        "created": metadata.created.isoformat() if metadata else None,
        "network": metadata.network.name if metadata else None,
        "accuracy": stated.accuracy if stated else None,
        "part": stated.part if stated else None,
        "size_bytes": sum(path.stat().st_size for path in stored.folder.rglob("*") if path.is_file()),
        "problem": problem,
    }
