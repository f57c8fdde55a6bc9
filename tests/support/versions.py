"""Versions for tests of the store: real in all but the network, whose files hold bytes that nobody loads."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.drawing import CLASS_NAMES

from service.store.layout import METADATA_FILE
from service.store.metadata import Metadata, Network, PartMetrics, Preprocessing
from service.store.publish import publish_version


def example_metrics(part: str, num_correct: int, low: float, high: float) -> PartMetrics:
    """So many of twenty are right."""
    return PartMetrics(
        part=part,
        num_photographs=20,
        num_correct=num_correct,
        accuracy=num_correct / 20,
        accuracy_low=low,
        accuracy_high=high,
        expected_calibration_error=0.05,
    )


def example_metadata(**changes: Any) -> Metadata:
    """Valid metadata of a network for the drawn flowers; `changes` replace fields."""
    fields: dict[str, Any] = {
        "model": "flowers",
        "class_names": list(CLASS_NAMES),
        "preprocessing": Preprocessing(scale=1 / 255, offset=0.0),
        "network": Network(name="alexnet_v2", num_classes=len(CLASS_NAMES), num_parameters=5_797_317),
        "recipe": {"name": "example", "seed": 0},
        "data_digest": "d" * 64,
        "split_digest": "5" * 64,
        # Of a version that was trained on the validation part as well: that part tells of another network.
        "metrics": [example_metrics("validation", 14, 0.481, 0.8545), example_metrics("test", 17, 0.6396, 0.9476)],
        "temperature": 1.2,
        "confidence_threshold": 0.5,
        "created": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "libraries": {"tensorflow": "2.21.0"},
    }
    return Metadata(**{**fields, **changes})


def write_example(folder: Path, metadata: Metadata | None = None) -> None:
    """The files of a version into `folder`, all but SHA256SUMS."""
    (folder / "variables").mkdir()
    (folder / METADATA_FILE).parent.mkdir()
    (folder / "saved_model.pb").write_bytes(b"no network")
    (folder / "variables" / "variables.index").write_bytes(bytes(range(256)))
    (folder / METADATA_FILE).write_text((metadata or example_metadata()).model_dump_json(), encoding="utf-8")


def publish_example(store: Path, model: str = "flowers", *, is_candidate: bool = False, **changes: Any) -> int:
    """Publish such a version or candidate; its number. `changes` replace fields of its metadata."""
    with publish_version(store, model) as draft:
        draft.is_candidate = is_candidate
        write_example(draft.folder, example_metadata(model=model, **changes))
    return draft.version
