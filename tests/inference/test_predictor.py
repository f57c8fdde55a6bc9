import asyncio
import gc
import os
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.drawing import draw_photograph, encode
from support.fakes import FakeEngine, Loader
from support.versions import publish_example

from service.engines.engine import Probabilities
from service.errors import DeadlineExceeded, InvalidImage, NotReady, QueueFull
from service.imaging import decode
from service.imaging.decode import decode_image
from service.imaging.pixels import ImageLimits, Pixels
from service.imaging.resize import resize
from service.inference.admission import Admission
from service.inference.batcher import MicroBatcher
from service.inference.decoders import PixelBudget
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.inference.predictor import Classified, Predictor

pytestmark = pytest.mark.anyio
PHOTO = encode(draw_photograph(0, seed=1))


class Parts:
    """A predictor and all that it stands on, with a fake engine that the test commands."""

    def __init__(self, store: Path, *, lanes_decode: bool = False) -> None:
        self.loader = Loader()
        self.engine = self.loader.engines[1] = FakeEngine()
        self.engine.lanes_decode = lanes_decode
        self.live_model = LiveModel(
            store, "flowers", load=self.loader, health=Health(), max_batch_size=4, reload_interval_s=3600
        )
        self.batcher = MicroBatcher(max_batch_size=4)
        self.admission = Admission(
            max_queue_size=2,
            max_queue_bytes=10**9,
            num_computing=lambda: self.batcher.num_computing,
            min_queue_size=lambda: 1,
        )
        self.predictor = Predictor(self.live_model, self.batcher, limits=ImageLimits(), decode_threads=1)

    async def classify(self, image: bytes | Pixels = PHOTO, *, timeout_s: float = 60.0) -> Classified:
        deadline = asyncio.get_running_loop().time() + timeout_s
        with self.admission.request() as ticket:
            return await self.predictor.classify(image, ticket, deadline)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish_example(tmp_path)
    return tmp_path


@pytest.fixture(params=[False, True], ids=["decoded ahead", "decoded in its lane"])
async def parts(store: Path, request: pytest.FixtureRequest) -> AsyncIterator[Parts]:
    parts = Parts(store, lanes_decode=request.param)
    await parts.live_model.look()
    yield parts
    parts.engine.release()
    parts.predictor.close()
    parts.batcher.close()


async def test_a_row_names_the_version_that_computed_it(parts: Parts) -> None:
    classified = await parts.classify()
    assert classified.probabilities.shape == (5,)
    assert (classified.version.model, classified.version.version) == ("flowers", 1)


async def test_pixels_are_scored_as_they_are(parts: Parts) -> None:
    of_pixels = await parts.classify(resize(decode_image(PHOTO)))
    np.testing.assert_array_equal(of_pixels.probabilities, (await parts.classify()).probabilities)
    assert of_pixels.timings.decode_s == 0


async def test_the_engine_gets_the_pixels_of_imaging_bit_for_bit(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Pixels] = []
    run = parts.engine.run

    def watched_run(images: Pixels, *, is_alone: bool) -> Probabilities:
        seen.append(images.copy())
        return run(images, is_alone=is_alone)

    monkeypatch.setattr(parts.engine, "run", watched_run)
    await parts.classify()
    [image] = seen[0]
    assert (image == resize(decode_image(PHOTO))).all()


async def test_the_stages_of_a_prediction_are_measured(parts: Parts) -> None:
    parts.engine.hold()
    first = asyncio.create_task(parts.classify())
    while not parts.engine.batches:
        await asyncio.sleep(0.001)
    second = asyncio.create_task(parts.classify())
    await asyncio.sleep(0.1)
    parts.engine.release()
    timings = [(await first).timings, (await second).timings]
    assert timings[0].infer_s >= 0.1
    assert timings[1].queue_s >= 0.05
    assert all(0.0001 < timing.decode_s < 5 for timing in timings)


async def test_without_a_model_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotReady):
        await Parts(tmp_path).classify()


@pytest.mark.parametrize(
    ("data", "lanes_decode", "where"),
    [
        (PHOTO, True, ["lane"]),
        (PHOTO, False, ["decode"]),
        (encode(Image.new("RGB", (1001, 1000))), True, ["decode"]),
        (encode(Image.new("RGB", (1000, 1000))), True, ["lane"]),
        (PHOTO + bytes(512 * 1024), True, ["decode"]),
        (encode(Image.new("RGB", (2000, 2000)), "PNG"), True, ["decode"]),
        (encode(Image.new("RGB", (2001, 2000)), "PNG"), True, []),
        (encode(Image.new("RGB", (7000, 7000))), True, ["decode"]),
        (encode(Image.new("RGB", (1000, 4001))), True, []),
        (encode(draw_photograph(0, seed=1), "AVIF"), True, []),
        (encode(draw_photograph(0, seed=1), "TIFF"), True, []),
        (encode(draw_photograph(0, seed=1), "WEBP"), True, ["lane"]),
        (encode(draw_photograph(0, seed=1), "WEBP", lossless=True), True, []),
        (encode(draw_photograph(0, seed=1).convert("RGBA").rotate(5), "WEBP"), False, []),
    ],
    ids=[
        "small",
        "engine",
        "many pixels",
        "just small",
        "many bytes",
        "middling",
        "large",
        "large JPEG",
        "narrow JPEG",
        "AVIF",
        "TIFF",
        "WebP",
        "lossless WebP",
        "WebP with alpha",
    ],
)
async def test_lanes_decode_what_is_small_and_processes_what_is_large(
    store: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, lanes_decode: bool, where: list[str]
) -> None:
    seen: list[str] = []

    def watched_resize(*args: Any) -> Pixels:
        seen.append(threading.current_thread().name.partition("_")[0])
        return resize(*args)

    monkeypatch.setattr(decode, "resize", watched_resize)
    parts = Parts(store, lanes_decode=lanes_decode)
    await parts.live_model.look()
    await parts.classify(data)
    assert seen == where
    parts.predictor.close()
    parts.batcher.close()


