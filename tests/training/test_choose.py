import pytest

from service.training.choose import FLOWERS, choose_recipe

OWN = ("cat", "dog")


@pytest.mark.parametrize(
    ("class_names", "given", "recipe", "why"),
    [
        (OWN, {}, "transfer", "few photographs of your own classes are enough"),
        (OWN, {"name": "garden"}, "transfer", "pretrained"),
        ((*FLOWERS, "orchids"), {}, "transfer", "pretrained"),
        (sorted(FLOWERS)[:4], {}, "transfer", "pretrained"),
        (sorted(FLOWERS), {}, "default", "The classes are those of flower_photos. --recipe transfer"),
        (OWN, {"name": "flowers"}, "default", "--name is flowers"),
        (None, {}, "default", "the network for flower_photos"),
        (OWN, {"recipe": "patient"}, "patient", "--recipe patient was given."),
        (None, {"recipe": "transfer"}, "transfer", "--recipe transfer was given."),
        (OWN, {"name": "flowers", "recipe": "transfer"}, "transfer", "--recipe transfer was given."),
        (OWN, {"network": "alexnet_v1"}, "default", "--network alexnet_v1 was given."),
        (sorted(FLOWERS), {"network": "efficientnet_lite2"}, "transfer", "--network efficientnet_lite2 was given."),
        (OWN, {"teacher": "none"}, "default", "--teacher was given"),
    ],
)
def test_own_classes_are_transferred_unless_told_otherwise(
    class_names: list[str] | None, given: dict[str, str], recipe: str, why: str
) -> None:
    settings = {"name": None, "recipe": None, "network": None, "teacher": None, **given}
    choice = choose_recipe(class_names, **settings)
    assert choice.recipe == recipe
    assert why in choice.why
