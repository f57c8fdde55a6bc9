"""Really trained and exported versions, in seconds: a small network that knows drawn flowers by colour."""

import hashlib
import json
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray
from support.drawing import CLASS_NAMES, draw_photograph, encode
from support.versions import example_metadata

from service.data.check import pixels_digest
from service.engines.engine import Scores
from service.evaluation.metrics import evaluate
from service.imaging.decode import decode_image
from service.imaging.pixels import Pixels
from service.imaging.resize import resize
from service.store.layout import METADATA_FILE, SPLIT_FILE
from service.store.metadata import Network, PartMetrics, Preprocessing
from service.store.publish import publish_version
from service.training.calibrate import calibrate, energies, softmax
from service.training.export.light_model import export_cpu_models
from service.training.export.saved_model import export_saved_model
from service.training.trained_network import name_outputs

SCALE, OFFSET, TEMPERATURE = 1 / 127.5, -1.0, 1.25
_TRAIN, _TEST = range(100, 116), range(200, 208)  # seeds of drawings


def draw_squares(seeds: range) -> tuple[Pixels, NDArray[np.intp]]:
    """Drawn flowers by way of JPEG, decoder and resize: uint8 (N, 224, 224, 3) and their class indices."""
    pairs = [(class_index, seed) for seed in seeds for class_index in range(len(CLASS_NAMES))]
    squares = [resize(decode_image(encode(draw_photograph(*pair)))) for pair in pairs]
    return np.stack(squares), np.array([class_index for class_index, _ in pairs])


def build_tiny_network(num_classes: int = len(CLASS_NAMES), *, seed: int = 0) -> keras.Model:
    """Untrained, float32 (N, 224, 224, 3) -> logits: which colours there are, and roughly where."""
    keras.utils.set_random_seed(seed)
    images = keras.Input((224, 224, 3))
    x = keras.layers.AveragePooling2D(4)(images)
    x = keras.layers.Conv2D(16, 1, activation="relu")(x)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(14)(x))
    return keras.Model(images, keras.layers.Dense(num_classes)(keras.layers.Dropout(0.1)(x)))


@cache
def trained_tiny_network() -> keras.Model:
    """Trained once per session; right on drawings that it has not seen, and sure of them."""
    network = build_tiny_network()
    network.compile(keras.optimizers.Adam(0.02), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    squares, class_indices = draw_squares(_TRAIN)
    network.fit(normalise(squares), class_indices, batch_size=16, epochs=20, verbose=0)
    return network


def with_distance(network: keras.Model) -> keras.Model:
    """The same network with a second output, (N,): how far its features are from none."""
    features = network.layers[-2].output
    distance = keras.ops.sqrt(keras.ops.sum(keras.ops.square(features), axis=-1))
    return keras.Model(network.input, {"logits": network.output, "distance": distance})


def normalise(squares: Pixels) -> NDArray[np.float32]:
    """What the exported signature does to pixels before the network."""
    return squares.astype(np.float32) * np.float32(SCALE) + np.float32(OFFSET)


def expected_scores(network: Any, squares: Pixels) -> Scores:
    """What the exported signature `scores` should answer, computed in this process."""
    outputs = name_outputs(network(normalise(squares), training=False))
    logits, distance = np.asarray(outputs["logits"]), outputs.get("distance")
    probabilities = softmax(logits, TEMPERATURE).astype(np.float32)
    return Scores(probabilities, energies(logits), None if distance is None else np.asarray(distance))


def export_tiny_version(store: Path, model: str = "flowers", *, cpu_models: bool = True) -> Path:
    """Publish the tiny network, with complete metadata and split list, as a new version; returns `store`.

    Without `cpu_models` as the first versions were.
    """
    network = trained_tiny_network()
    squares, class_indices = draw_squares(_TEST)
    expected = expected_scores(network, squares)
    measured = evaluate(expected.probabilities, class_indices, CLASS_NAMES)
    calibration = calibrate(np.asarray(network(normalise(squares), training=False)), class_indices, "test")
    split_list = _split_list()
    fields: dict[str, Any] = {
        "model": model,
        "preprocessing": Preprocessing(scale=SCALE, offset=OFFSET),
        "network": Network(name="tiny", num_classes=len(CLASS_NAMES), num_parameters=network.count_params()),
        "recipe": {"name": "tiny", "seed": 0, "epochs": 20},
        "split_digest": hashlib.sha256(split_list.encode()).hexdigest(),
        "metrics": [
            PartMetrics(
                part="test",
                num_photographs=measured.num_photographs,
                num_correct=measured.num_correct,
                accuracy=measured.accuracy,
                accuracy_low=measured.accuracy_low,
                accuracy_high=measured.accuracy_high,
                expected_calibration_error=measured.expected_calibration_error,
            )
        ],
        "temperature": TEMPERATURE,
        "max_energy": calibration.max_energy,
        "created": datetime.now(UTC).replace(microsecond=0),
        "libraries": {"keras": version("keras")},
    }
    with publish_version(store, model) as draft:
        (draft.folder / METADATA_FILE).parent.mkdir()
        numbers = {"scale": SCALE, "offset": OFFSET, "temperature": TEMPERATURE}
        export_saved_model(network, draft.folder, **numbers)
        if cpu_models:
            fields["cpu_models"] = export_cpu_models(
                network,
                draft.folder,
                **numbers,
                calibration=draw_squares(_TRAIN)[0],
                images=squares,
                class_indices=class_indices,
                expected=expected,
                is_pretrained=False,
            )
            assert [model.refused for model in fields["cpu_models"]] == [None, None]
        metadata = example_metadata(**fields)
        (draft.folder / METADATA_FILE).write_text(metadata.model_dump_json(indent=1), encoding="utf-8")
        (draft.folder / SPLIT_FILE).write_text(split_list, encoding="utf-8")
    return store


def _split_list() -> str:
    """The drawn photographs as `split.json` lists them; the digests are those of what was really used."""
    photographs = [
        {
            "file": f"{label}/{seed:03d}.jpg",
            "pixels_digest": pixels_digest(decode_image(encode(draw_photograph(class_index, seed))).pixels),
            "part": part,
        }
        for class_index, label in enumerate(CLASS_NAMES)
        for part, seeds in (("train", _TRAIN), ("test", _TEST))
        for seed in seeds
    ]
    return json.dumps({"seed": 0, "fractions": [0.7, 0.15, 0.15], "photographs": photographs}, indent=1)
