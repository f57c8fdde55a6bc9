"""Sources of photographs: folders, patterns, lists in CSV or Parquet, and files. Each may be a URL."""

import csv
import io
from collections.abc import Iterator, Sequence
from glob import has_magic
from pathlib import PurePosixPath

from service.errors import UsageError
from service.files import IMAGE_SUFFIXES, digest_bytes
from service.scoring.storage import expand, make_absolute, opened

_LIST_SUFFIXES = (".csv", ".parquet")
_PATH_COLUMNS = ("path", "file")  # the second is that of `flowers predict --format csv`


def list_photographs(sources: Sequence[str]) -> list[str]:
    """List the photographs of the sources as absolute paths and URLs, in order, each once.

    A folder gives its files with the suffixes of images, and so does a pattern. A source that ends in .csv or .parquet
    gives what the column `path` or `file` holds. Paths there are relative to the current folder, and need not exist.

    Raises `UsageError` for a source that is not there, or without photographs, and for a list without that column.
    Raises `ScoringError` if the storage of a URL fails.
    """
    photographs: dict[str, None] = {}
    for source in sources:
        photographs.update(dict.fromkeys(_list_source(make_absolute(source))))
    if not photographs:
        raise UsageError("There is no image to score. Name a folder, a pattern, a list in CSV or Parquet, or files.")
    return list(photographs)


def digest_paths(paths: Sequence[str]) -> str:
    """Return the sha256 of the paths in their order."""
    return digest_bytes("\0".join(paths).encode("utf-8", "surrogateescape"))


def _list_source(source: str) -> Iterator[str]:
    files = expand(source)
    if files is None:
        if _suffix(source) in IMAGE_SUFFIXES and not has_magic(
            source
        ):  # a photograph that is not there has a row with its error
            yield source
            return
        raise UsageError(f"{source} is not there. Name a folder, a pattern, a list in CSV or Parquet, or files.")
    if _suffix(source) in _LIST_SUFFIXES:
        yield from (make_absolute(path) for file in files for path in _read_list(file))
    elif files == [source]:
        yield source  # its content decides
    else:
        yield from (file for file in files if _suffix(file) in IMAGE_SUFFIXES)


def _read_list(place: str) -> Iterator[str]:
    try:
        yield from (path for path in _READERS[_suffix(place)](place) if path)
    except (OSError, ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors
        cause = (str(error).strip() or repr(error)).splitlines()[0][:200]
        raise UsageError(f"{place} cannot be read as a list ({cause}). Write it anew, with a column `path`.") from error


def _read_csv(place: str) -> Iterator[str]:
    with opened(place) as file:
        text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
        reader = csv.DictReader(text)
        column = _find_column(place, reader.fieldnames or ())
        yield from (row[column] or "" for row in reader)


def _read_parquet(place: str) -> Iterator[str]:
    from pyarrow.parquet import ParquetFile  # here, as only the extra `ray` brings it

    with opened(place) as file:
        table = ParquetFile(file)
        column = _find_column(place, table.schema_arrow.names)
        for batch in table.iter_batches(columns=[column]):
            yield from (str(path) for path in batch.column(0).to_pylist() if path is not None)


_READERS = {".csv": _read_csv, ".parquet": _read_parquet}


def _find_column(place: str, columns: Sequence[str]) -> str:
    for column in _PATH_COLUMNS:
        if column in columns:
            return column
    names = ", ".join(columns[:20]) or "none"
    raise UsageError(f"{place} has no column `path`. Its columns are: {names}. Rename the one that holds the paths.")


def _suffix(place: str) -> str:
    return PurePosixPath(place).suffix.lower()
