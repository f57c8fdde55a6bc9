"""BentoML with two workers and adaptive batching, as docs.bentoml.com has it."""

import os

import bentoml
import numpy as np
import tensorflow as tf
from PIL.Image import Image
from square import square


@bentoml.service(workers=2)
class Flowers:
    """Service whose workers hold the SavedModel each."""

    def __init__(self) -> None:
        """Load the SavedModel."""
        self.loaded = tf.saved_model.load(os.environ["SAVED_MODEL"])
        self.signature = self.loaded.signatures["serving_default"]

    @bentoml.api(batchable=True, max_batch_size=32)
    def predict(self, images: list[Image]) -> list[list[float]]:
        """Answer a batch that BentoML has gathered."""
        squares = np.stack([square(image) for image in images])
        return self.signature(images=tf.constant(squares))["probabilities"].numpy().tolist()
