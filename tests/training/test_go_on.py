from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from support.fitting import RECIPE, tiny_network
from support.versions import example_metadata

from service.data.dataset import Dataset
from service.data.parts import PARTS
from service.data.split import split_to_json
from service.errors import SettingsError
from service.files import digest_bytes
from service.networks.alexnet import NETWORKS
from service.store.layout import METADATA_FILE, SPLIT_FILE
from service.store.metadata import Network, Preprocessing
from service.store.publish import publish_version
from service.training import alexnet
from service.training.export.saved_model import export_saved_model
from service.training.go_on import go_on, load_network
from service.training.observer import Observer
from service.training.run import Run
from service.training.schedule import Schedule

pytestmark = pytest.mark.usefixtures("eager")
STILL = replace(RECIPE, begin_with=1, batch_norm=False, schedule=Schedule(epochs=1, batch_size=16, learning_rate=0.0))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NETWORKS, "tiny", tiny_network)
    monkeypatch.setattr(alexnet, "MIN_EPOCH", 1)


def publish(of: keras.Model, run: Run, dataset: Dataset, **changes: Any) -> None:
    """Publish a version that has learned from the dataset's training and validation part."""
    split_list = split_to_json(dataset.split)
    fields = {
        "network": Network(name="tiny", num_classes=5, num_parameters=of.count_params()),
        "preprocessing": Preprocessing(scale=RECIPE.scale, offset=RECIPE.offset), "photograph_digest": "decoded",
        "split_digest": digest_bytes(split_list.encode()), "class_names": list(dataset.class_names),
    }  # fmt: skip
    with publish_version(run.store, run.model) as draft:
        export_saved_model(of, draft.folder, scale=RECIPE.scale, offset=RECIPE.offset, temperature=1.0)
        (draft.folder / METADATA_FILE).parent.mkdir(exist_ok=True)
        metadata = example_metadata(model=run.model, **(fields | changes))
        (draft.folder / METADATA_FILE).write_text(metadata.model_dump_json(), encoding="utf-8")
        (draft.folder / SPLIT_FILE).write_text(split_list, encoding="utf-8")


def made_network() -> keras.Model:
    keras.utils.set_random_seed(4)
    network = tiny_network(5)
    network.get_layer("conv1").bias.assign(np.linspace(-0.5, 0.5, 8, dtype=np.float32))
    return network


def test_a_training_at_rest_gives_the_versions_network(dataset: Dataset, run: Run) -> None:
    begin = made_network()
    publish(begin, run, dataset)

    trained = go_on(dataset, STILL, run, Observer())

    for own, found in zip(begin.get_weights(), trained.network.get_weights(), strict=True):
        np.testing.assert_array_equal(found, own)
    test = dataset.squares("test")
    assert trained.calibration.part == "test"
    np.testing.assert_array_equal(trained.calibration.class_indices, test.class_indices)
    assert (trained.is_finished, trained.recipe_values["begin_with"]) == (True, 1)


@pytest.mark.long
def test_the_version_has_its_share_of_the_weights(dataset: Dataset, run: Run) -> None:
    publish(made_network(), run, dataset)
    moving = replace(STILL, schedule=replace(STILL.schedule, learning_rate=0.01))
    recipes = [replace(moving, begun_share=share) for share in (0.0, 0.25, 1.0)]

    networks = [
        go_on(dataset, recipe, replace(run, folder=run.folder / str(recipe.begun_share)), Observer()).network
        for recipe in recipes
    ]
    trained, blended, begun = (network.get_weights() for network in networks)

    assert not np.allclose(trained[0], begun[0], atol=1e-4)
    for three in zip(trained, blended, begun, strict=True):
        np.testing.assert_allclose(three[1], 0.75 * three[0] + 0.25 * three[2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"network": Network(name="alexnet_v1", num_classes=5, num_parameters=1)}, "It is an alexnet_v1"),
        ({"preprocessing": Preprocessing(scale=1 / 127.5, offset=-1.0)}, "another scale"),
        ({"split_digest": "0" * 64}, "does not say what it has learned"),
    ],
)
def test_a_version_that_does_not_fit_is_refused(
    changes: dict[str, Any], why: str, dataset: Dataset, run: Run
) -> None:  # fmt: skip
    publish(made_network(), run, dataset, **changes)
    with pytest.raises(SettingsError, match=f"--begin-with is 1.*{why}.*Name another version"):
        load_network(dataset, STILL, run)


def test_a_version_that_knows_the_test_part_is_refused(dataset: Dataset, run: Run) -> None:
    parts = dataset.split.photographs
    swapped = replace(dataset.split, photographs={**parts, "train": parts["test"], "test": parts["train"]})
    publish(made_network(), run, replace(dataset, split=swapped))
    with pytest.raises(SettingsError, match=r"has learned from 9 of the test photographs"):
        load_network(dataset, STILL, run)


class Steps(Observer):
    """Remembers the number of steps in an epoch."""

    num_steps = 0

    def step(self, epoch: int, step: int, num_steps: int, *_: float) -> None:
        self.num_steps = num_steps


def test_outliers_are_learned_beside_both_parts(dataset: Dataset, run: Run, tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{number}.png" for number in range(12))
    for path in paths:
        Image.new("RGB", (256, 256), (90, 90, 90)).save(path)
    publish(made_network(), run, dataset)
    still = replace(STILL, schedule=replace(STILL.schedule, batch_size=10))
    steps = Steps()

    trained = go_on(replace(dataset, outliers=paths), still, run, steps)

    assert steps.num_steps == (sum(len(dataset.split.photographs[part]) for part in PARTS[:2]) + 12) // 10
    assert trained.recipe_values["outliers"] == 12
