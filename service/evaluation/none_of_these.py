"""Measurement of the rule of `confident` on images that show none of a model's classes."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from service.engines.engine import Engine, Scores
from service.engines.open_version import ServedVersion
from service.errors import DatasetError
from service.evaluation.metrics import wilson_interval
from service.evaluation.score import ScoredImage, score_each
from service.imaging.limits import ImageLimits, ResizeRule
from service.ranking import ConfidentRule, Reason
from service.store.metadata import Confidence, SourceConfidence


@dataclass(frozen=True)
class ClassCount:
    """Images whose best class is `label`, and how many of these answers are confident."""

    label: str
    num_images: int
    num_confident: int


@dataclass(frozen=True)
class Kept:
    """Photographs of the evaluated folder, and how many answers to them are confident. The share is 0-1."""

    num_photographs: int
    num_confident: int
    share: float


@dataclass(frozen=True)
class NoneOfThese:
    """Answers to images of none of the classes. The best possible share is 1.

    Attributes:
        share: Share that is not confident, 0-1. `share_low` and `share_high` are the ends of its 95 % Wilson interval.
        by_reason: Number of images that are not confident, for each reason.
        by_class: Classes that were answered, the most frequent first.
        kept: What the same rule keeps of the evaluated photographs.
        unscored: Images that could not be scored. They do not count.
    """

    num_images: int
    num_not_confident: int
    share: float
    share_low: float
    share_high: float
    by_reason: dict[Reason, int]
    by_class: tuple[ClassCount, ...]
    kept: Kept
    unscored: tuple[ScoredImage, ...]

    def to_dict(self) -> dict[str, object]:
        """Return the fields for `json.dumps`."""
        errors = [{"file": str(scored.path), "error": str(scored.error)} for scored in self.unscored]
        by_class = [asdict(one) for one in self.by_class]
        return {**vars(self), "by_class": by_class, "kept": asdict(self.kept), "unscored": errors}


def find_reason(rule: ConfidentRule, scored: ScoredImage) -> Reason | None:
    """Return why the answer to an image is not confident, by the rule of serving. None means that it is."""
    assert scored.probabilities is not None
    probability = float(str(scored.probabilities.max()))  # the shortest decimal of this float32, as `rank` has it
    return rule.doubt(probability, scored.energy, scored.distance)


def find_confident(rule: ConfidentRule, scores: Scores) -> NDArray[np.bool_]:
    """Return which of N answers are confident by the rule of serving, shape (N,)."""
    return np.array([
        rule.doubt(float(str(probabilities.max())), energy, distance) is None
        for probabilities, energy, distance in scores.rows()
    ], np.bool_)  # fmt: skip


def count_confidence(
    engine: Engine, confident: ConfidentRule, scores: Scores, class_indices: NDArray[np.integer[Any]],
    sources: Mapping[str, Sequence[Path]], rule: ResizeRule, limits: ImageLimits,
) -> Confidence:  # fmt: skip
    """Count confident answers to photographs, and to images of none of the classes.

    Args:
        engine: Engine that scores the images.
        confident: Limits of a confident answer.
        scores: Answers to N photographs, at least one.
        class_indices: True classes of these, shape (N,).
        sources: Images of none of the classes, by their source. One that cannot be scored does not count.
        rule, limits: Size and bounds of an image.
    """
    is_confident = find_confident(confident, scores)
    is_wrong = scores.probabilities.argmax(axis=1) != class_indices
    counted = []
    for source, paths in sources.items():
        scored = [one for one in score_each(engine, paths, rule, limits) if one.probabilities is not None]
        num_confident = sum(find_reason(confident, one) is None for one in scored)
        if scored:
            counted.append(SourceConfidence(source=source, num_images=len(scored), num_confident=num_confident))
    return Confidence(
        num_photographs=len(is_confident), num_confident=int(is_confident.sum()), num_errors=int(is_wrong.sum()),
        num_confident_errors=int((is_confident & is_wrong).sum()), none_of_these=counted,
    )  # fmt: skip


def measure_none_of_these(
    opened: ServedVersion,
    files: Sequence[Path],
    evaluated: Sequence[ScoredImage],
    limits: ImageLimits,
    *,
    decode_threads: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> NoneOfThese:
    """Score images of none of the classes, and count the answers that are not confident.

    `evaluated` are scored photographs of the classes, at least one. `progress` gets (images done, images in all).
    Raises `DatasetError` if no image could be scored. Raises as `score_each`.
    """
    answered: list[ScoredImage] = []
    unscored: list[ScoredImage] = []
    for scored in score_each(opened.engine, files, opened.rule, limits, decode_threads=decode_threads):
        (unscored if scored.probabilities is None else answered).append(scored)
        if progress is not None:
            progress(len(answered) + len(unscored), len(files))
    if not answered:
        why = f"The first is {unscored[0].path}. {unscored[0].error}" if unscored else "Add images."
        raise DatasetError(f"0 of {len(files)} images for --none-of-these could be scored. {why}")
    reasons = [find_reason(opened.confident_rule, scored) for scored in answered]
    counts = Counter(reason for reason in reasons if reason is not None)
    num_images, num_not_confident = len(answered), counts.total()
    low, high = wilson_interval(num_not_confident, num_images)
    return NoneOfThese(
        num_images=num_images,
        num_not_confident=num_not_confident,
        share=num_not_confident / num_images,
        share_low=low,
        share_high=high,
        by_reason={reason: counts[reason] for reason in get_args(Reason)},
        kept=_count_kept(opened.confident_rule, evaluated),
        by_class=_count_by_class(opened.metadata.class_names, answered, reasons),
        unscored=tuple(unscored),
    )


def describe_none_of_these(measured: NoneOfThese) -> str:
    """Write the share, its reasons, the answered classes and what is kept, a line each."""
    reasons = ", ".join(f"{number} {reason}" for reason, number in measured.by_reason.items())
    classes = ", ".join(f"{one.label} {one.num_images} ({one.num_confident} confident)" for one in measured.by_class)
    return (
        f"none of these      {measured.share:.1%} not confident, {measured.num_not_confident} of {measured.num_images} "
        f"images, 95 % interval {measured.share_low:.1%} to {measured.share_high:.1%}\n"
        f"reasons            {reasons}\n"
        f"answered           {classes}\n"
        f"evaluated folder   {measured.kept.share:.1%} confident, {measured.kept.num_confident} of "
        f"{measured.kept.num_photographs} photographs"
    )


def _count_kept(rule: ConfidentRule, evaluated: Sequence[ScoredImage]) -> Kept:
    num_confident = sum(find_reason(rule, scored) is None for scored in evaluated)
    return Kept(len(evaluated), num_confident, num_confident / len(evaluated))


def _count_by_class(
    class_names: Sequence[str], answered: Sequence[ScoredImage], reasons: Sequence[Reason | None]
) -> tuple[ClassCount, ...]:
    images, confident = Counter[int](), Counter[int]()
    for scored, reason in zip(answered, reasons, strict=True):
        assert scored.probabilities is not None
        best = int(scored.probabilities.argmax())
        images[best] += 1
        confident[best] += reason is None
    return tuple(ClassCount(class_names[best], number, confident[best]) for best, number in images.most_common())
