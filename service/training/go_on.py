"""Training that goes on with a stored version's network."""

from contextlib import closing

import keras

from service.data.dataset import Dataset
from service.engines.open_version import ServedVersion, open_stored
from service.engines.wish import EngineWish
from service.errors import SettingsError
from service.evaluation.score import score_each
from service.evaluation.seen import find_learned
from service.networks.alexnet import NETWORKS
from service.training.alexnet import answer, fit_alexnet
from service.training.calibrate import calibrate
from service.training.observer import Observer
from service.training.recipe import AlexNetRecipe, recipe_values
from service.training.run import Run
from service.training.trained_network import TrainedNetwork


def go_on(dataset: Dataset, recipe: AlexNetRecipe, run: Run, observer: Observer) -> TrainedNetwork:
    """Train the network of version `recipe.begin_with` on, on training and validation part.

    The version has learned from both parts, or chosen its weights by one. So the test part calibrates. Raises as
    `train`, and `SettingsError` for a version that does not fit.
    """
    observer.stage(f"loading version {recipe.begin_with}")
    begin = load_network(dataset, recipe, run)
    observer.stage(f"decoding {sum(map(len, dataset.split.photographs.values())):,} photographs")
    known, test = dataset.full_images("train", "validation"), dataset.squares("test")
    fitted = fit_alexnet(dataset, recipe, run, observer, known, None, begin)
    blend_weights(fitted.network, begin, recipe.begun_share)
    observer.stage("calibrating")
    calibration = calibrate(answer(fitted.network, recipe, test), test.class_indices, "test")
    values = {
        **recipe_values(recipe), "seed": dataset.seed, "device": run.began_on, "epochs_done": len(fitted.history),
        "teacher_accuracy": None, "outliers": len(dataset.outliers), "held_out_sources": list(recipe.held_out_sources),
    }  # fmt: skip
    return TrainedNetwork(
        fitted.network, recipe.scale, recipe.offset, calibration, test, values, fitted.history, fitted.interrupted,
        is_finished=not fitted.interrupted,
    )  # fmt: skip


def load_network(dataset: Dataset, recipe: AlexNetRecipe, run: Run) -> keras.Model:
    """Load the network of version `recipe.begin_with` of the run's model, without batch normalisation.

    Raises `SettingsError` for another network, other classes, or a version that has learned from the test part.
    """
    from service.training.export.saved_model import read_saved_weights  # here, as TensorFlow may be missing

    with closing(open_stored(run.store, run.model, EngineWish("savedmodel", "cpu"), recipe.begin_with)) as opened:
        if complaint := _complain(opened, dataset, recipe):
            raise SettingsError(f"--begin-with is {recipe.begin_with}. {complaint} Name another version, or none.")
        network = NETWORKS[recipe.network](len(dataset.class_names))
        network.set_weights(read_saved_weights(opened.verified.folder))
    return network


def blend_weights(network: keras.Model, begin: keras.Model, share: float) -> None:
    """Set the weights to the mean of themselves and of those of `begin`, which has the share `share`.

    The networks have the same layers, and `network` has learned from the weights of `begin`. The mean keeps much of
    what each can do.

    Source: Wortsman et al. (2022), "Robust fine-tuning of zero-shot models".
    """
    pairs = zip(network.get_weights(), begin.get_weights(), strict=True)
    network.set_weights([(1 - share) * trained + share * begun for trained, begun in pairs])


def _complain(opened: ServedVersion, dataset: Dataset, recipe: AlexNetRecipe) -> str:
    made = opened.metadata.preprocessing
    if opened.metadata.network.name != recipe.network:
        return f"It is an {opened.metadata.network.name}, and the recipe trains an {recipe.network}."
    if tuple(opened.metadata.class_names) != dataset.class_names:
        return "Its classes are not those of the folder."
    if (made.scale, made.offset) != (recipe.scale, recipe.offset):
        return "It sees pixels on another scale than the recipe's networks."
    learned = find_learned(opened)
    if learned is None:
        return "It does not say what it has learned from."
    paths = [photograph.path for photograph in dataset.split.photographs["test"]]
    scored = score_each(opened.engine, paths, opened.rule, dataset.limits, is_learned=learned.include)
    if number := sum(bool(one.is_learned) for one in scored):
        return f"It has learned from {number} of the test photographs. Give its --seed."
    return ""
