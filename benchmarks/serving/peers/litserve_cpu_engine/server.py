"""LitServe around this project's engine onnxruntime. It tells the server's part of a difference from the engine's."""

import os
import sys
from pathlib import Path

import litserve as ls
import numpy as np
from square import read_square


class Flowers(ls.LitAPI):
    """LitServe's API with another engine."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe names it
        """Load the engine that `--engine auto` takes where TensorFlow is not installed."""
        from service.engines.open_version import load_engine
        from service.engines.wish import EngineWish
        from service.store.verify import verify_version

        self.engine = load_engine(verify_version(Path(os.environ["SAVED_MODEL"])), EngineWish(device="cpu"))
        self.engine.warm_up(32)

    def decode_request(self, request) -> np.ndarray:
        """Read a form's file. No type is given, as LitServe would take it for that of a JSON body."""
        return read_square(request["file"].file)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Answer a batch that LitServe has stacked."""
        return self.engine.run(np.stack(images))

    def encode_response(self, probabilities: np.ndarray) -> dict[str, list[float]]:
        """Return probabilities in the order of the classes."""
        return {"probabilities": probabilities.tolist()}


if __name__ == "__main__":
    api = Flowers(max_batch_size=32, batch_timeout=0.01)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
