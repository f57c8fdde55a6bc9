"""Manifest of a job: the photographs, the version and the settings that its files of scores belong to."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import UsageError
from service.scoring.storage import join, list_names, opened, write_file

MANIFEST_FILE = "_manifest.json"
"""Name of the manifest. Readers of Parquet folders leave out names that begin with an underscore."""

_MEANINGS = {
    "source_digest": "other photographs",
    "num_photographs": "other photographs",
    "rows_per_file": "another --rows-per-file",
    "model": "another model",
    "version": "another version",
    "version_digest": "another version",
    "class_names": "another version",
    "device": "another --device",
    "engine": "another --engine",
    "precision": "another --precision",
    "max_image_bytes": "another --max-image-bytes",
    "max_image_pixels": "another --max-image-pixels",
}


class Manifest(BaseModel):
    """Description of a job. Two runs with equal ones give equal files.

    `source_digest` is the sha256 of the paths, and `version_digest` that of the version's SHA256SUMS. `class_names` is
    the order of the probabilities.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    sources: tuple[str, ...]
    source_digest: str
    num_photographs: int
    rows_per_file: int
    model: str
    version: int
    version_digest: str
    class_names: tuple[str, ...]
    device: str
    engine: str
    precision: str
    max_image_bytes: int
    max_image_pixels: int


def open_manifest(output: str, manifest: Manifest) -> None:
    """Begin the job in a folder, or resume it there.

    Raises `UsageError` if the folder holds other files, or the manifest of another job. Raises `ScoringError` if it
    cannot be written.
    """
    place = join(output, MANIFEST_FILE)
    names = list_names(output)
    if MANIFEST_FILE in names:
        _check(output, _read(place), manifest)
    elif any(not name.startswith(".") for name in names):
        raise UsageError(f"--output is {output}, which holds other files. Name a new or an empty folder.")
    else:
        write_file(place, manifest.model_dump_json(indent=1).encode())


def _read(place: str) -> Manifest:
    try:
        with opened(place) as file:
            return Manifest.model_validate_json(file.read())
    except (OSError, ValidationError) as error:
        raise UsageError(f"{place} is no manifest of this program. Name another folder with --output.") from error


def _check(output: str, begun: Manifest, manifest: Manifest) -> None:
    """Refuse a job that differs in more than the words of its sources. Raises `UsageError`."""
    ours, theirs = manifest.model_dump(), begun.model_dump()
    differences = [meaning for field, meaning in _MEANINGS.items() if ours[field] != theirs[field]]
    if not differences:
        return
    versions = f" It was begun with version {begun.version} of {begun.model}, and this is version {manifest.version}."
    raise UsageError(
        f"--output is {output}, which holds the scores of another job ({', '.join(dict.fromkeys(differences))})."
        f"{versions if 'another version' in differences else ''} Name another folder, or repeat the command that began "
        "it."
    )
