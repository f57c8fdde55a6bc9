"""Choice of the recipe and the network for a folder."""

from collections.abc import Collection
from dataclasses import dataclass

FLOWERS = frozenset({"daisy", "dandelion", "roses", "sunflowers", "tulips"})
"""Classes of flower_photos. A folder of exactly these trains an AlexNet."""


@dataclass(frozen=True)
class Choice:
    """Name of a recipe, and the reason for it as a sentence."""

    recipe: str
    why: str


def choose_recipe(
    class_names: Collection[str] | None,
    *,
    name: str | None,
    recipe: str | None,
    network: str | None,
    teacher: str | None,
) -> Choice:  # fmt: skip
    """Choose `transfer` for a person's own classes, else `default`.

    `class_names` are those of the folder, or None without a folder. `name` is the model's, as the user gives it. The
    other arguments are settings. None means that they are not given. A given recipe, network or teacher decides.
    """
    if recipe is not None:
        return Choice(recipe, f"--recipe {recipe} was given.")
    if network is not None:
        return Choice("default" if network.startswith("alexnet") else "transfer", f"--network {network} was given.")
    if teacher is not None:
        return Choice("default", "--teacher was given, and only AlexNet has one.")
    if class_names is None:
        return Choice("default", "It is the network for flower_photos.")
    if name == "flowers":
        return Choice("default", "--name is flowers, whose network is AlexNet. --recipe transfer is more accurate.")
    if set(class_names) == FLOWERS:
        return Choice("default", "The classes are those of flower_photos. --recipe transfer is more accurate.")
    return Choice("transfer", "It is pretrained, so few photographs of your own classes are enough.")
