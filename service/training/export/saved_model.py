"""SavedModel of a trained network: pixels in, probabilities out."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from service.engines.engine import Probabilities
from service.errors import PublishError
from service.imaging.pixels import Pixels
from service.store.layout import INPUT, OUTPUT, SIGNATURE

_TOLERANCE = 1e-5  # of a probability, and of the sum of all: float32 sums reorder with the batch size and the device
# A stranger's program. Nothing of this project is imported, so nothing of it can help.
_STRANGER = f"""
import sys
import numpy as np
import tensorflow as tf

folder, examples, answers = sys.argv[1:]
serving_default = tf.saved_model.load(folder).signatures["{SIGNATURE}"]
images = np.load(examples)
by_size = {{
    str(size): serving_default({INPUT}=tf.constant(images[:size]))["{OUTPUT}"].numpy()
    for size in map(int, sys.stdin.read().split())
}}
np.savez(answers, **by_size)
"""


def export_saved_model(logits_model: Any, folder: Path, *, scale: float, offset: float, temperature: float) -> None:
    """Write `saved_model.pb` and `variables/` with one signature, `serving_default`, into `folder`.

    The signature takes `images`, uint8 (N, image_size, image_size, 3), RGB, any N. It returns `probabilities`, float32
    (N, num_classes). Normalisation, temperature and softmax are inside. Loading it does not need Keras.

    Args:
        logits_model: keras.Model from float32 (N, image_size, image_size, 3) to logits (N, num_classes).
        folder: An existing or a new folder. Other files in it are left alone.
        scale, offset: The network sees `pixel * scale + offset`.
        temperature: Divisor of the logits.

    Raises:
        PublishError: The folder cannot be written.
    """

    def serving_default(images: Any) -> dict[str, Any]:
        logits = logits_model(tf.cast(images, tf.float32) * scale + offset, training=False)
        return {OUTPUT: tf.nn.softmax(tf.cast(logits, tf.float32) / temperature)}

    batch_shape = (None, *logits_model.input_shape[1:])
    signature = tf.function(serving_default, input_signature=[tf.TensorSpec(batch_shape, tf.uint8, INPUT)])
    holder = tf.Module()
    # The bare variables. With the model, its optimizer and metrics would be saved, too.
    holder.weights = [weight.value for weight in logits_model.weights]
    try:
        tf.saved_model.save(holder, str(folder), signatures={SIGNATURE: signature})
        (folder / "assets").rmdir()  # empty, as the network reads no files
    except (OSError, tf.errors.OpError) as error:
        raise PublishError(f"the SavedModel could not be written to {folder}: {error}") from error


def check_saved_model(folder: Path, images: Pixels, expected: Probabilities) -> None:
    """Load `folder` in a fresh process, as a stranger would, and compare its answers at three batch sizes.

    The other process runs on the CPU, with plain `tf.saved_model.load` and without this project.

    Args:
        folder: Folder that `export_saved_model` wrote.
        images: uint8 (N, image_size, image_size, 3).
        expected: float32 (N, num_classes), the network's answers in this process.

    Raises:
        PublishError: The other process could not load or run it, or its answers differ. The message says by how much.
    """
    sizes = sorted({1, (len(images) + 1) // 2, len(images)})
    for size, answer in _ask_a_stranger(folder, images, sizes).items():
        if complaint := _compare(answer, expected[:size]):
            raise PublishError(f"the exported SavedModel, reloaded, fails at batch size {size}: {complaint}")


def _compare(answer: NDArray[Any], expected: Probabilities) -> str:
    """Describe a wrong answer. Return an empty string for a right one."""
    if answer.dtype != np.float32 or answer.shape != expected.shape:
        return f"it answers {answer.dtype} {answer.shape}, expected float32 {expected.shape}"
    difference = float(np.max(np.abs(answer - expected)))
    if not difference <= _TOLERANCE:  # put this way round, NaN is wrong too
        return f"it differs from the trained network by {difference:.2g}, at most {_TOLERANCE:.2g} is allowed"
    excess = float(np.max(np.abs(answer.sum(axis=1) - 1)))
    if not excess <= _TOLERANCE:
        return f"its probabilities miss the sum of 1 by {excess:.2g}"
    return ""


def _ask_a_stranger(folder: Path, images: Pixels, sizes: list[int]) -> dict[int, Probabilities]:
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
        with np.load(answers) as by_size:
            return {size: by_size[str(size)] for size in sizes}
