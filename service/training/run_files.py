"""Files of a run folder: what a training begins with, what it published, and the report."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from service.data.check import DataCheck
from service.data.split import Split, split_to_json
from service.errors import TrainingError
from service.evaluation.folder import FolderEvaluation
from service.evaluation.html_report import Section, render_page, to_section, to_table
from service.imaging.pixels import ImageLimits, ResizeRule
from service.training.checkpoint import Epoch
from service.training.export.version import TrainedNetwork
from service.training.plots import draw_curves
from service.training.recipe import Recipe
from service.training.run import PUBLISHED_FILE


def describe_run(run: Path, recipe: Recipe, seed: int, device: str, check: DataCheck, split: Split) -> None:
    """Write what a training begins with: `recipe.json`, `data_check.json` and `split.json`.

    Raises:
        TrainingError: A file cannot be written.
    """
    _write(run / "recipe.json", {**asdict(recipe), "seed": seed, "device": device})
    set_aside = [asdict(finding) for finding in split.set_aside]
    _write(run / "data_check.json", {**check.to_dict(), "set_aside_by_the_split": set_aside})
    _write_text(run / "split.json", split_to_json(split))


def write_published(
    run: Path,
    trained: TrainedNetwork,
    version: int,
    test: FolderEvaluation,
    history: Sequence[Epoch],
    *,
    is_finished: bool,
    rule: ResizeRule,
    limits: ImageLimits,
) -> None:
    """Write what a training ends with: `history.json`, `published.json` and `report.html`, in this order.

    Raises:
        TrainingError: A file cannot be written.
    """
    published = {
        "model": trained.name, "version": version, "finished": is_finished, "test": test.evaluation.to_dict()
    }  # fmt: skip
    _write(run / "history.json", [asdict(epoch) for epoch in history])
    _write(run / PUBLISHED_FILE, published)
    sections = [
        to_section("Training", draw_curves(history)),
        Section("Recipe", to_table(list(trained.described.items()))),
        Section("Photographs", _describe_data(trained.check, trained.split)),
    ]
    title = f"{trained.name}, version {version}, on the test part"
    page = render_page(title, test.evaluation, test.answers, rule, limits, sections)
    _write_text(run / "report.html", page)


def _describe_data(check: DataCheck, split: Split) -> str:
    sizes = [(part, len(photographs)) for part, photographs in split.photographs.items()]
    findings = [(finding.sentence,) for finding in (*check.findings, *split.set_aside)]
    return to_table(sizes, ("part", "photographs")) + to_table(findings, ("found",))


def _write(path: Path, value: object) -> None:
    _write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def _write_text(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror}") from error
