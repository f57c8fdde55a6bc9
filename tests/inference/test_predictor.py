import asyncio
import functools
import gc
import os
import sys
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from support.drawing import draw_photograph, encode
from support.fakes import FakeEngine, Loader
from support.versions import publish_example

from service.engines.engine import Scores
from service.errors import DeadlineExceeded, InvalidImage, NotReady, QueueFull
from service.imaging import decode
from service.imaging.decode import decode_image
from service.imaging.inspection import Inspection, inspect
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Pixels
from service.imaging.resize import resize
from service.inference.admission import Admission
from service.inference.batcher import MicroBatcher
from service.inference.decoders import Decoders
from service.inference.health import Health
from service.inference.live_model import LiveModel
from service.inference.predictor import Classified, Predictor
from service.inference.usage import Alone

pytestmark = pytest.mark.anyio
IMAGE = draw_photograph(0, seed=1)
PHOTO = encode(IMAGE)


class Parts:
    """A predictor and all that it stands on, with a fake engine that the test commands."""

    def __init__(self, store: Path, *, lanes_decode: bool = False) -> None:
        self.loader = Loader()
        self.engine = self.loader.engines[1] = FakeEngine()
        self.engine.lanes_decode = lanes_decode
        self.live_model = LiveModel(
            store, "flowers", load=self.loader, health=Health(), max_batch_size=4, reload_interval_s=3600
        )
        shared = Alone()
        self.batcher = MicroBatcher(
            max_batch_size=4, on_computing=functools.partial(setattr, shared.own, "num_computing")
        )
        self.admission = Admission(
            max_queue_size=2,
            max_queue_bytes=10**9,
            min_queue_size=lambda: 1,
            shared=shared,
        )
        self.decoders = Decoders(ImageLimits(), 1)
        self.predictor = Predictor(self.live_model, self.batcher, self.decoders)

    async def classify(
        self, image: bytes | Pixels = PHOTO, *, timeout_s: float = 60.0, decodes_ahead: bool = False
    ) -> Classified:
        deadline = asyncio.get_running_loop().time() + timeout_s
        with self.admission.request() as ticket:
            return await self.predictor.classify(image, ticket, deadline, decodes_ahead=decodes_ahead)


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
    parts.decoders.close()
    parts.batcher.close()


async def test_a_row_names_the_version_that_computed_it(parts: Parts) -> None:
    classified = await parts.classify()
    assert classified.probabilities.shape == (5,)
    assert (classified.version.model, classified.version.version) == ("flowers", 1)


async def test_pixels_are_scored_as_they_are(parts: Parts) -> None:
    of_pixels = await parts.classify(resize(decode_image(PHOTO)))
    np.testing.assert_array_equal(of_pixels.probabilities, (await parts.classify()).probabilities)
    assert of_pixels.timings.decode_s == 0


async def test_the_engine_gets_the_pixels_of_imaging(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Pixels] = []
    run = parts.engine.run

    def watched_run(images: Pixels) -> Scores:
        seen.append(images.copy())
        return run(images)

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
        (PHOTO, True, "lane"),
        (PHOTO, False, "decode"),
        (encode(Image.new("RGB", (1000, 1000))), True, "lane"),
        (encode(Image.new("RGB", (1001, 1000))), True, "decode"),
        (PHOTO + bytes(256 * 1024), True, "decode"),
        (encode(IMAGE, "PNG"), True, "decode"),
        (encode(draw_photograph(0, seed=1, size=(64, 48)), "PNG"), True, "lane"),
        (encode(IMAGE, "WEBP"), True, "lane"),
        (encode(IMAGE, "WEBP", lossless=True), True, ""),
    ],
    ids=[
        "small", "engine", "just small", "many pixels", "many bytes", "long PNG", "PNG", "WebP", "lossless WebP",
    ],
)  # fmt: skip
async def test_lanes_decode_small_images(
    store: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, lanes_decode: bool, where: str
) -> None:
    seen: list[str] = []

    def watched_resize(*args: Any) -> Pixels:
        seen.append(threading.current_thread().name.partition("_")[0])
        return resize(*args)

    monkeypatch.setattr(decode, "resize", watched_resize)
    parts = Parts(store, lanes_decode=lanes_decode)
    await parts.live_model.look()
    await parts.classify(data)
    assert seen == [where] * bool(where)  # none: a process has decoded it
    seen.clear()
    await parts.classify(data, decodes_ahead=True)
    assert seen == ["decode"] * bool(where)
    parts.decoders.close()
    parts.batcher.close()


