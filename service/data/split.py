"""Split into train, validation and test. The seed and the pixels of a photograph choose its part.

So the split is the same on every machine. Removing a photograph moves no other one. Of a group of near-duplicates only
the members in its main part are used. 13 of the 3,281 photographs of flower_photos are lost, on average over 20 seeds.
A class that is mostly near-duplicates is cut in the order of its file names, without the seed.
"""

import hashlib
import json
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from service.data.check import CheckedPhotograph, DataCheck, Finding
from service.data.folder import describe_odd_name
from service.data.parts import PARTS, Part, find_part
from service.errors import DatasetError

DEFAULT_FRACTIONS = (0.70, 0.15, 0.15)

_MOST_SEEDS, _MOST_CHOICES = 200, 200_000  # limits of the search for a better seed: about a second


@dataclass(frozen=True)
class Split:
    """Parts, each by (label, file name). `set_aside` names the lost near-duplicates."""

    seed: int
    fractions: tuple[float, float, float]
    photographs: Mapping[Part, tuple[CheckedPhotograph, ...]]
    set_aside: tuple[Finding, ...]


def split_photographs(check: DataCheck, seed: int, fractions: tuple[float, float, float] = DEFAULT_FRACTIONS) -> Split:
    """Divide the usable photographs. Each class keeps the fractions as closely as chance does.

    The fractions are those of train, validation and test. Each is above 0, and their sum is 1. Raises `DatasetError`
    for other fractions, or if a part lacks a class. It names a seed that serves all parts, if there is one.
    """
    if min(fractions) <= 0 or not math.isclose(sum(fractions), 1):
        raise DatasetError(f"The split needs three fractions above 0 with sum 1, not {fractions}.")
    return draw_parts(check, seed, fractions)


