"""`flowers predict FILE_OR_FOLDER...`: scores for files, by a model in the store or by a running service."""

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from service.cli.remote import HeaderLines, Row, Score, check_headers, predict_remotely
from service.cli.terminal import print_json, print_result, printable, progress_bar
from service.errors import InvalidParameter, UsageError
from service.evaluation.local_model import LocalModel, open_local_model
from service.evaluation.score import Scored, score_each
from service.imaging.pixels import ImageLimits
from service.settings import EngineSettings

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp"),
    *(".gif", ".bmp", ".tif", ".tiff", ".avif"),
)
"""What is taken from a folder. A file that is named is taken whatever its name: its content decides."""


def predict(
    *paths: Path,
    url: str | None = None,
    header: HeaderLines = (),
    top_k: int | None = None,
    output_format: Annotated[Literal["table", "json", "csv"], Parameter(name="--format")] = "table",
    settings: EngineSettings | None = None,
) -> int:
    """Score photographs; a bad file spoils only its own row, and makes the exit code 1.

    Args:
        paths: photographs, and folders of them with all that lies below.
        url: ask a running service, such as http://localhost:8000, instead of a model in the store.
        header: a line sent with each request to --url, such as "X-API-Key: ...".
        top_k: how many classes to print; without it, all.
        output_format: how to print them.
    """
    settings = settings or EngineSettings()
    if header and url is None:
        raise UsageError("--header goes with --url: a model in the store is asked without HTTP")
    check_headers(header)
    files = _find_files(paths)
    rows = []
    answers = _predict_locally(files, top_k, settings) if url is None else predict_remotely(files, top_k, url, header)
    with progress_bar("scoring") as progress:
        for row in answers:
            rows.append(row)
            progress(len(rows), len(files))
    {"table": _print_table, "json": _print_json, "csv": _print_csv}[output_format](rows)
    return 1 if any(row.error for row in rows) else 0


def _find_files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = [file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith(".")]
            photographs = [file for file in below if file.suffix.lower() in IMAGE_SUFFIXES]
            if len(photographs) < len(below):
                others = len(below) - len(photographs)
                print(
                    f"flowers: left out of {printable(str(path))}: {others} files not named like images",
                    file=sys.stderr,
                )
            files += photographs
        else:
            files.append(path)
    if not files:
        raise UsageError("there is no photograph to score: name files, or folders that hold some")
    return files


def _predict_locally(files: Sequence[Path], top_k: int | None, settings: EngineSettings) -> Iterator[Row]:
    with open_local_model(
        settings.model_store,
        settings.model,
        None,
        engine=settings.engine,
        device=settings.device,
        precision=settings.precision,
        threads=settings.engine_threads,
        gpu_memory_limit_mb=settings.gpu_memory_limit_mb,
    ) as local:
        num_classes = len(local.metadata.class_names)
        if top_k is not None and not 1 <= top_k <= num_classes:
            raise InvalidParameter(
                f"--top-k is {top_k}; this model has {num_classes} classes: ask for 1 to {num_classes}"
            )
        limits = ImageLimits(settings.max_image_bytes, settings.max_image_pixels)
        for scored in score_each(local.engine, files, local.rule, limits, decode_threads=settings.decode_threads):
            yield _rank(local, scored, top_k)


def _rank(local: LocalModel, scored: Scored, top_k: int | None) -> Row:
    """As the service ranks and prints: equals in the order of classes, the shortest decimal of a float32."""
    if scored.probabilities is None:
        return Row(scored.path, error=str(scored.error))
    best_first = np.argsort(-scored.probabilities, kind="stable")[:top_k]
    scores = tuple(
        Score(local.metadata.class_names[index], float(str(scored.probabilities[index]))) for index in best_first
    )
    return Row(scored.path, scores, scores[0].probability >= local.metadata.confidence_threshold)


def _print_table(rows: Sequence[Row]) -> None:
    table = Table("file", "label", "probability", "then")
    for row in rows:
        if row.error:
            table.add_row(Text(_printable(row.path)), "", "", Text(f"error: {row.error}"))
            continue
        best, *others = row.scores
        then = ", ".join(f"{score.label} {score.probability:.1%}" for score in others)
        probability = f"{best.probability:.1%}{'' if row.confident else ', unsure'}"
        table.add_row(*map(Text, (_printable(row.path), best.label, probability, then)))
    print_result(table)


def _print_json(rows: Sequence[Row]) -> None:
    documents = [
        {
            "file": _printable(row.path),
            "label": row.scores[0].label if row.scores else None,
            "probability": row.scores[0].probability if row.scores else None,
            "confident": row.confident,
            "predictions": [vars(score) for score in row.scores],
            "error": row.error,
        }
        for row in rows
    ]
    print_json(documents, indent=2)


def _print_csv(rows: Sequence[Row]) -> None:
    num_ranks = max(1, *(len(row.scores) for row in rows))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    ranks = (f"{name}_{rank}" for rank in range(1, num_ranks + 1) for name in ("label", "probability"))
    writer.writerow(["file", "error", "confident", *ranks])
    for row in rows:
        confident = "" if row.confident is None else str(row.confident).lower()
        cells = [cell for score in row.scores for cell in (score.label, score.probability)]
        cells += [""] * (2 * num_ranks - len(cells))
        writer.writerow([_printable(row.path), row.error or "", confident, *cells])


def _printable(path: Path) -> str:
    """A file name need not be UTF-8; the output is."""
    return os.fsencode(path).decode("utf-8", "replace")
