"""`flowers predict FILE_OR_FOLDER...`: scores of files, by a model in the store or by a running service."""

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.table import Column, Table
from rich.text import Text

from service.api.page import SAMPLES, find_samples
from service.cli.headers import HeaderLines, check_headers, split_headers
from service.cli.predict_ray import predict_with_ray
from service.cli.remote import fetch_store
from service.cli.terminal import complain, print_json, print_result, progress_bar
from service.engines.open_version import open_stored
from service.errors import ClientError, ServiceUnreachable, UsageError
from service.evaluation.copies import check_copies_folder, sort_photographs
from service.evaluation.score import score_each
from service.files import IMAGE_SUFFIXES, list_visible
from service.ranking import Score, check_top_k, rank
from service.settings import ClientSettings, EngineSettings, RaySettings


@dataclass(frozen=True)
class Row:
    """Scores of one file, best first, or its error. `confident` is None with an error.

    `reason` tells why an answer is not confident. An older service does not tell it.
    """

    path: Path
    scores: tuple[Score, ...] = ()
    confident: bool | None = None
    reason: str | None = None
    error: str | None = None


def predict(
    *paths: str,
    sample: Annotated[bool, Parameter(negative="")] = False,
    url: str | None = None,
    header: HeaderLines = (),
    top_k: int | None = None,
    sort_into: Path | None = None,
    ray: Annotated[bool, Parameter(negative="")] = False,
    output: str | None = None,
    output_format: Annotated[Literal["table", "json", "csv"], Parameter(name="--format")] = "table",
    settings: EngineSettings | None = None,
    client_settings: ClientSettings | None = None,
    ray_settings: RaySettings | None = None,
) -> int:
    """Score image files. A bad file spoils only its own row, and makes the exit code 1.

    Args:
        paths: Image files, and folders of them. Files in their subfolders count, too. With --ray also patterns, URLs,
            and CSV or Parquet files with a column `path`.
        sample: Score the sample photographs of this program, five flowers.
        url: Address of a running service, such as http://localhost:8000. Without it, a model in the store is used.
        header: Line to send with each request to --url, such as "X-API-Key: ...".
        top_k: Number of classes to print. Without it, all classes.
        sort_into: New or empty folder for copies of the photographs, in a folder for each label.
        ray: Score on a Ray cluster, or on all cores, into Parquet files. The same command resumes.
        output: Folder or URL for the Parquet files of --ray.
        output_format: Format of the output.
    """
    settings = settings or EngineSettings()
    if ray:
        if sample or url or header or sort_into or top_k:
            raise UsageError(
                "--ray scores files by a model in the store, with all classes. Leave out --sample, --url, --header, "
                "--sort-into and --top-k."
            )
        return predict_with_ray(paths, output, output_format, settings, ray_settings or RaySettings())
    if output is not None:
        raise UsageError("--output is the folder of --ray. Give both, or neither.")
    if header and url is None:
        raise UsageError("A model in the store is asked without HTTP. Give --header with --url only.")
    check_headers(header)
    if sample and paths:
        raise UsageError("--sample scores the samples of this program alone. Leave out the files, or --sample.")
    if sort_into is not None:
        for path in map(Path, paths) if paths else find_samples():
            check_copies_folder(sort_into, path, "--sort-into")
    files = find_samples() if sample else find_files([Path(path) for path in paths])
    rows = []
    if url is None:
        answers = _predict_locally(files, top_k, settings)
    else:
        answers = _predict_remotely(files, top_k, url, header, client_settings or ClientSettings())
    with progress_bar("scoring") as progress:
        for row in answers:
            rows.append(row)
            progress(len(rows), len(files))
    {"table": _print_table, "json": _print_json, "csv": _print_csv}[output_format](rows)
    if sort_into is not None:
        labels = [(row.path, row.scores[0].label) for row in rows if row.scores]
        sort_photographs(sort_into, labels)
        complain(f"{len(labels)} of {len(rows)} photographs are copied to {sort_into}, by their labels.")
    return 1 if any(row.error for row in rows) else 0


