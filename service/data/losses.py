"""Summary of unusable photographs, for an error that follows from their loss."""

from collections import defaultdict
from collections.abc import Sequence

from service.data.check import DataCheck
from service.data.names import normalise_name
from service.errors import DatasetError

_UNUSED = frozenset(("unreadable", "not-an-image", "broken-image", "image-too-large", "duplicate", "two-labels"))
_BY_DETAIL = frozenset(("not-an-image", "broken-image"))  # such as HEIC; of the others each file has its own
_MOST_REASONS, _MOST_CLASSES = 3, 5


def refuse_lost_classes(check: DataCheck) -> None:
    """Refuse a folder in which all files of a class are lost. Raises `DatasetError` with counts and reasons."""
    lost = [label for label, size in check.class_sizes.items() if size == 0]
    if lost:
        reasons = " ".join(describe_losses(check, [label]) for label in lost[:_MOST_CLASSES])
        more = f" The same holds for {len(lost) - _MOST_CLASSES} more classes." if len(lost) > _MOST_CLASSES else ""
        raise DatasetError(f"{reasons}{more} Each class needs usable photographs. Replace these files.")


def describe_losses(check: DataCheck, labels: Sequence[str] | None = None) -> str:
    """Sum up which files the check found unusable or alike.

    `labels` are classes to sum up. None means the whole folder as one. The text has counts, and an example of each
    reason. It is empty if nothing was found.
    """
    files: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    num_alike = 0
    for finding in check.findings:
        chosen = [file for file in finding.files if labels is None or normalise_name(file.split("/")[-2]) in labels]
        if finding.kind in _UNUSED:
            key = finding.kind, finding.detail if finding.kind in _BY_DETAIL else ""
            files[key] += [(file, finding.detail) for file in chosen]
        elif finding.kind == "near-duplicates":
            num_alike += len(chosen)
    reasons = sorted((found for found in files.items() if found[1]), key=lambda found: -len(found[1]))
    num_lost = sum(len(named) for _, named in reasons)
    num_usable = sum(size for label, size in check.class_sizes.items() if labels is None or label in labels)
    place = "" if labels is None else f" of {', '.join(labels)}"
    sentences = []
    if num_lost:
        named = " ".join(_describe_reason(kind, named) for (kind, _), named in reasons[:_MOST_REASONS])
        more = f" Other reasons hold for {sum(len(named) for _, named in reasons[_MOST_REASONS:])}."
        sentences.append(
            f"{num_lost} of {num_lost + num_usable} files{place} cannot be used. "
            f"{named}{more if len(reasons) > _MOST_REASONS else ''}"
        )
    if num_alike:
        sentences.append(f"{num_alike} of {num_usable} usable photographs{place} are near-duplicates of others.")
    return " ".join(sentences)


def _describe_reason(kind: str, named: Sequence[tuple[str, str]]) -> str:
    file, detail = named[0]
    return f"{kind} holds for {len(named)}, such as {file} ({detail.removesuffix('.')})."
