"""Stand-ins where a test must command time or faults; what is said of answers, the real engines say."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from support.versions import example_metadata

from service.engines.engine import EngineInfo, Scores
from service.engines.open_version import ServedVersion
from service.engines.wish import EngineWish
from service.imaging.pixels import Pixels
from service.store.verify import VerifiedVersion


class FakeEngine:
    """Its scores say which image they were made from; it counts what it computes, and can be held or failed.

    The first probability is the distance, too. The energy is its negative.

    Attributes:
        batches: the size of every batch that `run` has begun, warm-up left out.
        warmed_up_to: largest batch that `warm_up` was told. 0 before it was called.
        closed: whether `close` has been called.
        error: raised by `run` while it is not None.
        warm_up_error: raised by `warm_up`.
    """

    def __init__(self, num_classes: int = 5, image_size: int = 224) -> None:
        self.info = EngineInfo(engine="fake", device="cpu", precision="float32", reason="the test commands it")
        self.num_classes = num_classes
        self.image_size = image_size
        self.lanes_decode = False
        self.min_queue_size = 2
        self.max_batch_size = 1024
        self.batches: list[int] = []
        self.warmed_up_to = 0
        self.closed = threading.Event()
        self.error: Exception | None = None
        self.warm_up_error: Exception | None = None
        self._open = threading.Event()
        self._open.set()

    @property
    def is_open(self) -> bool:
        """Whether `run` would go on."""
        return self._open.is_set()

    def hold(self) -> None:
        """Let `run` wait until `release`."""
        self._open.clear()

    def release(self) -> None:
        """Let `run` go on."""
        self._open.set()

    def warm_up(self, max_batch_size: int) -> None:
        if self.warm_up_error is not None:
            raise self.warm_up_error
        self.warmed_up_to = max_batch_size

    def run(self, images: Pixels) -> Scores:
        self.batches.append(len(images))
        if not self._open.wait(timeout=60):
            raise TimeoutError("the test never released the engine")
        if self.error is not None:
            raise self.error
        first = images[:, 0, 0, 0].astype(np.float32) / 512
        rows = np.zeros((len(images), self.num_classes), np.float32)
        rows[:, 0], rows[:, 1] = first, 1 - first
        return Scores(rows, energy=-rows[:, 0], distance=rows[:, 0])

    def close(self) -> None:
        self.closed.set()


def image_of(value: int, image_size: int = 4) -> Pixels:
    """A square image whose row from `FakeEngine` begins with value / 512."""
    return np.full((image_size, image_size, 3), value, np.uint8)


def fake_version(engine: FakeEngine, version: int = 1) -> ServedVersion:
    """A version that is served by `engine`."""
    return ServedVersion(VerifiedVersion(Path("flowers", str(version)), example_metadata(), {}, {}), engine)


class Loader:
    """What `LiveModel` loads with: `engines[version]`, made if there is none; `loads` tells which.

    It waits while the test has cleared `may_load`. It calls `on_load` before, if there is one.
    """

    def __init__(self) -> None:
        self.engines: dict[int, FakeEngine] = {}
        self.loads: list[int] = []
        self.on_load: Callable[[VerifiedVersion], None] | None = None
        self.may_load = threading.Event()
        self.may_load.set()

    def __call__(self, verified: VerifiedVersion, wish: EngineWish) -> FakeEngine:
        version = int(verified.folder.name)
        self.loads.append(version)
        if self.on_load is not None:
            self.on_load(verified)
        if not self.may_load.wait(timeout=60):
            raise TimeoutError("the test never let it load")
        return self.engines.setdefault(version, FakeEngine())