async def test_a_file_is_inspected_once(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    inspected = Mock(side_effect=inspect)
    for module in ("predictor", "decoders"):
        monkeypatch.setattr(f"service.inference.{module}.inspect", inspected)
    monkeypatch.setattr(decode, "inspect", inspected)
    data = encode(IMAGE, "TIFF")
    await parts.classify()
    await parts.classify(data)
    assert [call.args[0] for call in inspected.call_args_list] == [PHOTO, data]


async def test_a_broken_image_spoils_only_its_own_place(parts: Parts) -> None:
    parts.engine.hold()
    good = asyncio.create_task(parts.classify())
    with pytest.raises(InvalidImage):
        await parts.classify(PHOTO[:2000])
    parts.engine.release()
    await good


async def test_an_error_lets_go_of_its_file(parts: Parts) -> None:
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
    monkeypatch.setattr("service.inference.predictor.inspect", lambda *_: pytest.fail("it was decoded"))
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


class NotingDecoders(Decoders):
    """Notes the deadlines."""

    def __init__(self) -> None:
        super().__init__(ImageLimits(), 1)
        self.deadlines: list[float] = []

    async def decode(
        self, data: bytes, inspection: Inspection | None, rule: ResizeRule, deadline: float
    ) -> tuple[Pixels, float]:
        self.deadlines.append(deadline)
        return await super().decode(data, inspection, rule, deadline)


async def test_a_decoder_gets_the_deadline_of_its_request(parts: Parts) -> None:
    decoders = NotingDecoders()
    deadline = asyncio.get_running_loop().time() + 60
    with parts.admission.request() as ticket:
        await Predictor(parts.live_model, parts.batcher, decoders).classify(encode(IMAGE, "TIFF"), ticket, deadline)
    assert decoders.deadlines == [deadline]
    decoders.close()


async def test_a_waiting_request_keeps_its_version(parts: Parts, store: Path) -> None:
    parts.engine.hold()
    old = asyncio.create_task(parts.classify())
    while not parts.batcher.num_computing:
        await asyncio.sleep(0)
    publish_example(store)
    await parts.live_model.look()
    new = asyncio.create_task(parts.classify())
    parts.engine.release()
    assert ((await old).version.version, (await new).version.version) == (1, 2)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere threads have no priority of their own")
async def test_decoders_and_lanes_yield_to_the_event_loop(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, int] = {}
    run = parts.engine.run

    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def watched_resize(*args: Any) -> Pixels:
        seen[threading.current_thread().name.partition("_")[0]] = niceness()
        return resize(*args)

    def watched_run(images: Pixels) -> Scores:
        seen["lane"] = niceness()
        return run(images)

    monkeypatch.setattr(decode, "resize", watched_resize)
    monkeypatch.setattr(parts.engine, "run", watched_run)
    await parts.classify()
    expected = {"lane": min(niceness() + 10, 19)}
    assert seen == expected if parts.engine.lanes_decode else expected | {"decode": min(niceness() + 17, 19)}


async def test_the_wait_does_not_include_the_decoding(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def decode(*_: object) -> tuple[Pixels, float]:
        return resize(decode_image(PHOTO)), 1e6  # seconds

    parts = Parts(store)
    monkeypatch.setattr(parts.decoders, "decode", decode)
    await parts.live_model.look()
    timings = (await parts.classify()).timings
    assert (timings.decode_s, timings.queue_s) == (1e6, 0)
    parts.decoders.close()
    parts.batcher.close()
