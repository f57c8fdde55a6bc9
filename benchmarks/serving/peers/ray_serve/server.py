"""Ray Serve with two replicas and `serve.batch`, as docs.ray.io has it. A photograph is the body."""

import os
import signal
import sys

import numpy as np
import ray
from ray import serve
from square import read_square
from starlette.requests import Request


# More than a batch, or the proxy would hold back what the batch waits for; the documentation says so.
@serve.deployment(num_replicas=2, max_ongoing_requests=64, ray_actor_options={"num_cpus": 1})
class Flowers:
    """Replica that holds the SavedModel."""

    def __init__(self, folder: str) -> None:
        """Load the SavedModel."""
        import tensorflow as tf

        self.loaded = tf.saved_model.load(folder)
        self.signature = self.loaded.signatures["serving_default"]
        self.constant = tf.constant

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.01)
    async def score(self, images: list[np.ndarray]) -> list[list[float]]:
        """Answer a batch that Ray Serve has gathered."""
        return self.signature(images=self.constant(np.stack(images)))["probabilities"].numpy().tolist()

    async def __call__(self, request: Request) -> dict[str, list[float]]:
        """Return probabilities in the order of the classes."""
        return {"probabilities": await self.score(read_square(await request.body()))}


if __name__ == "__main__":
    ray.init(include_dashboard=False, num_cpus=2, _temp_dir=os.environ["SCRATCH"])
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(Flowers.bind(os.environ["SAVED_MODEL"]), route_prefix="/predict")
    signal.pause()
