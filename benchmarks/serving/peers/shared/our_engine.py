"""Decoder and engine of this project, for peers that are other front ends of them.

The environment names the version (SAVED_MODEL), its precision (PRECISION) and the number of processes (WORKERS).
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from service.engines.open_version import load_engine
from service.engines.wish import EngineWish
from service.imaging.decode import decode_square
from service.imaging.limits import ResizeRule
from service.store.verify import verify_version

WORKERS = int(os.environ["WORKERS"])
LARGEST_BATCH = 32


class OurEngine:
    """Warmed-up engine that computes on one thread. Each process has its own."""

    def __init__(self) -> None:
        """Load the version's network for onnxruntime."""
        wish = EngineWish("onnxruntime", "cpu", os.environ["PRECISION"], threads=1)
        self._engine = load_engine(verify_version(Path(os.environ["SAVED_MODEL"])), wish)
        self._engine.warm_up(LARGEST_BATCH)

    def score(self, photographs: Sequence[bytes]) -> list[dict[str, list[float]]]:
        """Decode files and return an answer for each, with probabilities in the order of the classes."""
        squares = np.stack([decode_square(photograph, ResizeRule()) for photograph in photographs])
        return [{"probabilities": row} for row in self._engine.run(squares).probabilities.tolist()]
