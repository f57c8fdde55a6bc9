"""Parts of a split, and the folders that give them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from service.data.names import join_names

Part = Literal["train", "validation", "test"]
PARTS: tuple[Part, ...] = ("train", "validation", "test")

_FOLDERS: dict[str, Part] = {
    "train": "train", "training": "train", "val": "validation", "valid": "validation", "validation": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip


def find_part(folder_name: str) -> Part | None:
    """Return the part that a folder of this name gives, in any case of letters. None means that it gives none."""
    return _FOLDERS.get(folder_name.casefold())


def describe_missing_classes(class_names: Sequence[str], present: Mapping[Part, Collection[str]]) -> str | None:
    """Name the classes without photographs in each given part. `present` holds the labels of each part.

    The class names are those of all parts together. None means that each part has them all.
    """
    missing = {part: [label for label in class_names if label not in present[part]] for part in present}
    sentences = [
        f"The part {part} has no usable photograph of {join_names(missing[part])}." for part in missing if missing[part]
    ]
    if not sentences:
        return None
    return (
        f"{' '.join(sentences)} Each part needs photographs of all {len(class_names)} classes. Add some there, "
        "give the class folders one name in all parts, or remove the class from all parts."
    )
