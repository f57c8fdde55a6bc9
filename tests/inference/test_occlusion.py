"""Explanations inside a running app, by a fake engine where calls are counted and by the shipped one elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPOSITORY
from PIL import Image
from support.drawing import draw_photograph, encode
from support.fakes import FakeEngine, Loader
from support.running import Running, running
from support.versions import publish_example

from service.errors import DeadlineExceeded, InvalidParameter, NotReady
from service.imaging.decode import decode_image
from service.imaging.resize import resize
from service.inference.occlusion import CALM_AFTER_S, Explained, Explainer, cover_cell, find_class, list_images

pytestmark = pytest.mark.anyio

PHOTO = encode(draw_photograph(0, seed=1))
LATER = 1e9
CLASS_NAMES = ("tulips", "Gänseblümchen", "roses")


@pytest.fixture(autouse=True)
def only_explanations_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog sends no image of its own, however slow the machine is."""
    monkeypatch.setattr("service.inference.watchdog.Watchdog.start", lambda _: None)


def explainer_of(service: Running) -> Explainer:
    assert service.service.explainer is not None
    return service.service.explainer


async def explain(service: Running, photo: bytes = PHOTO, label: str | None = None) -> Explained:
    return await explainer_of(service).explain(photo, label, LATER)


async def until_at_work(service: Running) -> None:
    """Wait until an explanation works, and would have called the engine by now if it could."""
    while not service.service.admission.shared.own.num_explaining:
        await asyncio.sleep(0)
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


@pytest.fixture
def engine(loader: Loader) -> FakeEngine:
    return loader.engines[1]


def test_each_cell_is_covered_once() -> None:
    square = np.random.default_rng(0).integers(0, 256, (225, 225, 3), np.uint8)
    images = [make() for make in list_images(square)]
    assert len(images) == 50
    np.testing.assert_array_equal(images[0], square)
    colour = square.mean(axis=(0, 1)).round()
    covered = np.stack([(image == colour).all(axis=2) & (square != colour).any(axis=2) for image in images[1:]])
    np.testing.assert_array_equal(covered.sum(axis=0), (square != colour).any(axis=2))
    assert all((image != square).any() for image in images[1:])


def test_cells_go_row_by_row_from_the_top() -> None:
    square = np.zeros((224, 224, 3), np.uint8)
    covered = cover_cell(square, 1, 6, np.array([1, 2, 3], np.uint8))
    assert {tuple(place) for place in np.argwhere(covered[..., 2])} == {
        (row, column) for row in range(32, 64) for column in range(192, 224)
    }
    assert covered[32, 192].tolist() == [1, 2, 3]
    assert not square.any()


@pytest.mark.parametrize(
    ("label", "nearest"), [("rose", "roses"), ("Tulips", "tulips"), ("Ganseblumchen", "Gänseblümchen")]
)
def test_an_unknown_label_names_the_nearest(label: str, nearest: str) -> None:
    with pytest.raises(InvalidParameter, match=f"no such class. The nearest is '{nearest}'"):
        find_class(label, CLASS_NAMES)


def test_a_label_has_its_index() -> None:
    assert [find_class(label, CLASS_NAMES) for label in (None, *CLASS_NAMES)] == [None, 0, 1, 2]


async def test_a_drop_is_what_the_covered_cell_takes_away(service: Running) -> None:
    """The fake engine looks at the first pixel, so the first cell alone matters: down for one class, up for another."""
    square = resize(decode_image(PHOTO))
    expected = np.float32(square[0, 0, 0] / 512) - np.float32(square[..., 0].mean().round() / 512)
    assert expected != 0
    for label, drop in (("daisy", expected), ("dandelion", -expected), ("roses", 0)):
        explained = await explain(service, label=label)
        assert explained.drops.dtype == np.float32
        assert explained.drops[0, 0] == pytest.approx(drop, abs=1e-6)
        assert np.count_nonzero(explained.drops) == (drop != 0)
    np.testing.assert_array_equal(explained.square, square)


async def test_without_a_label_the_best_is_explained(service: Running) -> None:
    explained = await explain(service)
    assert explained.class_index == explained.classified.probabilities.argmax() == 1


async def test_an_idle_service_computes_four_images_a_call(service: Running, engine: FakeEngine) -> None:
    await explain(service)
    assert engine.batches == [4] * 12 + [2]


