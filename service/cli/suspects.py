"""`flowers evaluate --label-errors FILE`: photographs whose class folder may be the wrong one."""

import csv
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

from service.cli.terminal import progress_bar
from service.data.check import check_folder
from service.data.folder import Folder
from service.errors import DatasetError, SettingsError
from service.evaluation.mistakes import harmless
from service.imaging.limits import ImageLimits
from service.training.label_errors import Suspect, find_suspects

_COLUMNS = ("path", "label", "other", "label_probability", "other_probability", "likely")


def list_label_errors(folder: Folder, file: Path, limits: ImageLimits) -> str:
    """Write a CSV of all photographs, the most suspect label first. Return a sentence for people.

    Raises:
        DatasetError: The folder has fewer than two classes with photographs.
        SettingsError: The file cannot be written.
    """
    with progress_bar("checking") as progress:
        check = check_folder(folder, limits, progress)
    if len({photograph.label for photograph in check.photographs}) < 2:
        raise DatasetError("--label-errors compares classes. Give a folder with two class folders or more.")
    with progress_bar("label errors") as progress, tempfile.TemporaryDirectory(prefix="flowers-") as scratch:
        suspects = find_suspects(check, limits, Path(scratch), progress)
    write_suspects(file, suspects)
    num_likely = sum(suspect.is_likely for suspect in suspects)
    return f"{num_likely} of {len(suspects)} labels are likely wrong. {file} lists all, the most suspect first."


def write_suspects(file: Path, suspects: Sequence[Suspect]) -> None:
    """Write a CSV in UTF-8. A text that a spreadsheet could run gets an apostrophe. Raises `SettingsError`."""
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow(_COLUMNS)
    for suspect in suspects:
        texts = [harmless(text) for text in (str(suspect.path), suspect.label, suspect.other)]
        probabilities = [f"{value:.4f}" for value in (suspect.label_probability, suspect.other_probability)]
        writer.writerow([*texts, *probabilities, str(suspect.is_likely).lower()])
    try:
        # A folder's name need not be UTF-8.
        file.write_text(stream.getvalue(), encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise SettingsError(f"{file} cannot be written ({error.strerror}). Name another file.") from error
