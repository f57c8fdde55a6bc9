from typing import Any

import pytest

from service.errors import SettingsError
from service.training.recipe import AlexNetRecipe, Teaching, TransferRecipe, find_recipe, recipe_values

# The values that the documents name.
DOCUMENTED = {
    "article": {"network": "alexnet_v1", "epochs": 10, "batch_size": 32, "teacher": "none", "refit": False,
                "learning_rate": 1e-3, "scale": 1 / 255, "offset": 0.0, "every_device": True},
    "default": {"network": "alexnet_v2", "epochs": 320, "batch_size": 64, "teacher": "efficientnet_lite2",
                "num_views": 16, "teacher_epochs": 6, "teacher_tuned": 0.5, "refit": True, "scale": 1 / 127.5},
    "patient": {"network": "alexnet_v2", "epochs": 2000, "num_views": 36, "refit": True},
    "robust": {"network": "alexnet_v2", "epochs": 140, "num_views": 8, "teacher_epochs": 4, "refit": False},
    "transfer": {
        "network": "efficientnet_lite0", "tuned_network": "efficientnet_lite2", "epochs": 6, "tuned": 0.5,
        "min_validation": 50,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_recipe_has_the_documented_values(name: str) -> None:
    values = recipe_values(find_recipe(name))
    assert values == values | {"name": name} | DOCUMENTED[name]


def test_only_the_patient_recipe_cross_validates() -> None:
    recipes = {name: find_recipe(name) for name in DOCUMENTED}
    folds = {name: recipe.num_folds for name, recipe in recipes.items() if isinstance(recipe, AlexNetRecipe)}
    assert folds == {"article": 0, "default": 0, "patient": 4, "robust": 0}


def test_the_values_have_the_order_of_the_metadata() -> None:
    assert list(recipe_values(find_recipe("default"))) == [
        "name", "network", "epochs", "batch_size", "batch_norm", "dropout", "learning_rate", "warmup_epochs", "cosine",
        "weight_decay", "label_smoothing", "average_decay", "swa_share", "swa_learning_rate", "augmentation", "teacher",
        "num_views", "teacher_epochs", "teacher_tuned", "teacher_temperature", "feature_weight", "scale", "offset",
        "precision", "refit", "model_name", "every_device",
    ]  # fmt: skip


def test_given_values_replace_those_of_the_recipe() -> None:
    recipe = find_recipe("default", network="alexnet_v1", epochs=7, batch_size=3, teacher="efficientnet_lite0")
    assert isinstance(recipe, AlexNetRecipe)
    assert (recipe.network, recipe.schedule.epochs, recipe.schedule.batch_size) == ("alexnet_v1", 7, 3)
    assert recipe.teaching == Teaching("efficientnet_lite0", temperature=2.0, feature_weight=1.0)
    assert find_recipe("default", teacher="none").backbones == ()
    assert find_recipe("article", teacher="efficientnet_lite0").backbones == ("efficientnet_lite0",)


def test_a_training_that_goes_on_is_of_one_network() -> None:
    recipe = find_recipe("patient", begin_with=8)
    assert isinstance(recipe, AlexNetRecipe)
    assert (recipe.begin_with, recipe.num_folds, recipe.refit) == (8, 0, False)
    assert recipe_values(recipe)["begin_with"] == 8
    with pytest.raises(SettingsError, match="--begin-with is for an AlexNet"):
        find_recipe("transfer", begin_with=8)


def test_an_unknown_recipe_is_refused_with_those_there_are() -> None:
    with pytest.raises(SettingsError, match="article, default, patient, robust, transfer"):
        find_recipe("quick")


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("transfer", {"network": "alexnet_v2"}, "--network is alexnet_v2. The recipe transfer trains an EfficientNet"),
        ("default", {"network": "efficientnet_lite0"}, "The recipe default trains an AlexNet. Leave out one of"),
        ("transfer", {"teacher": "none"}, "The recipe transfer has no teacher. Leave out --teacher, or take --recipe"),
    ],
)
def test_a_recipe_refuses_what_it_cannot_train(name: str, given: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        find_recipe(name, **given)


def test_the_transfer_recipe_takes_other_networks_and_epochs() -> None:
    recipe = find_recipe("transfer", network="efficientnet_lite2", epochs=2, batch_size=8)
    assert isinstance(recipe, TransferRecipe)
    assert (recipe.network, recipe.backbones) == ("efficientnet_lite2", ("efficientnet_lite2",))
    assert (recipe.schedule.epochs, recipe.schedule.batch_size) == (2, 8)
    assert list(recipe_values(recipe))[:4] == ["name", "network", "epochs", "batch_size"]


def test_values_out_of_bounds_are_refused() -> None:
    with pytest.raises(SettingsError, match="epochs"):
        find_recipe("default", epochs=-1)
