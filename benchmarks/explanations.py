"""Deletion and insertion curves of three heat maps: occlusion as served, Grad-CAM on the SavedModel, random cells.

    python benchmarks/explanations.py FOLDER

FOLDER has the class folders of the served version's split list. A hundred photographs of the test part are drawn with a
fixed seed. For each, the most probable class is explained. Then a heat map orders the pixels. Deletion covers them with
the image's mean colour, hottest first. Insertion uncovers them on a blurred image. Stated is the area under the class's
probability. A good map has a small area of deletion and a large one of insertion. The results go to
`benchmarks/results/explanations.json`.

The gradients need the network's layers, which the SavedModel's signature hides. So its weights go into the Keras
network, which must give the same probabilities. Grad-CAM orders without its last ReLU, which would leave ties.

Sources: Petsiuk et al. (2018), "RISE", section 4.1. Selvaraju et al. (2017), "Grad-CAM", section 3.
"""

import argparse
import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, describe_machine
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from service.engines.engine import Engine
from service.engines.open_version import ServedVersion, open_stored
from service.engines.wish import EngineWish
from service.imaging.decode import decode_image
from service.imaging.pixels import Pixels
from service.imaging.resize import resize
from service.inference.occlusion import list_images, measure_drops
from service.networks.alexnet import NETWORKS
from service.store.layout import SPLIT_FILE

NUM_PHOTOGRAPHS, NUM_STEPS, SEED = 100, 28, 0
LAST_CONVOLUTION = "conv5_relu"
BLUR_RADIUS = 12  # pixels
TOLERANCE = 1e-4  # of a probability

Map = NDArray[np.float32]
"""float32, shape (rows, columns). It covers the square."""


class KerasNetwork:
    """The served version's network in Keras, with the weights of its SavedModel."""

    def __init__(self, version: ServedVersion) -> None:
        import tensorflow as tf

        metadata = version.metadata
        self._tensorflow = tf
        self._rule, self._temperature = metadata.preprocessing, metadata.temperature
        network = NETWORKS[metadata.network.name](metadata.network.num_classes)
        saved = tf.saved_model.load(str(version.verified.folder))
        network.set_weights([weight.numpy() for weight in saved.weights])  # they have its order
        self._network = tf.keras.Model(network.input, [network.get_layer(LAST_CONVOLUTION).output, network.output])

    def probabilities(self, squares: Pixels) -> NDArray[np.float32]:
        """Return float32, shape (N, num_classes)."""
        _, logits = self._network(self._normalise(squares), training=False)
        return np.asarray(self._tensorflow.nn.softmax(logits / self._temperature))

    def grad_cam(self, square: Pixels, class_index: int) -> Map:
        """Return the map of a class, shape (13, 13)."""
        with self._tensorflow.GradientTape() as tape:
            activations, logits = self._network(self._normalise(square[None]), training=False)
            score = logits[0, class_index]
        weights = tape.gradient(score, activations)[0].numpy().mean(axis=(0, 1))
        return np.asarray(activations[0] @ weights[:, None])[..., 0]

    def _normalise(self, squares: Pixels) -> NDArray[np.float32]:
        return squares.astype(np.float32) * np.float32(self._rule.scale) + np.float32(self._rule.offset)


def choose_photographs(version: ServedVersion, folder: Path) -> list[Path]:
    """Draw the photographs from the version's test part."""
    split = json.loads((version.verified.folder / SPLIT_FILE).read_text(encoding="utf-8"))
    files = sorted(row["file"] for row in split["photographs"] if row["part"] == "test")
    return [folder / file for file in np.random.default_rng(SEED).choice(files, NUM_PHOTOGRAPHS, replace=False)]


def occlude(engine: Engine, square: Pixels, class_index: int) -> Map:
    """Return the drops that the service answers."""
    images = np.stack([make() for make in list_images(square)])
    return measure_drops(list(engine.run(images).probabilities), class_index)


