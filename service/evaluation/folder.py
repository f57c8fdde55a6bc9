"""Evaluation of a version on a folder of class folders, or on one part of its own split."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from service.data.folder import Folder, Photograph
from service.data.names import join_names, normalise_name
from service.data.parts import Part, find_part
from service.engines.engine import Probabilities
from service.engines.open_version import ServedVersion
from service.errors import DatasetError, InvalidVersion
from service.evaluation.metrics import Evaluation, evaluate
from service.evaluation.score import Answers, ScoredImage, score_each
from service.evaluation.seen import SeenAndUnseen, count_apart, find_learned, mark_learned, read_split_list
from service.imaging.limits import ImageLimits
from service.store.metadata import PartMetrics


@dataclass(frozen=True)
class FolderEvaluation:
    """Evaluation and answers of the photographs that could be scored, and the others with their errors.

    Each of `scored` belongs to the answer in its place.
    """

    evaluation: Evaluation
    answers: Answers
    unscored: tuple[ScoredImage, ...]
    scored: tuple[ScoredImage, ...] = ()

    @property
    def counted(self) -> SeenAndUnseen | None:
        """Count unseen and learned photographs apart. None means that they are not known apart."""
        is_learned = mark_learned(self.scored)
        return None if is_learned is None else count_apart(self.answers, is_learned)

    @property
    def headline(self) -> "FolderEvaluation":
        """Return the evaluation of the unseen photographs. If there are none, or they are unknown, it is of all."""
        is_learned = mark_learned(self.scored)
        if is_learned is None or is_learned.all() or not is_learned.any():
            return self
        places = np.flatnonzero(~is_learned)
        answers = Answers(
            tuple(self.answers.paths[place] for place in places),
            self.answers.probabilities[places],
            self.answers.class_indices[places],
        )
        evaluation = evaluate(answers.probabilities, answers.class_indices, self.evaluation.class_names)
        return FolderEvaluation(evaluation, answers, self.unscored, tuple(self.scored[place] for place in places))


def select_part(opened: ServedVersion, folder: Folder, part: Part) -> Mapping[Photograph, str]:
    """Find the photographs of one part of the version's own split, each with its pixels digest.

    The folder may be one part's of a split folder. Raises `InvalidVersion` without the split list of its metadata, and
    `DatasetError` for missing photographs.
    """
    version, split = opened.version, read_split_list(opened)
    if split is None:
        raise InvalidVersion(f"Version {version} has not the split list that its metadata names. Train it again.")
    entries = split.part(part)
    there = {normalise_name(photograph.file): photograph for photograph in folder.photographs}
    there |= {photograph.file: photograph for photograph in folder.photographs}
    if find_part(name := folder.path.resolve().name):
        there |= {f"{name}/{file}": photograph for file, photograph in there.items()}
    found = {entry: there.get(entry.file) or there.get(normalise_name(entry.file)) for entry in entries}
    missing = [entry.file for entry, photograph in found.items() if photograph is None]
    if missing:
        raise DatasetError(
            f"{len(missing)} of the {len(entries)} photographs of part {part} are not in {folder.path}, "
            f"such as {missing[0]}. Give the folder that version {version} was trained on."
        )
    return {photograph: entry.pixels_digest for entry, photograph in found.items() if photograph is not None}


def evaluate_folder(
    opened: ServedVersion,
    folder: Folder,
    limits: ImageLimits,
    *,
    part: Part | None = None,
    decode_threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> FolderEvaluation:
    """Score the photographs of `folder` and compare with the names of their class folders.

    Classes of the model may be missing in the folder. They are not evaluated. The photographs of a `part` must be
    unchanged. None means the whole folder. Then the photographs that the version has learned from are recognised by
    their pixels. `progress` gets (photographs done, photographs in all).

    Raises `DatasetError` if the model does not know a class of the folder, or if no photograph could be scored. Raises
    as `select_part` and `score_each`.
    """
    class_names = opened.metadata.class_names
    index_of = {normalise_name(label): index for index, label in enumerate(class_names)}
    _check_classes(folder, index_of)
    selected = dict.fromkeys(folder.photographs, "") if part is None else select_part(opened, folder, part)
    digests = {photograph.path: digest for photograph, digest in selected.items() if digest}
    learned = find_learned(opened) if part is None else None
    is_learned = learned.include if learned else None if part is None else lambda _: part != "test"
    results = score_each(
        opened.engine,
        [photograph.path for photograph in selected],
        opened.rule,
        limits,
        pixels_digests=digests,
        is_learned=is_learned,
        decode_threads=decode_threads,
    )
    answered: list[tuple[Photograph, ScoredImage, Probabilities]] = []
    unscored: list[ScoredImage] = []
    for photograph, scored in zip(selected, results, strict=True):
        if scored.probabilities is None:
            unscored.append(scored)
        else:
            answered.append((photograph, scored, scored.probabilities))
        if progress is not None:
            progress(len(answered) + len(unscored), len(selected))
    if not answered:
        why = "The part is empty. Name another." if part else "Its class folders are empty. Add photographs."
        if unscored:
            why = f"The first is {unscored[0].path}. {unscored[0].error}"
        raise DatasetError(f"0 of {len(selected)} photographs of {folder.path} could be scored. {why}")
    answers = Answers(
        tuple(photograph.path for photograph, _, _ in answered),
        np.stack([row for _, _, row in answered]),
        np.array([index_of[photograph.label] for photograph, _, _ in answered]),
    )
    evaluation = evaluate(answers.probabilities, answers.class_indices, class_names)
    return FolderEvaluation(evaluation, answers, tuple(unscored), tuple(scored for _, scored, _ in answered))


def stated_metrics(evaluation: Evaluation, part: str) -> PartMetrics:
    """Return an evaluation in the form of the metadata."""
    return PartMetrics.model_validate({"part": part, **vars(evaluation)})


def find_differences(stated: PartMetrics, evaluation: Evaluation) -> tuple[str, ...]:
    """List the differences between a version's metadata and a new evaluation, a sentence each."""
    measured = stated_metrics(evaluation, stated.part)
    # On another device a probability can fall on the other side of a bin's edge.
    allowed = {"num_photographs": 0.0, "num_correct": 0.0, "expected_calibration_error": 2 / stated.num_photographs}
    return tuple(
        f"{name} is {getattr(stated, name)} in the metadata and {getattr(measured, name)} now."
        for name in PartMetrics.model_fields
        if name != "part" and abs(getattr(stated, name) - getattr(measured, name)) > allowed.get(name, 1e-6)
    )


def _check_classes(folder: Folder, known: Collection[str]) -> None:
    unknown = [label for label in folder.class_names if label not in known]
    if unknown:
        raise DatasetError(
            f"{folder.path} has class folders that the model does not know: {join_names(unknown)}. "
            f"It knows {', '.join(known)}. Rename or remove the others."
        )
