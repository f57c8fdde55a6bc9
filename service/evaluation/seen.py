"""Photographs that a version has learned from. Their decoded pixels tell."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from service.data.check import list_digests
from service.data.split import SplitList, parse_split
from service.engines.open_version import ServedVersion
from service.evaluation.metrics import wilson_interval
from service.evaluation.score import Answers, ScoredImage
from service.imaging.pixels import Decoded
from service.store.layout import SPLIT_FILE


@dataclass(frozen=True)
class LearnedPhotographs:
    """Digests of a version's training and validation photographs. The latter chose its epoch and its calibration.

    In a version of format 1 a digest `may_be_srgb`, that of the pixels converted to sRGB.
    """

    digests: frozenset[str]
    may_be_srgb: bool

    def include(self, image: Decoded) -> bool:
        """Return whether the version has learned from this photograph, whatever its name and format."""
        return any(digest in self.digests for digest in list_digests(image, may_be_srgb=self.may_be_srgb))


@dataclass(frozen=True)
class Tally:
    """Photographs, and how many of them were answered right. `accuracy` is 0-1, or None without photographs."""

    num_photographs: int
    num_correct: int
    accuracy: float | None


@dataclass(frozen=True)
class SeenAndUnseen:
    """Tallies of the photographs that a version has learned from, and of the others."""

    unseen: Tally
    learned: Tally

    @property
    def is_all_learned(self) -> bool:
        """Whether no photograph is new to the version. Then the accuracy says nothing about new ones."""
        return not self.unseen.num_photographs

    def to_dict(self) -> dict[str, object]:
        """Return the fields for `json.dumps`."""
        return asdict(self)


def read_split_list(opened: ServedVersion) -> SplitList | None:
    """Read the split list of a version. None means that it lacks the one that its metadata names."""
    if opened.verified.digests.get(SPLIT_FILE) != opened.metadata.split_digest:
        return None
    return parse_split(opened.verified.read(SPLIT_FILE), f"of version {opened.version}")


def find_learned(opened: ServedVersion) -> LearnedPhotographs | None:
    """Return the photographs that a version has learned from. None means that they are unknown."""
    split = read_split_list(opened)
    if split is None:
        return None
    digests = frozenset(entry.pixels_digest for entry in split.photographs if entry.part != "test")
    return LearnedPhotographs(digests, opened.metadata.photograph_digest == "decoded-or-srgb")


def mark_learned(scored: Sequence[ScoredImage]) -> NDArray[np.bool_] | None:
    """Return which photographs are learned ones, shape (N,). None means that this is unknown."""
    if any(one.is_learned is None for one in scored):
        return None
    return np.array([one.is_learned for one in scored], np.bool_)


def count_apart(answers: Answers, is_learned: NDArray[np.bool_]) -> SeenAndUnseen:
    """Count the right answers to unseen and to learned photographs apart. `is_learned` has shape (N,)."""
    is_correct = answers.probabilities.argmax(axis=1) == answers.class_indices
    return SeenAndUnseen(_tally(is_correct[~is_learned]), _tally(is_correct[is_learned]))


def describe_seen(version: int, counted: SeenAndUnseen | None) -> str:
    """Say which photographs a version has learned from, and whose accuracy is reported."""
    if counted is None:
        return (
            f"Version {version} has no split list. So it is unknown which photographs it has learned from. "
            "The accuracy on new ones may be lower."
        )
    unseen, learned = counted.unseen, counted.learned
    if not learned.num_photographs:
        return f"Version {version} has learned from none of these photographs."
    if unseen.accuracy is None:
        return (
            f"WARNING: version {version} has learned from all {learned.num_photographs} photographs. "
            "The accuracy says nothing about new ones. Give other photographs, or --part test."
        )
    low, high = wilson_interval(unseen.num_correct, unseen.num_photographs)
    return (
        f"Unseen {unseen.num_correct} of {unseen.num_photographs} right ({unseen.accuracy:.1%}, "
        f"95 % interval {low:.1%} to {high:.1%}). The figures below are theirs. The {learned.num_photographs} "
        f"learned photographs are counted apart, {learned.num_correct} of {learned.num_photographs} right."
    )


def _tally(is_correct: NDArray[np.bool_]) -> Tally:
    num_photographs, num_correct = len(is_correct), int(is_correct.sum())
    return Tally(num_photographs, num_correct, num_correct / num_photographs if num_photographs else None)