async def test_beside_predictions_one_image_a_call_and_rests(
    service: Running, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    assert (await service.client.post("/predict", content=PHOTO)).status_code == 200
    assert service.service.admission.quiet_s() < 60 * CALM_AFTER_S  # a prediction is remembered
    monkeypatch.setattr("service.inference.occlusion.CALM_AFTER_S", 3600.0)  # the machine may be slow
    patched = SimpleNamespace(timeout_at=asyncio.timeout_at, sleep=sleep)
    monkeypatch.setattr("service.inference.occlusion.asyncio", patched)
    infer_s = (await explain(service)).classified.timings.infer_s
    assert engine.batches == [1] * 51
    assert len(rests) == 50
    assert all(0 < rest <= 0.4 for rest in rests)
    assert sum(rests) <= 50.01 * infer_s


async def test_no_call_begins_while_a_prediction_is_here(service: Running, engine: FakeEngine) -> None:
    with service.service.admission.image():  # being decoded
        explaining = asyncio.create_task(explain(service))
        await until_at_work(service)
        assert engine.batches == []
    await explaining
    assert sum(engine.batches) == 50


async def test_explanations_never_share_a_call(store: Path, loader: Loader) -> None:
    async with running(store, loader, max_explanations=3) as service:
        engine = loader.engines[1]
        await asyncio.gather(*(explain(service) for _ in range(3)))
        assert sum(engine.batches) == 150
        assert max(engine.batches) == 4


async def test_a_cancelled_explanation_calls_no_more(service: Running, engine: FakeEngine) -> None:
    engine.hold()
    explaining = asyncio.create_task(explain(service))
    while not engine.batches:
        await asyncio.sleep(0)
    explaining.cancel()
    with pytest.raises(asyncio.CancelledError):
        await explaining
    engine.release()
    assert (await service.client.post("/predict", content=PHOTO)).status_code == 200  # the lane went on
    assert engine.batches == [4, 1]
    assert service.service.admission.shared.own.num_explanations == 0


async def test_a_late_explanation_calls_no_more(service: Running, engine: FakeEngine) -> None:
    engine.hold()
    with pytest.raises(DeadlineExceeded, match="before the explanation was done"):
        await explainer_of(service).explain(PHOTO, None, asyncio.get_running_loop().time() + 0.05)
    engine.release()
    await service.client.post("/predict", content=PHOTO)
    assert sum(engine.batches) <= 5


async def test_a_replaced_version_finishes_its_explanation(service: Running, loader: Loader, store: Path) -> None:
    engine = loader.engines[1]
    engine.hold()
    explaining = asyncio.create_task(explain(service))
    while not engine.batches:
        await asyncio.sleep(0)
    publish_example(store)
    await service.look()
    assert service.service.predictor.require().version == 2
    assert not engine.closed.is_set()
    engine.release()
    assert (await explaining).classified.version.version == 1
    assert sum(engine.batches) == 50
    assert await asyncio.to_thread(engine.closed.wait, 60)


async def test_without_a_model_there_is_no_explanation(tmp_path: Path) -> None:
    async with running(tmp_path, Loader()) as service:
        with pytest.raises(NotReady):
            explainer_of(service).check(None)


def compose(flower: Image.Image, left: int) -> bytes:
    """Grass with a flower of half its size."""
    random = np.random.default_rng(0)
    coarse = Image.fromarray(random.integers(0, 60, (14, 14, 3), np.uint8)).resize((448, 448), Image.Resampling.BICUBIC)
    image = Image.fromarray((np.asarray(coarse) // 2 + np.array([20, 70, 15], np.uint8)).astype(np.uint8))
    image.paste(flower.resize((190, 190)), (left, 129))
    return encode(image, "PNG")


def heat_by_side(explained: Explained) -> tuple[float, float]:
    heat = np.maximum(explained.drops, 0)
    return float(heat[:, :3].sum()), float(heat[:, 4:].sum())


@pytest.fixture(scope="module")
async def shipped() -> AsyncIterator[Running]:
    async with running(REPOSITORY / "model_store", engine="onnxruntime") as service:
        yield service


async def check_sides(shipped: Running, flower: Image.Image) -> None:
    for position, side in ((34, 0), (224, 1)):
        heat = heat_by_side(await explain(shipped, compose(flower, position)))
        assert heat[side] > 3 * heat[1 - side], heat


async def test_a_drawn_flower_has_the_heat(shipped: Running) -> None:
    await check_sides(shipped, draw_photograph(3, 301, (190, 190)))


@pytest.mark.photographs
async def test_a_real_flower_has_the_heat(shipped: Running, photographs: Path) -> None:
    path = min((photographs / "daisy").glob("*.jpg"))
    await check_sides(shipped, Image.fromarray(resize(decode_image(path.read_bytes()))))
