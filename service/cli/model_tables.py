"""Tables of `flowers models`: the versions of a store, and the card of one."""

from typing import Any

from rich.table import Table
from rich.text import Text

from service.store.layout import version_command
from service.store.metadata import Confidence, Metadata, PartMetrics
from service.store.versions import StoredVersion


def to_list(rows: list[dict[str, Any]]) -> Table:
    """Return a table of the documents of `flowers models list --json`."""
    table = Table("model", "version", "state", "created", "network", "accuracy", "size")
    for row in rows:
        # A service may run with another store, or not at all. So the table does not call a version live.
        state = {"version": "", "live": "newest"}.get(row["state"], row["state"])
        if state == "damaged":
            kinds = {"pinned": row["is_pinned"], "candidate": row["is_candidate"], "damaged": True}
            state = ", ".join(word for word, holds in kinds.items() if holds)
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1%} {row['part']}"
        created = "cannot be read" if row["created"] is None else row["created"][:10]
        size = f"{row['size_bytes'] / 1e6:.1f} MB"
        network = Text(row["network"] or "")
        table.add_row(row["model"], str(row["version"]), state, created, network, accuracy, size)
    return table


def list_take_commands(rows: list[dict[str, Any]]) -> list[str]:
    """List the command that takes the newest sound candidate of each model."""
    newest = {row["model"]: row["version"] for row in rows if row["state"] == "candidate"}
    return [version_command("take", model, version) for model, version in newest.items()]


def to_card(stored: StoredVersion, metadata: Metadata, *, is_newest: bool) -> Table:
    """Return a table of eleven rows on one version or candidate."""
    states = {"candidate": stored.is_candidate, "pinned": stored.pinned, "newest": is_newest}
    state = next((f" ({state})" for state, holds in states.items() if holds), "")
    network, stated = metadata.network, metadata.stated
    precisions = [model.precision for model in metadata.cpu_models if not model.refused]
    limits = {
        "probability from": metadata.confidence_threshold,
        "energy to": metadata.max_energy,
        "distance to": metadata.max_distance,
    }
    rows = {
        "model": f"{stored.model}, version {stored.version}{state}",
        "folder": str(stored.folder),
        "created": f"{metadata.created:%Y-%m-%d %H:%M}",
        "classes": f"{len(metadata.class_names)}: {', '.join(metadata.class_names)}",
        "network": f"{network.name}, {network.num_parameters:,} parameters"
        + (f", began with {network.backbone.weights}" if network.backbone else ""),
        "recipe": f"{metadata.recipe.get('name', 'unknown')}, seed {metadata.recipe.get('seed', 'unknown')}",
        "accuracy": "not measured" if stated is None else _describe_accuracy(stated),
        "calibration": "not measured" if stated is None else f"error {stated.expected_calibration_error:.1%}",
        "confident": ", ".join(f"{name} {limit:.3g}" for name, limit in limits.items() if limit is not None),
        "is confident": "not counted" if metadata.confidence is None else _describe_confidence(metadata.confidence),
        "engines": ", ".join(["savedmodel", *(f"onnxruntime {precision}" for precision in precisions)]),
    }
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _describe_confidence(counted: Confidence) -> str:
    num_others, num_confident = (
        sum(getattr(one, name) for one in counted.none_of_these) for name in ("num_images", "num_confident")
    )
    others = f", {num_confident} of {num_others} images of none of the classes" if num_others else ""
    return (
        f"{counted.num_confident} of {counted.num_photographs} photographs (test), "
        f"{counted.num_confident_errors} of {counted.num_errors} errors{others}"
    )


def _describe_accuracy(stated: PartMetrics) -> str:
    return (
        f"{stated.accuracy:.1%} of {stated.num_photographs} photographs ({stated.part}), 95 % interval "
        f"{100 * stated.accuracy_low:.1f}-{100 * stated.accuracy_high:.1f} %"
    )