def order_pixels(heat: Map, size: int) -> NDArray[np.int64]:
    """List the pixels of a square by falling heat, as indices into its rows one after another."""
    smooth = Image.fromarray(heat).resize((size, size), Image.Resampling.BILINEAR)
    return np.argsort(-np.asarray(smooth), axis=None, kind="stable")


def change(square: Pixels, other: Pixels, order: NDArray[np.int64]) -> Iterator[Pixels]:
    """Yield `square` with ever more pixels of `other`, from none to all."""
    for step in range(NUM_STEPS + 1):
        changed = square.reshape(-1, 3).copy()
        places = order[: round(step / NUM_STEPS * len(order))]
        changed[places] = other.reshape(-1, 3)[places]
        yield changed.reshape(square.shape)


def measure_areas(network: KerasNetwork, square: Pixels, class_index: int, heat: Map) -> dict[str, float]:
    """Return the areas under the two curves, each of 0 to 1."""
    order = order_pixels(heat, len(square))
    mean = np.broadcast_to(square.mean(axis=(0, 1)).round().astype(np.uint8), square.shape)
    blurred = np.asarray(Image.fromarray(square).filter(ImageFilter.GaussianBlur(BLUR_RADIUS)))
    curves = {"deletion": change(square, mean, order), "insertion": change(blurred, square, order)}
    return {
        name: float(np.trapezoid(network.probabilities(np.stack(list(images)))[:, class_index], dx=1 / NUM_STEPS))
        for name, images in curves.items()
    }


def summarise(areas: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return mean areas, and the paired difference of occlusion to Grad-CAM with its 95 % interval by bootstrap."""
    result: dict[str, Any] = {name: {} for name in areas}
    draws = np.random.default_rng(SEED).integers(0, NUM_PHOTOGRAPHS, (10_000, NUM_PHOTOGRAPHS))
    for curve in ("deletion", "insertion"):
        values = {name: np.array([row[curve] for row in rows]) for name, rows in areas.items()}
        for name, found in values.items():
            result[name][curve] = round(float(found.mean()), 4)
        difference = values["occlusion"] - values["grad_cam"]
        low, high = np.percentile(difference[draws].mean(axis=1), [2.5, 97.5])
        result.setdefault("occlusion_minus_grad_cam", {})[curve] = {
            "mean": round(float(difference.mean()), 4),
            "low": round(float(low), 4),
            "high": round(float(high), 4),
        }
    return result


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the photographs, one folder per class")
    parser.add_argument("--model-store", type=Path, default=Path("model_store"))
    parser.add_argument("--model", default="flowers")
    asked = parser.parse_args()
    areas: dict[str, list[dict[str, float]]] = {"occlusion": [], "grad_cam": [], "random": []}
    random = np.random.default_rng(SEED)
    with closing(open_stored(asked.model_store, asked.model, EngineWish("onnxruntime", "cpu"))) as version:
        network = KerasNetwork(version)
        with closing(open_stored(asked.model_store, asked.model, EngineWish("savedmodel", "cpu"))) as reference:
            for path in choose_photographs(version, asked.folder):
                square = resize(decode_image(path.read_bytes()))
                probabilities = network.probabilities(square[None])
                difference = np.abs(probabilities - reference.engine.run(square[None]).probabilities).max()
                assert difference <= TOLERANCE, f"the Keras network differs from the SavedModel by {difference}"
                class_index = int(probabilities.argmax())
                maps = {
                    "occlusion": occlude(version.engine, square, class_index),
                    "grad_cam": network.grad_cam(square, class_index),
                    "random": random.random((7, 7), np.float32),
                }
                for name, heat in maps.items():
                    areas[name].append(measure_areas(network, square, class_index, heat))
        result = {
            "machine": describe_machine(),
            "model": {"name": asked.model, "version": version.version},
            "precision_of_occlusion": version.engine.info.precision,
            "num_photographs": NUM_PHOTOGRAPHS,
            "steps": NUM_STEPS,
            "seed": SEED,
            "areas": summarise(areas),
        }
    (RESULTS / "explanations.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["areas"], indent=1))


if __name__ == "__main__":
    main()
