"""Wrong answers of an evaluation, as a table and as copies of the photographs. Their names are untrusted text."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from service.errors import SettingsError
from service.evaluation.copies import copy_file, name_folders
from service.evaluation.score import Answers

NUM_WORST = 3
"""Number of the most confident mistakes that are shown at the end of a training."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet may run a cell that begins so


@dataclass(frozen=True)
class Mistake:
    """A photograph of the class `truth` whose most probable class is `answer`, with its probability in [0, 1]."""

    path: Path
    truth: str
    answer: str
    probability: float


def list_worst(answers: Answers, class_names: Sequence[str]) -> tuple[Mistake, ...]:
    """List the most confident mistakes, at most `NUM_WORST`."""
    return tuple(
        Mistake(
            answers.paths[place], *_name_labels(answers, place, class_names), float(answers.probabilities[place].max())
        )
        for place in find_mistakes(answers)[:NUM_WORST]
    )


def find_mistakes(answers: Answers) -> list[int]:
    """List the places of the wrong answers, most confident first."""
    wrong = np.flatnonzero(answers.probabilities.argmax(axis=1) != answers.class_indices)
    top1 = answers.probabilities[wrong].max(axis=1, initial=0)
    places: list[int] = wrong[np.argsort(-top1, kind="stable")].tolist()
    return places


def write_mistakes(file: Path, answers: Answers, class_names: Sequence[str]) -> int:
    """Write a CSV of the wrong answers in UTF-8, and return their number. A file of this name is replaced.

    The columns are path, truth, answer, probability and each class. A text that a spreadsheet could run gets an
    apostrophe before it. Raises `SettingsError` if the file cannot be written.
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)  # its line ends are \r\n, so that it quotes both in a text
    writer.writerow([harmless(text) for text in ("path", "truth", "answer", "probability", *class_names)])
    places = find_mistakes(answers)
    for place in places:
        truth, answer = _name_labels(answers, place, class_names)
        # The shortest decimals that are these float32.
        probabilities = [float(str(value)) for value in answers.probabilities[place]]
        texts = [harmless(text) for text in (str(answers.paths[place]), truth, answer)]
        writer.writerow([*texts, max(probabilities), *probabilities])
    try:
        # A folder's name need not be UTF-8.
        file.write_text(stream.getvalue(), encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise SettingsError(
            f"The mistakes cannot be written to {file} ({error.strerror}). Name another file."
        ) from error
    return len(places)


def copy_photographs(folder: Path, answers: Answers, class_names: Sequence[str]) -> int:
    """Copy the photographs with wrong answers to `<truth>/<answer>/<file name>` in a folder. Return their number.

    No file is replaced. A second one of a name gets a number. A class name that cannot be a folder's is changed. Raises
    `SettingsError` for a folder that `check_copies_folder` refuses, and if a file cannot be copied.
    """
    places, folder_names = find_mistakes(answers), name_folders(class_names)
    try:
        folder.mkdir(exist_ok=True)
        for place in places:
            truth, answer = (folder_names[label] for label in _name_labels(answers, place, class_names))
            (folder / truth / answer).mkdir(parents=True, exist_ok=True)
            copy_file(answers.paths[place], folder / truth / answer)
    except OSError as error:
        raise SettingsError(
            f"The mistakes cannot be copied to {folder} ({error.strerror}, {error.filename}). Name another folder."
        ) from error
    return len(places)


def _name_labels(answers: Answers, place: int, class_names: Sequence[str]) -> tuple[str, str]:
    return class_names[answers.class_indices[place]], class_names[answers.probabilities[place].argmax()]


def harmless(text: str) -> str:
    """Return a text for a cell. One that a spreadsheet could run gets an apostrophe before it."""
    return f"'{text}" if text.startswith(_FORMULA) else text
