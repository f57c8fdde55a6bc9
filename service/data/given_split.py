"""Split that a folder gives by its parts: train, validation and test. A part that it lacks is drawn from train."""

from collections.abc import Mapping
from dataclasses import replace

from service.data.check import CheckedPhotograph, DataCheck, Finding
from service.data.parts import PARTS, Part, describe_missing_classes
from service.data.split import DEFAULT_FRACTIONS, Split, draw_parts, set_aside
from service.errors import DatasetError


def take_given_split(check: DataCheck, seed: int) -> Split:
    """Take the usable photographs in the parts that their folder gives.

    Near-duplicates in two parts are used in the test part, or else in the validation part. The others are set aside,
    so that the measured accuracy is that of new photographs. The seed has an effect on a drawn part alone. `fractions`
    of the split are the shares of the parts.

    Raises `DatasetError` if a part lacks a class, or as `draw_parts` for a part that is drawn.
    """
    parts = {photograph: photograph.part for photograph in check.photographs if photograph.part}
    findings: list[Finding] = []
    for group in check.near_duplicates:
        last = max((parts[photograph] for photograph in group), key=PARTS.index)
        findings += set_aside(group, parts, last)
    photographs = {part: tuple(one for one in parts if parts[one] == part) for part in PARTS}
    if fault := describe_missing_classes(check.class_names, _find_labels(photographs, check.given_parts)):
        raise DatasetError(fault)
    if lacking := [part for part in PARTS if part not in check.given_parts]:
        drawn = _draw(replace(check, photographs=photographs["train"], given_parts=()), seed, lacking)
        photographs |= {part: drawn.photographs[part] for part in ("train", *lacking)}
        findings += drawn.set_aside
    total = sum(map(len, photographs.values()))
    train, validation, test = (len(photographs[part]) / total for part in PARTS)
    return Split(seed, (train, validation, test), photographs, tuple(findings))


def _find_labels(
    photographs: Mapping[Part, tuple[CheckedPhotograph, ...]], parts: tuple[Part, ...]
) -> dict[Part, set[str]]:
    return {part: {photograph.label for photograph in photographs[part]} for part in parts}


def _draw(train: DataCheck, seed: int, lacking: list[Part]) -> Split:
    """Draw the parts that are lacking from the training photographs. The usual fractions keep their ratio."""
    weights = [
        fraction if part == "train" or part in lacking else 0.0
        for part, fraction in zip(PARTS, DEFAULT_FRACTIONS, strict=True)
    ]
    of_train, of_validation, of_test = (weight / sum(weights) for weight in weights)
    try:
        return draw_parts(train, seed, (of_train, of_validation, of_test))
    except DatasetError as error:
        raise DatasetError(
            f"The folder gives no {' and no '.join(lacking)} part, so train is divided. {error} Or add a folder "
            f"{lacking[0]}."
        ) from error
