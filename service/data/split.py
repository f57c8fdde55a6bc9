"""Split into train, validation and test. The seed and the pixels of a photograph choose its part.

So the split is the same on every machine. Removing a photograph moves no other one. Of a group of near-duplicates only
the members in its main part are used. 13 of the 3,281 photographs of flower_photos are lost, on average over 20 seeds.
A class that is mostly near-duplicates is cut in the order of its file names, without the seed. A small class, of which
chance leaves a part without a photograph, is cut at the fractions. Then removing a photograph may move another one.
"""

import hashlib
import json
import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from service.data.check import CheckedPhotograph, DataCheck, Finding
from service.data.folder import describe_odd_name
from service.data.parts import PARTS, Part, find_part
from service.errors import DatasetError

DEFAULT_FRACTIONS = (0.70, 0.15, 0.15)


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
    for other fractions, or if a class has too few photographs for all parts.
    """
    if min(fractions) <= 0 or not math.isclose(sum(fractions), 1):
        raise DatasetError(f"The split needs three fractions above 0 with sum 1, not {fractions}.")
    return draw_parts(check, seed, fractions)


def draw_parts(check: DataCheck, seed: int, fractions: tuple[float, float, float]) -> Split:
    """Divide as `split_photographs`. A part whose fraction is 0 stays empty."""
    split = _split(check, seed, fractions)
    if gaps := _find_gaps(check, split):
        split = _split(check, seed, fractions, by_draw=[label for label in gaps if label not in check.sequences])
    if gaps := _find_gaps(check, split):
        named = ", ".join(f"{label} ({check.class_sizes[label]})" for label in gaps)
        raise DatasetError(
            f"Too few photographs of {named} are usable. Each of the {len(PARTS) - fractions.count(0)} parts needs one "
            "of each class, and near-duplicates count as one. Add photographs."
        )
    return split


def choose_part(seed: int, pixels_digest: str, fractions: tuple[float, float, float]) -> Part:
    """Return the part of a photograph. The sha256 of seed and pixels is compared with summed `fractions`."""
    position = _position(seed, pixels_digest)
    if position < fractions[0]:
        return "train"
    return "validation" if position < fractions[0] + fractions[1] or not fractions[2] else "test"


def _position(seed: int, pixels_digest: str) -> float:
    digest = hashlib.sha256(f"{seed}:{pixels_digest}".encode()).digest()
    return int.from_bytes(digest[:8]) / 2**64


def _split(
    check: DataCheck, seed: int, fractions: tuple[float, float, float], *, by_draw: Collection[str] = ()
) -> Split:
    """Divide the photographs. The classes in `by_draw` are cut in the order of their draws, each at the fractions."""
    parts = {photograph: choose_part(seed, photograph.pixels_digest, fractions) for photograph in check.photographs}
    sequences = _find_units(check, check.sequences, _natural_order)
    drawn = _find_units(check, by_draw, lambda photograph: _position(seed, photograph.pixels_digest))
    for units in (*sequences, *drawn):
        parts |= _cut_sequence(units, fractions)
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


def _find_units(
    check: DataCheck, labels: Collection[str], order: Callable[[CheckedPhotograph], Any]
) -> list[list[list[CheckedPhotograph]]]:
    """List the photographs of each class in an order. A group of near-duplicates stands where its first member is."""
    first_of = {photograph: group[0] for group in check.near_duplicates for photograph in group}
    units: dict[str, dict[CheckedPhotograph, list[CheckedPhotograph]]] = {label: {} for label in labels}
    for photograph in sorted((one for one in check.photographs if one.label in units), key=order):
        units[photograph.label].setdefault(first_of.get(photograph, photograph), []).append(photograph)
    return [list(of_class.values()) for of_class in units.values()]


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
