import gc
import os
import subprocess
import sys
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import Mock

import numpy as np
import pytest
import tensorflow as tf
from support.exporting import build_tiny_network, draw_squares, expected_scores, trained_tiny_network

from service.engines.engine import EngineInfo
from service.engines.savedmodel import SavedModelEngine, batch_sizes, list_tensorflow_gpus
from service.errors import DeviceUnavailable, EngineFailed, InvalidVersion, SettingsError
from service.imaging.pixels import Pixels
from service.machine import count_cores
from service.training.export.saved_model import export_saved_model


@pytest.fixture(scope="module")
def squares() -> Pixels:
    return draw_squares(range(4))[0]


@pytest.fixture
def engine(tiny_version: Path) -> SavedModelEngine:
    engine = open_engine(tiny_version / "flowers" / "1")
    engine.warm_up(8)
    return engine


def save(folder: Path, function: Callable[..., Any], **spec: Any) -> Path:
    """A SavedModel whose serving_default is `function`, its arguments as `spec` says."""
    signature = tf.function(function).get_concrete_function(**spec)
    tf.saved_model.save(tf.Module(), str(folder), signatures={"serving_default": signature})
    return folder


def open_engine(folder: Path, device: Literal["gpu", "cpu"] = "cpu", threads: int = 0) -> SavedModelEngine:
    return SavedModelEngine(folder, EngineInfo("savedmodel", device, "float32", "a test"), threads=threads)


def test_the_engine_knows_the_drawn_flowers(engine: SavedModelEngine) -> None:
    squares, class_indices = draw_squares(range(6))
    probabilities = engine.run(squares).probabilities
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (30, engine.num_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), class_indices)


@pytest.fixture(scope="module")
def unsure_engine(tmp_path_factory: pytest.TempPathFactory) -> SavedModelEngine:
    """Untrained: no probability is near 0 or 1, so every image has a row of its own."""
    folder = tmp_path_factory.mktemp("untrained") / "1"
    export_saved_model(build_tiny_network(), folder, scale=1 / 127.5, offset=-1.0, temperature=1.0)
    engine = open_engine(folder)
    engine.warm_up(8)
    return engine


@pytest.mark.parametrize("num_images", range(1, 20))
def test_rows_follow_images_under_padding_and_in_pieces(
    unsure_engine: SavedModelEngine, squares: Pixels, num_images: int
) -> None:
    alone = np.concatenate([unsure_engine.run(square[None]).probabilities for square in squares[:num_images]])
    assert len(np.unique(alone.round(4), axis=0)) == num_images, "the rows must differ, or order means nothing"
    together = unsure_engine.run(squares[:num_images]).probabilities
    assert together.shape == alone.shape
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_several_threads_each_get_their_own_rows(unsure_engine: SavedModelEngine, squares: Pixels) -> None:
    batches = [squares[start : start + 3] for start in range(8)] * 5
    wanted = [unsure_engine.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as lanes:
        for found, expected in zip(lanes.map(unsure_engine.run, batches), wanted, strict=True):
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)


def test_the_images_given_are_left_as_they_are(engine: SavedModelEngine, squares: Pixels) -> None:
    before = squares[:5].copy()
    engine.run(before)
    np.testing.assert_array_equal(before, squares[:5])