def find_files(paths: Sequence[Path]) -> list[Path]:
    """List the files that these paths name, and the images in folders and below. Raises `UsageError` for none."""
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            below = list_visible(path)
            images = [file for file in below if file.suffix.lower() in IMAGE_SUFFIXES]
            if others := len(below) - len(images):
                complain(f"{others} files of {path} are not named like images. Name them to score them.")
            files += images
        else:
            files.append(path)
    if not files:
        raise UsageError("There is no image to score. Name files, or folders that hold some, or give --sample.")
    return files


def _predict_locally(files: Sequence[Path], top_k: int | None, settings: EngineSettings) -> Iterator[Row]:
    with closing(open_stored(fetch_store(settings), settings.model, settings.wish)) as opened:
        class_names = opened.metadata.class_names
        check_top_k(top_k, len(class_names), "--top-k")
        for scored in score_each(
            opened.engine, files, opened.rule, settings.limits, decode_threads=settings.decode_threads
        ):
            if scored.probabilities is None:
                yield Row(scored.path, error=str(scored.error))
            else:
                ranking = rank(
                    scored.probabilities, class_names, top_k, opened.confident_rule,
                    energy=scored.energy, distance=scored.distance,
                )  # fmt: skip
                yield Row(scored.path, ranking.scores, ranking.confident, ranking.reason)


def _predict_remotely(
    files: Sequence[Path], top_k: int | None, url: str, header: Sequence[str], settings: ClientSettings
) -> Iterator[Row]:
    """Yield the service's answers in the order of the files. Raises `ServiceUnreachable` if no service is there."""
    from service.client import Client  # here, because only --url needs it

    key = settings.api_key.get_secret_value().strip() if settings.api_key else None
    with Client(url, api_key=key, headers=split_headers(header)) as client:
        for path, outcome in zip(files, client.predict_many(files, top_k=top_k), strict=True):
            if isinstance(outcome, ServiceUnreachable):
                raise outcome
            if isinstance(outcome, ClientError):
                yield Row(path, error=str(outcome))
            else:
                yield Row(path, outcome.predictions, outcome.confident, outcome.reason)


def _print_table(rows: Sequence[Row]) -> None:
    table = Table(Column("file", overflow="fold"), "label", "probability", "then")
    for row in rows:
        name = Text(_printable(_shorten(row.path)))
        if row.error:
            table.add_row(name, "", "", Text(f"error: {row.error}"))
            continue
        best, *others = row.scores
        then = f"{others[0].label} {others[0].probability:.1%}" if others else ""
        doubt = "" if row.confident else f", {row.reason or 'not confident'}"
        table.add_row(name, *map(Text, (best.label, f"{best.probability:.1%}{doubt}", then)))
    if not any(table.columns[-1].cells):
        table.columns.pop()
    print_result(table)


def _shorten(path: Path) -> Path:
    """Return the path from the samples or from the current folder, if it lies there."""
    for folder in (SAMPLES, Path.cwd()):
        if path.is_relative_to(folder):
            return path.relative_to(folder)
    return path


def _print_json(rows: Sequence[Row]) -> None:
    documents = [
        {
            "file": _printable(row.path),
            "label": row.scores[0].label if row.scores else None,
            "probability": row.scores[0].probability if row.scores else None,
            "confident": row.confident,
            "reason": row.reason,
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
    writer.writerow(["file", "error", "confident", "reason", *ranks])
    for row in rows:
        confident = "" if row.confident is None else str(row.confident).lower()
        cells = [cell for score in row.scores for cell in (score.label, score.probability)]
        cells += [""] * (2 * num_ranks - len(cells))
        writer.writerow([_printable(row.path), row.error or "", confident, row.reason or "", *cells])


def _printable(path: Path) -> str:
    """Return a path as UTF-8. A file name need not be UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
