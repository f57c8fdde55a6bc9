"""SavedModel of a trained network: pixels in, scores out."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.engines.engine import Scores
from service.errors import PublishError
from service.imaging.pixels import Pixels
from service.store.layout import DISTANCE, ENERGY, INPUT, OUTPUT, SCORES_SIGNATURE, SIGNATURE
from service.training.trained_network import score_outputs

_TOLERANCE = 1e-5  # of a probability, and of the sum of all: float32 sums reorder with the batch size and the device
_RELATIVE_TOLERANCE = 1e-4  # of an energy or a distance. Below 1 it is absolute
# A stranger's program. Nothing of this project is imported, so nothing of it can help.
_STRANGER = f"""
import sys
import numpy as np
import tensorflow as tf

folder, examples, answers = sys.argv[1:]
signatures = tf.saved_model.load(folder).signatures
images = np.load(examples)
by_place = {{
    f"{{size}}/{{signature}}/{{name}}": tensor.numpy()
    for size in map(int, sys.stdin.read().split())
    for signature in ("{SIGNATURE}", "{SCORES_SIGNATURE}")
    for name, tensor in signatures[signature]({INPUT}=tf.constant(images[:size])).items()
}}
np.savez(answers, **by_place)
"""


def export_saved_model(network: Any, folder: Path, *, scale: float, offset: float, temperature: float) -> None:
    """Write `saved_model.pb` and `variables/` with the signatures `serving_default` and `scores` into `folder`.

    Both take `images`, uint8 (N, image_size, image_size, 3), RGB, any N. `serving_default` returns `probabilities`,
    float32 (N, num_classes). `scores` returns all of `score_outputs`. Normalisation, temperature and softmax are
    inside. Loading it does not need Keras.

    Args:
        network: keras.Model from float32 (N, image_size, image_size, 3) to outputs as of `name_outputs`.
        folder: An existing or a new folder. Other files in it are left alone.
        scale, offset: The network sees `pixel * scale + offset`.
        temperature: Divisor of the logits.

    Raises:
        PublishError: The folder cannot be written.
    """

    def scores(images: Any) -> dict[str, Any]:
        return score_outputs(network(tf.cast(images, tf.float32) * scale + offset, training=False), temperature)

    def serving_default(images: Any) -> dict[str, Any]:
        return {OUTPUT: scores(images)[OUTPUT]}

    takes = [tf.TensorSpec((None, *network.input_shape[1:]), tf.uint8, INPUT)]
    functions = {SIGNATURE: serving_default, SCORES_SIGNATURE: scores}
    signatures = {name: tf.function(function, input_signature=takes) for name, function in functions.items()}
    holder = tf.Module()
    # The bare variables. With the model, its optimizer and metrics would be saved, too.
    holder.weights = [weight.value for weight in network.weights]
    try:
        tf.saved_model.save(holder, str(folder), signatures=signatures)
        (folder / "assets").rmdir()  # empty, as the network reads no files
    except (OSError, tf.errors.OpError) as error:
        raise PublishError(f"the SavedModel could not be written to {folder}: {error}") from error


def read_saved_weights(folder: Path) -> list[NDArray[np.float32]]:
    """Return the weights that `export_saved_model` wrote, in the order of the network's own.

    Raises `PublishError` for a SavedModel of another program.
    """
    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        names = [name for name in reader.get_variable_to_shape_map() if name.startswith("weights/")]
        return [reader.get_tensor(name) for name in sorted(names, key=lambda name: int(name.split("/")[1]))]
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        raise PublishError(
            f"The weights of {folder} cannot be read ({error}). Begin with a version that this program wrote."
        ) from error


def check_saved_model(folder: Path, images: Pixels, expected: Scores) -> None:
    """Load `folder` in a fresh process, as a stranger would, and compare both signatures at three batch sizes.

    The other process runs on the CPU, with plain `tf.saved_model.load` and without this project.

    Args:
        folder: Folder that `export_saved_model` wrote.
        images: uint8 (N, image_size, image_size, 3).
        expected: The network's scores in this process, N rows.

    Raises:
        PublishError: The other process could not load or run it, or its answers differ. The message says by how much.
    """
    sizes = sorted({1, (len(images) + 1) // 2, len(images)})
    answers = _ask_a_stranger(folder, images, sizes)
    for size in sizes:
        wanted = {name: value for name, value in vars(expected.first(size)).items() if value is not None}
        for signature, names in ((SIGNATURE, {OUTPUT}), (SCORES_SIGNATURE, set(wanted))):
            start = f"{size}/{signature}/"
            found = {place.removeprefix(start): value for place, value in answers.items() if place.startswith(start)}
            if complaint := compare_answers(found, {name: wanted[name] for name in names}):
                raise PublishError(
                    f"{signature} of the exported SavedModel, reloaded, fails at batch size {size}: {complaint}"
                )


def compare_answers(found: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]]) -> str:
    """Describe a wrong answer of a signature, as tensors by name. Return an empty string for a right one."""
    if set(found) != set(wanted):
        return f"it answers {', '.join(sorted(found))}, expected {', '.join(sorted(wanted))}"
    if complaint := _compare(found[OUTPUT], wanted[OUTPUT]):
        return complaint
    for name in {ENERGY, DISTANCE} & set(wanted):
        difference = _relative_difference(found[name], wanted[name])
        if not difference <= _RELATIVE_TOLERANCE:  # put this way round, NaN is wrong too
            return f"its {name} differs from the trained network's by {difference:.2g}"
    return ""


def _relative_difference(found: NDArray[Any], wanted: NDArray[Any]) -> float:
    if found.dtype != np.float32 or found.shape != wanted.shape:
        return np.nan
    return float(np.max(np.abs(found - wanted) / np.maximum(1, np.abs(wanted))))


def _compare(answer: NDArray[Any], expected: NDArray[Any]) -> str:
    """Describe wrong probabilities. Return an empty string for right ones."""
    if answer.dtype != np.float32 or answer.shape != expected.shape:
        return f"it answers {answer.dtype} {answer.shape}, expected float32 {expected.shape}"
    difference = float(np.max(np.abs(answer - expected)))
    if not difference <= _TOLERANCE:  # put this way round, NaN is wrong too
        return f"it differs from the trained network by {difference:.2g}, at most {_TOLERANCE:.2g} is allowed"
    excess = float(np.max(np.abs(answer.sum(axis=1) - 1)))
    if not excess <= _TOLERANCE:
        return f"its probabilities miss the sum of 1 by {excess:.2g}"
    return ""


def _ask_a_stranger(folder: Path, images: Pixels, sizes: list[int]) -> dict[str, NDArray[Any]]:
    """Return the answers by `size/signature/name`."""
    with tempfile.TemporaryDirectory(prefix="flowers-export-") as scratch:
        examples, answers = Path(scratch, "examples.npy"), Path(scratch, "answers.npz")
        np.save(examples, images)
        process = subprocess.run(  # noqa: S603 - our own interpreter, our own program
            [sys.executable, "-c", _STRANGER, str(folder), str(examples), str(answers)],
            input=" ".join(map(str, sizes)),
            # On the CPU: this process may hold the GPU's memory.
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode != 0:
            last_line = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            error = PublishError(f"the exported SavedModel does not load and run in a fresh process: {last_line[:200]}")
            error.add_note(process.stderr[-4000:])  # for the log; the sentence is for people
            raise error
        with np.load(answers) as by_place:
            return dict(by_place)
