"""The card of a version, with and without what a version may lack."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from support.versions import example_metadata

from service.cli.model_tables import to_card
from service.store.metadata import BackboneSource, Confidence, CpuModel, Network, SourceConfidence
from service.store.versions import StoredVersion

STORED = StoredVersion("flowers", 8, Path("store/flowers/8"), pinned=False)


def read_card(stored: StoredVersion = STORED, *, is_newest: bool = True, **changes: Any) -> dict[str, str]:
    """The rows of the card, by their names."""
    console = Console(width=200)
    with console.capture() as capture:
        console.print(to_card(stored, example_metadata(**changes), is_newest=is_newest))
    rows = [line.strip("│").split("│") for line in capture.get().splitlines() if "│" in line]
    return {name.strip(): value.strip() for name, value in rows}


def test_a_card_has_eleven_rows() -> None:
    assert read_card() == {
        "model": "flowers, version 8 (newest)",
        "folder": "store/flowers/8",
        "created": "2026-01-02 03:04",
        "classes": "5: daisy, dandelion, roses, sunflowers, tulips",
        "network": "alexnet_v2, 5,797,317 parameters",
        "recipe": "example, seed 0",
        "accuracy": "85.0% of 20 photographs (test), 95 % interval 64.0-94.8 %",
        "calibration": "error 5.0%",
        "confident": "probability from 0.5",
        "is confident": "not counted",
        "engines": "savedmodel",
    }


@pytest.mark.parametrize(
    ("stored", "is_newest", "state"),
    [
        (replace(STORED, pinned=True), True, " (pinned)"),
        (replace(STORED, is_candidate=True), False, " (candidate)"),
        (STORED, False, ""),
    ],
)
def test_a_card_tells_the_state(stored: StoredVersion, is_newest: bool, state: str) -> None:
    assert read_card(stored, is_newest=is_newest)["model"] == f"flowers, version 8{state}"


def test_a_card_tells_backbone_limits_and_engines() -> None:
    source = BackboneSource(weights="lite0 0.1", weights_sha256="5" * 64, learned_from="ImageNet", licence="Apache-2.0")
    figures: dict[str, Any] = {"num_photographs": 9, "same_top1": 1, "accuracy": 1, "accuracy_of_saved_model": 1}
    figures |= {"difference_p99": 0, "difference_max": 0}
    card = read_card(
        network=Network(name="lite0", num_classes=5, num_parameters=7, backbone=source), max_energy=-1.25,
        max_distance=30.0, metrics=[],
        cpu_models=[
            CpuModel(precision="float32", refused=None, **figures), CpuModel(precision="int8", refused="no", **figures)
        ],
    )  # fmt: skip
    assert card["network"] == "lite0, 7 parameters, began with lite0 0.1"
    assert card["confident"] == "probability from 0.5, energy to -1.25, distance to 30"
    assert card["engines"] == "savedmodel, onnxruntime float32"
    assert (card["accuracy"], card["calibration"]) == ("not measured", "not measured")


def test_a_card_counts_confident_answers() -> None:
    counts = {"num_photographs": 20, "num_confident": 18, "num_errors": 3, "num_confident_errors": 2}
    others = [SourceConfidence(source=name, num_images=10, num_confident=1) for name in ("cars", "dogs")]
    told = "18 of 20 photographs (test), 2 of 3 errors"
    alone, beside = (Confidence(**counts, none_of_these=sources) for sources in ([], others))
    assert read_card(confidence=alone)["is confident"] == told
    assert read_card(confidence=beside)["is confident"] == f"{told}, 2 of 20 images of none of the classes"