def test_only_the_warmed_batch_sizes_are_ever_run(
    engine: SavedModelEngine, squares: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    constant = tf.constant

    def spy(images: Any) -> Any:
        seen.append(len(images))
        return constant(images)

    monkeypatch.setattr(tf, "constant", spy)
    for num_images in range(1, 21):
        engine.run(squares[:num_images])
    assert set(seen) <= set(batch_sizes(8))


@pytest.mark.parametrize(
    ("max_batch_size", "sizes"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (5, (1, 2, 3, 4, 5)),
        (32, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)),
        (33, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 33)),
    ],
)
def test_batch_sizes_are_few_and_end_at_the_largest(max_batch_size: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(max_batch_size) == sizes


@pytest.mark.parametrize(("threads", "num_cores"), [(0, count_cores()), (3, 3)])
def test_eight_images_wait_for_each_core(
    tiny_version: Path, monkeypatch: pytest.MonkeyPatch, threads: int, num_cores: int
) -> None:
    monkeypatch.setattr("service.engines.savedmodel._use_threads", Mock())  # TensorFlow runs, with its own number
    engine = open_engine(tiny_version / "flowers" / "1", threads=threads)
    assert (engine.lanes_decode, engine.min_queue_size) == (False, 8 * num_cores)


def test_the_device_shown_is_that_of_a_result_tensor(tiny_version: Path, squares: Pixels) -> None:
    engine = open_engine(tiny_version / "flowers" / "1")
    engine.info = replace(engine.info, device="gpu")  # a wrong belief, which the first result corrects
    engine.warm_up(1)
    loaded = tf.saved_model.load(str(tiny_version / "flowers" / "1"))
    result = loaded.signatures["serving_default"](images=tf.constant(squares[:1]))["probabilities"]
    assert f":{engine.info.device.upper()}:" in result.device
    assert (engine.info.engine, engine.info.precision, engine.info.reason) == (
        "savedmodel",
        "float32",
        "a test",
    )


@pytest.mark.skipif(bool(list_tensorflow_gpus()), reason="there is a GPU")
def test_a_missing_gpu_is_not_replaced_in_silence(tiny_version: Path) -> None:
    engine = open_engine(tiny_version / "flowers" / "1", "gpu")
    with pytest.raises(DeviceUnavailable, match=r"did not use the gpu\. Take --device cpu"):
        engine.warm_up(2)


@pytest.mark.gpu
def test_the_gpu_computes_when_it_is_told_to(tiny_version: Path, squares: Pixels) -> None:
    if not list_tensorflow_gpus():
        pytest.skip("TensorFlow sees no GPU here")
    on_gpu = open_engine(tiny_version / "flowers" / "1", "gpu")
    on_gpu.warm_up(8)
    assert on_gpu.info.device == "gpu"
    on_cpu = open_engine(tiny_version / "flowers" / "1")
    np.testing.assert_allclose(on_gpu.run(squares).probabilities, on_cpu.run(squares).probabilities, atol=1e-4)


def test_weights_that_are_no_numbers_fail_the_warm_up(tmp_path: Path) -> None:
    network = build_tiny_network()
    network.set_weights([np.full_like(weight, np.nan) for weight in network.get_weights()])
    export_saved_model(network, tmp_path / "7", scale=1.0, offset=0.0, temperature=1.0)
    with pytest.raises(EngineFailed, match="no table of finite numbers"):
        open_engine(tmp_path / "7").warm_up(4)


IMAGES = tf.TensorSpec((None, 8, 8, 3), tf.uint8, "images")


def answer(images: Any) -> dict[str, Any]:
    """Two classes: how bright, how dark."""
    bright = tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2, 3)) / 255
    return {"probabilities": tf.stack([bright, 1 - bright], axis=1)}


def test_a_version_of_format_1_has_probabilities_alone(tmp_path: Path) -> None:
    scores = open_engine(save(tmp_path / "7", answer, images=IMAGES)).run(np.zeros((2, 8, 8, 3), np.uint8))
    assert (scores.probabilities.shape, scores.energy, scores.distance) == ((2, 2), None, None)


@pytest.mark.parametrize("num_images", [5, 13])  # padded to 6, and in two pieces
def test_energy_follows_images_under_padding_and_in_pieces(
    engine: SavedModelEngine, squares: Pixels, num_images: int
) -> None:
    scores, expected = engine.run(squares[:num_images]), expected_scores(trained_tiny_network(), squares[:num_images])
    assert scores.energy is not None
    assert expected.energy is not None
    assert scores.energy.dtype == np.float32
    np.testing.assert_allclose(scores.energy, expected.energy, rtol=1e-5)


def test_an_energy_of_another_shape_is_an_invalid_version(tmp_path: Path) -> None:
    def matrix(images: Any) -> dict[str, Any]:
        return {**answer(images), "energy": answer(images)["probabilities"]}

    with pytest.raises(InvalidVersion, match=r"energy: float32 \(None, 2\).* Expected were images: uint8"):
        open_engine(save(tmp_path / "7", matrix, images=IMAGES))


def test_sums_other_than_one_fail_the_warm_up(tmp_path: Path) -> None:
    folder = save(tmp_path / "7", lambda images: {"probabilities": answer(images)["probabilities"] * 2}, images=IMAGES)
    with pytest.raises(EngineFailed, match="no probability distribution"):
        open_engine(folder).warm_up(4)


def test_answers_that_depend_on_batches_fail_the_warm_up(tmp_path: Path) -> None:
    def mixed(images: Any) -> dict[str, Any]:
        mean = tf.reduce_mean(answer(images)["probabilities"], axis=0, keepdims=True)
        return {"probabilities": tf.repeat(mean, tf.shape(images)[0], axis=0)}

    with pytest.raises(EngineFailed, match=r"differ by .* from those it gets alone"):
        open_engine(save(tmp_path / "7", mixed, images=IMAGES)).warm_up(4)