async def test_a_broken_image_spoils_only_its_own_place(parts: Parts) -> None:
    parts.engine.hold()
    good = asyncio.create_task(parts.classify())
    with pytest.raises(InvalidImage):
        await parts.classify(PHOTO[:2000])
    parts.engine.release()
    await good


async def test_an_error_and_the_file_that_it_holds_are_gone_without_a_collection(parts: Parts) -> None:
    gone: list[weakref.ref[InvalidImage]] = []

    async def ask() -> None:
        try:
            await parts.classify(PHOTO[:2000])
        except InvalidImage as error:
            gone.append(weakref.ref(error))

    gc.collect()
    gc.disable()
    try:
        await ask()
        while parts.batcher._running:
            await asyncio.sleep(0.001)
        for _ in range(1000):
            if gone[0]() is None:
                return
            await asyncio.sleep(0.01)  # the thread may not have let go yet
        pytest.fail("the error is still there")
    finally:
        gc.enable()


async def test_a_full_queue_refuses_before_decoding(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    parts.engine.hold()
    accepted = [asyncio.create_task(parts.classify()) for _ in range(1)]
    while not parts.batcher.num_computing:
        await asyncio.sleep(0)
    accepted += [asyncio.create_task(parts.classify()) for _ in range(2)]
    await asyncio.sleep(0)
    monkeypatch.setattr("service.inference.predictor.decode_square", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(QueueFull):
        await parts.classify()
    monkeypatch.undo()
    parts.engine.release()
    await asyncio.gather(*accepted)


async def test_expired_work_is_not_computed(parts: Parts) -> None:
    parts.engine.hold()
    first = asyncio.create_task(parts.classify())
    while not parts.batcher.num_computing:
        await asyncio.sleep(0)
    with pytest.raises(DeadlineExceeded):  # answered in time although the lane is stuck
        await parts.classify(timeout_s=0.01)
    with pytest.raises(DeadlineExceeded):
        await parts.classify(timeout_s=0)
    parts.engine.release()
    await first
    assert parts.engine.batches == [1]
    assert parts.admission.num_waiting == 0


async def test_a_switch_while_a_request_waits_leaves_it_with_its_version(parts: Parts, store: Path) -> None:
    parts.engine.hold()
    old = asyncio.create_task(parts.classify())
    while not parts.batcher.num_computing:
        await asyncio.sleep(0)
    publish_example(store)
    await parts.live_model.look()
    new = asyncio.create_task(parts.classify())
    parts.engine.release()
    assert ((await old).version.version, (await new).version.version) == (1, 2)


@pytest.mark.parametrize(("image_format", "num_pixels"), [("AVIF", 58_000_000), ("TIFF", 8_076_800), ("PNG", 76_800)])
async def test_what_no_header_bounds_counts_for_more_than_its_pixels(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, image_format: str, num_pixels: int
) -> None:
    """So that what is decoded at a time stays within the memory that the containers have."""
    held: list[int] = []
    hold = PixelBudget.hold

    @contextmanager
    def noted(budget: PixelBudget, num_pixels: int) -> Iterator[None]:
        held.append(num_pixels)
        with hold(budget, num_pixels):
            yield

    monkeypatch.setattr(PixelBudget, "hold", noted)
    parts.engine.lanes_decode = False
    await parts.classify(encode(draw_photograph(0, seed=1), image_format))
    assert held == [num_pixels]


async def test_two_of_the_largest_pictures_are_decoded_at_a_time_however_many_threads_there_are(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts(store)
    parts.admission = Admission(
        max_queue_size=8, max_queue_bytes=10**9, num_computing=lambda: 0, min_queue_size=lambda: 1
    )
    parts.predictor = Predictor(
        parts.live_model,
        parts.batcher,
        limits=ImageLimits(max_image_pixels=320 * 240),
        decode_threads=6,
    )
    await parts.live_model.look()
    at_once, most = 0, 0
    counting = threading.Lock()
    hold = PixelBudget.hold

    @contextmanager
    def counted(budget: PixelBudget, num_pixels: int) -> Iterator[None]:
        nonlocal at_once, most
        assert num_pixels == 320 * 240
        with hold(budget, num_pixels):
            with counting:
                at_once += 1
                most = max(most, at_once)
            yield
            with counting:
                at_once -= 1

    monkeypatch.setattr(PixelBudget, "hold", counted)
    for _ in range(5):
        await asyncio.gather(*[parts.classify() for _ in range(2)])
    for _ in range(5):
        await asyncio.gather(*[parts.classify() for _ in range(6)], return_exceptions=True)
    assert 1 <= most <= 2
    parts.predictor.close()
    parts.batcher.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
async def test_decoders_and_lanes_let_the_event_loop_go_first(parts: Parts) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    for threads, steps in ((parts.predictor._decoders, 17), (parts.batcher._lanes_for(parts.engine), 10)):
        assert threads.submit(niceness).result() == min(niceness() + steps, 19)