def draw_parts(check: DataCheck, seed: int, fractions: tuple[float, float, float]) -> Split:
    """Divide as `split_photographs`. A part whose fraction is 0 stays empty."""
    split = _split(check, seed, fractions)
    if gaps := _find_gaps(check, split):
        seeds = range(min(_MOST_SEEDS, _MOST_CHOICES // max(1, len(check.photographs))))
        other = next((other for other in seeds if not _find_gaps(check, _split(check, other, fractions))), None)
        remedy = (
            "Add photographs" if other is None else f"Add photographs, or take --seed {other}, which serves all parts"
        )
        enough = _count_enough(len(check.class_names), fractions)
        raise DatasetError(
            f"{_describe_gaps(check, seed, gaps)}. About {enough} usable photographs of each class are enough for "
            f"{len(check.class_names)} classes. {remedy}."
        )
    return split


def choose_part(seed: int, pixels_digest: str, fractions: tuple[float, float, float]) -> Part:
    """Return the part of a photograph. The sha256 of seed and pixels is compared with summed `fractions`."""
    digest = hashlib.sha256(f"{seed}:{pixels_digest}".encode()).digest()
    position = int.from_bytes(digest[:8]) / 2**64
    if position < fractions[0]:
        return "train"
    return "validation" if position < fractions[0] + fractions[1] or not fractions[2] else "test"


def _split(check: DataCheck, seed: int, fractions: tuple[float, float, float]) -> Split:
    parts = {photograph: choose_part(seed, photograph.pixels_digest, fractions) for photograph in check.photographs}
    for sequence in _find_sequences(check):
        parts |= _cut_sequence(sequence, fractions)
    findings = []
    for group in check.near_duplicates:
        votes = Counter(parts[photograph] for photograph in group)
        # On a tie the smaller part keeps its own.
        findings += set_aside(group, parts, max(votes, key=lambda part: (votes[part], PARTS.index(part))))
    photographs = {part: tuple(photograph for photograph in parts if parts[photograph] == part) for part in PARTS}
    return Split(seed, fractions, photographs, tuple(findings))


def set_aside(group: Sequence[CheckedPhotograph], parts: dict[CheckedPhotograph, Part], winner: Part) -> list[Finding]:
    """Take the members of a group out of `parts`, but those in the part `winner`. Name each."""
    kept = next(photograph for photograph in group if parts[photograph] == winner)
    return [
        Finding(
            "near-duplicates-apart",
            (photograph.file,),
            f"It is not used in {parts.pop(photograph)}. It is nearly the same as {kept.file} in {winner}.",
        )
        for photograph in group
        if parts[photograph] != winner
    ]


def _find_sequences(check: DataCheck) -> list[list[list[CheckedPhotograph]]]:
    """List the classes to cut, each by file name, 2 before 10. A group stands where its first member is."""
    first_of = {photograph: group[0] for group in check.near_duplicates for photograph in group}
    sequences: dict[str, dict[CheckedPhotograph, list[CheckedPhotograph]]] = {label: {} for label in check.sequences}
    in_sequence = (photograph for photograph in check.photographs if photograph.label in sequences)
    for photograph in sorted(in_sequence, key=_natural_order):
        sequences[photograph.label].setdefault(first_of.get(photograph, photograph), []).append(photograph)
    return [list(units.values()) for units in sequences.values()]


def _natural_order(photograph: CheckedPhotograph) -> tuple[list[str | int], str]:
    # Text and numbers alternate, so that text is only ever compared with text.
    pieces = re.split(r"(\d+)", photograph.path.name)
    return [int(piece) if piece.isdecimal() else piece for piece in pieces], photograph.path.name


def _cut_sequence(
    units: Sequence[Sequence[CheckedPhotograph]], fractions: tuple[float, float, float]
) -> dict[CheckedPhotograph, Part]:
    """Cut a class between units, as near to the fractions as can be. Each part gets a unit if there are enough."""
    before = [0]  # photographs before each unit
    for unit in units:
        before.append(before[-1] + len(unit))

    def find_cut(fraction: float, first: int, last: int) -> int:
        return min(range(first, last + 1), key=lambda cut: abs(before[cut] - fraction * before[-1]), default=len(units))

    drawn = [(part, fraction) for part, fraction in zip(PARTS, fractions, strict=True) if fraction]
    cuts: list[int] = []
    for place in range(1, len(drawn)):
        share = sum(fraction for _, fraction in drawn[:place])
        cuts.append(find_cut(share, max(cuts, default=0) + 1, len(units) - len(drawn) + place))
    return {photograph: drawn[bisect_right(cuts, place)][0] for place, unit in enumerate(units) for photograph in unit}


def _find_gaps(check: DataCheck, split: Split) -> dict[str, list[Part]]:
    drawn = [part for part, fraction in zip(PARTS, split.fractions, strict=True) if fraction]
    present = {part: {photograph.label for photograph in split.photographs[part]} for part in drawn}
    gaps = {label: [part for part in drawn if label not in present[part]] for label in check.class_names}
    return {label: parts for label, parts in gaps.items() if parts}


def _describe_gaps(check: DataCheck, seed: int, gaps: Mapping[str, list[Part]]) -> str:
    sizes = check.class_sizes
    (label, parts), *others = gaps.items()
    first = (
        f"With seed {seed} no photograph of the class {label} falls into the {' and the '.join(parts)} part. "
        f"It has {sizes[label]} usable ones"
    )
    named = ", ".join(f"{label} ({' and '.join(parts)}, of {sizes[label]})" for label, parts in others)
    return f"{first}. The same holds for {named}" if others else first


def _count_enough(num_classes: int, fractions: tuple[float, float, float]) -> int:
    """Return how many photographs a class needs, so that 19 of 20 seeds leave no class out of a part."""
    drawn = [fraction for fraction in fractions if fraction]
    log_miss = math.log(1 - min(drawn))  # of the smallest part
    return math.ceil(math.log(0.05 / (len(drawn) * num_classes)) / log_miss)


def _valid_file(file: str) -> str:
    names = file.split("/")
    is_right = len(names) == 2 or (len(names) == 3 and find_part(names[0]))
    if not is_right or any(not name or name.startswith(".") or describe_odd_name(name) for name in names):
        raise ValueError("must be <label>/<file name>, or <part>/<label>/<file name>")
    return file


class SplitEntry(BaseModel):
    """Photograph of a stored split."""

    model_config = ConfigDict(frozen=True)

    file: Annotated[str, AfterValidator(_valid_file)]
    pixels_digest: str = Field(pattern="^[0-9a-f]{64}$")
    part: Part


class SplitList(BaseModel):
    """Content of `split.json`. It finds every part again, and any changed photograph."""

    model_config = ConfigDict(frozen=True)

    seed: int
    fractions: tuple[float, float, float]
    photographs: tuple[SplitEntry, ...]

    def part(self, part: Part) -> tuple[SplitEntry, ...]:
        """List the photographs of one part, by file."""
        return tuple(entry for entry in self.photographs if entry.part == part)


def split_to_json(split: Split) -> str:
    """Return the split as `split.json`, one photograph a line, by file. Every machine gives the same bytes."""
    rows = sorted(
        (photograph.file, photograph.pixels_digest, part) for part in PARTS for photograph in split.photographs[part]
    )
    lines = ",\n".join(
        "  " + json.dumps({"file": file, "pixels_digest": pixels_digest, "part": part}, ensure_ascii=False)
        for file, pixels_digest, part in rows
    )
    head = f'"seed": {split.seed},\n "fractions": {json.dumps(split.fractions)},\n "photographs": [\n'
    return "{" + head + lines + "\n ]}\n"


def parse_split(text: bytes, name: str) -> SplitList:
    """Parse a split list. `name` is for messages. Raises `DatasetError` if it is wrong or names a file twice."""
    try:
        split = SplitList.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the document"
        raise DatasetError(
            f"The split list {name} is wrong at {where} ({first['msg']}). Give one that `train` wrote."
        ) from error
    if len({entry.file for entry in split.photographs}) != len(split.photographs):
        raise DatasetError(f"The split list {name} names a file twice. Give one that `train` wrote.")
    return split
