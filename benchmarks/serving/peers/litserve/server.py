"""LitServe with two workers and batching, as lightning.ai/docs/litserve has it."""

import os
import sys

import litserve as ls
import numpy as np
from square import read_square


class Flowers(ls.LitAPI):
    """LitServe's API. Each worker imports TensorFlow in `setup`, and the front process does without it."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe names it
        """Load the SavedModel."""
        import tensorflow as tf

        self.loaded = tf.saved_model.load(os.environ["SAVED_MODEL"])
        self.signature = self.loaded.signatures["serving_default"]
        self.constant = tf.constant

    def decode_request(self, request) -> np.ndarray:
        """Read a form's file. No type is given, as LitServe would take it for that of a JSON body."""
        return read_square(request["file"].file)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Answer a batch that LitServe has stacked."""
        return self.signature(images=self.constant(np.stack(images)))["probabilities"].numpy()

    def encode_response(self, probabilities: np.ndarray) -> dict[str, list[float]]:
        """Return probabilities in the order of the classes."""
        return {"probabilities": probabilities.tolist()}


if __name__ == "__main__":
    api = Flowers(max_batch_size=32, batch_timeout=0.01)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
