"""LitServe with a worker per core and batching before this project's decoder and engine."""

import sys

import litserve as ls
from our_engine import LARGEST_BATCH, WORKERS, OurEngine


class Flowers(ls.LitAPI):
    """LitServe's API with another engine."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe names it
        """Load the engine."""
        self.engine = OurEngine()

    def decode_request(self, request) -> bytes:
        """Read a form's file. No type is given, as LitServe would take it for that of a JSON body."""
        return request["file"].file.read()

    def batch(self, photographs: list[bytes]) -> list[bytes]:
        """Keep files apart, as they have no common shape."""
        return photographs

    def predict(self, photographs: list[bytes]) -> list[dict[str, list[float]]]:
        """Answer a batch that LitServe has gathered."""
        return self.engine.score(photographs)

    def unbatch(self, answers: list[dict[str, list[float]]]) -> list[dict[str, list[float]]]:
        """Keep the answers as they are."""
        return answers

    def encode_response(self, answer: dict[str, list[float]]) -> dict[str, list[float]]:
        """Return probabilities in the order of the classes."""
        return answer


if __name__ == "__main__":
    api = Flowers(max_batch_size=LARGEST_BATCH, batch_timeout=0.01)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=WORKERS)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