def test_what_the_runtime_raises_is_engine_failed(tmp_path: Path) -> None:
    def fails_on_two(images: Any) -> dict[str, Any]:
        with tf.control_dependencies([tf.debugging.assert_less(tf.shape(images)[0], 2, "too many")]):
            return {name: tf.identity(value) for name, value in answer(images).items()}

    engine = open_engine(save(tmp_path / "7", fails_on_two, images=IMAGES))
    assert engine.run(np.zeros((1, 8, 8, 3), np.uint8)).probabilities.shape == (1, 2)
    with pytest.raises(EngineFailed, match="could not score 2 images"):
        engine.run(np.zeros((2, 8, 8, 3), np.uint8))


def test_images_of_another_size_are_engine_failed(engine: SavedModelEngine) -> None:
    with pytest.raises(EngineFailed, match="could not score 1 images"):
        engine.run(np.zeros((1, 8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("function", "spec", "found"),
    [
        (answer, tf.TensorSpec((None, 8, 8, 3), tf.float32, "images"), r"images: float32 \(None, 8, 8, 3\)"),
        (answer, tf.TensorSpec((None, 8, 6, 3), tf.uint8, "images"), r"images: uint8 \(None, 8, 6, 3\)"),
        (answer, tf.TensorSpec((4, 8, 8, 3), tf.uint8, "images"), r"images: uint8 \(4, 8, 8, 3\)"),
        (
            answer,
            tf.TensorSpec((None, None, None, 3), tf.uint8, "images"),
            r"images: uint8 \(None, None, None, 3\)",
        ),
        (lambda images: {"scores": answer(images)["probabilities"]}, IMAGES, "scores: float32"),
        (
            lambda images: {"probabilities": tf.reshape(tf.cast(images, tf.float32), (-1, 192))},
            tf.TensorSpec((None, 192), tf.uint8, "images"),
            r"images: uint8 \(None, 192\)",
        ),
        (
            lambda images: {"probabilities": tf.cast(answer(images)["probabilities"], tf.float64)},
            IMAGES,
            "probabilities: float64",
        ),
    ],
)
def test_another_signature_is_an_invalid_version(
    tmp_path: Path, function: Callable[..., Any], spec: Any, found: str
) -> None:
    with pytest.raises(InvalidVersion, match=rf"version 7 has \(.*{found}.*Expected were images: uint8"):
        open_engine(save(tmp_path / "7", function, images=spec))


def test_another_name_for_the_input_is_an_invalid_version(tmp_path: Path) -> None:
    folder = save(tmp_path / "7", lambda x: answer(x), x=tf.TensorSpec((None, 8, 8, 3), tf.uint8, "x"))
    with pytest.raises(InvalidVersion, match="Expected were images: uint8"):
        open_engine(folder)


def test_a_savedmodel_without_the_signature_is_an_invalid_version(tmp_path: Path) -> None:
    tf.saved_model.save(tf.Module(), str(tmp_path / "7"))
    with pytest.raises(InvalidVersion, match=r"has the signatures none\. Expected was serving_default"):
        open_engine(tmp_path / "7")


@pytest.mark.parametrize("content", [b"", b"no protocol buffer at all"])
def test_a_damaged_savedmodel_is_an_invalid_version(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "saved_model.pb").write_bytes(content)
    with pytest.raises(InvalidVersion, match="Version 7 has no SavedModel that can be loaded"):
        open_engine(tmp_path / "7")


def test_a_closed_engine_gives_its_weights_back(
    tiny_version: Path, squares: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights: list[weakref.ref[Any]] = []
    load = tf.saved_model.load

    def watched(folder: str) -> Any:
        loaded = load(folder)
        weights.extend(weakref.ref(weight) for weight in loaded.weights)
        return loaded

    monkeypatch.setattr(tf.saved_model, "load", watched)
    engine = open_engine(tiny_version / "flowers" / "1")
    engine.run(squares[:2])
    assert weights
    engine.close()
    gc.collect()
    assert [weight() for weight in weights] == [None] * len(weights)


def test_another_number_of_threads_is_refused_once_tensorflow_runs(
    engine: SavedModelEngine, tiny_version: Path
) -> None:
    with pytest.raises(SettingsError, match=r"not 3\. Choose the number once"):
        open_engine(tiny_version / "flowers" / "1", threads=3)


def test_all_engines_of_a_process_have_equal_threads(tiny_version: Path) -> None:
    """In a process of its own: TensorFlow takes the number before it starts only; a reload gives it again."""
    program = """
import sys
from pathlib import Path
from service.engines.engine import EngineInfo
from service.engines.savedmodel import SavedModelEngine, tf
for _ in range(2):
    SavedModelEngine(Path(sys.argv[1]), EngineInfo("savedmodel", "cpu", "float32", ""), threads=1).warm_up(2)
assert tf.config.threading.get_intra_op_parallelism_threads() == 1
"""
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, str(tiny_version / "flowers" / "1")],
        env={name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "cpu_feature_guard" not in process.stderr, "TensorFlow's start-up lines are not for people"
