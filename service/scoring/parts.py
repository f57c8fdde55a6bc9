"""Parts of a job: a number of photographs each, whose scores are one Parquet file."""

import io
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from service.evaluation.score import ScoredImage
from service.scoring.storage import join, list_names, opened, write_file


@dataclass(frozen=True)
class Part:
    """Photographs that one task scores. Its number names its file, so a repeated task writes the same file."""

    number: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class PartResult:
    """Number of rows in the file of a part, and of those with an error."""

    number: int
    num_photographs: int
    num_errors: int


def split_parts(paths: Sequence[str], rows_per_file: int) -> list[Part]:
    """Divide the photographs into parts, in order. The last one may be smaller."""
    starts = range(0, len(paths), rows_per_file)
    return [Part(number, tuple(paths[start : start + rows_per_file])) for number, start in enumerate(starts)]


def name_part(number: int) -> str:
    """Return the name of a part's file. Names sort like numbers up to a million parts."""
    return f"part-{number:06d}.parquet"


def write_part(
    output: str, part: Part, scored: Iterable[ScoredImage], class_names: Sequence[str], version: int
) -> PartResult:
    """Write the scores of a part, in the order of its photographs, as one Parquet file.

    Columns are `path`, `label`, `probabilities` (float32), `version` and `error`. The probabilities are ordered like
    `class_names`, a JSON list in the metadata of the schema. They and the label are null with an error. A byte of a
    path that is no UTF-8 becomes U+FFFD. Raises `ScoringError`, and what `scored` raises. Then nothing is written.
    """
    import pyarrow as pa  # here, as only the extra `ray` brings it
    from pyarrow.parquet import write_table

    labels, rows, errors = [], [], []
    for one in scored:
        probabilities = one.probabilities
        labels.append(None if probabilities is None else class_names[int(np.argmax(probabilities))])
        rows.append(probabilities)
        errors.append(None if one.error is None else str(one.error))
    columns = {
        "path": pa.array([os.fsencode(path).decode("utf-8", "replace") for path in part.paths], pa.string()),
        "label": pa.array(labels, pa.string()),
        "probabilities": pa.array(rows, pa.list_(pa.float32())),
        "version": pa.array([version] * len(rows), pa.int64()),
        "error": pa.array(errors, pa.string()),
    }
    table = pa.table(columns).replace_schema_metadata({"class_names": json.dumps(list(class_names))})
    file = io.BytesIO()
    write_table(table, file, compression="zstd", row_group_size=max(1, len(rows)))
    write_file(join(output, name_part(part.number)), file.getvalue())
    return PartResult(part.number, len(rows), len(rows) - errors.count(None))


def find_finished(output: str, parts: Iterable[Part]) -> dict[int, PartResult]:
    """Find the parts whose files are whole, by number. Raises `ScoringError`."""
    names = list_names(output)
    results = (read_result(output, part) for part in parts if name_part(part.number) in names)
    return {result.number: result for result in results if result is not None}


def read_result(output: str, part: Part) -> PartResult | None:
    """Read the footer of a part's file. None means that the file is not there, or is not whole."""
    from pyarrow import ArrowInvalid
    from pyarrow.parquet import read_metadata

    try:
        with opened(join(output, name_part(part.number))) as file:
            footer = read_metadata(file)
    except (OSError, ArrowInvalid):
        return None
    if footer.num_rows != len(part.paths) or footer.num_row_groups != 1:
        return None
    errors = footer.row_group(0).column(footer.num_columns - 1).statistics
    return PartResult(part.number, footer.num_rows, footer.num_rows - errors.null_count)
