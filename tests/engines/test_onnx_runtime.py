import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from support.exporting import (
    OFFSET,
    SCALE,
    TEMPERATURE,
    build_tiny_network,
    draw_squares,
    expected_scores,
    with_distance,
)

from service.engines.engine import Engine, EngineInfo, Scores
from service.engines.onnx_runtime import OnnxRuntimeEngine
from service.engines.savedmodel import SavedModelEngine
from service.errors import EngineFailed, InvalidVersion, OutOfMemory
from service.imaging.pixels import Pixels
from service.machine import count_cores
from service.store.layout import CPU_MODEL_FILES, Precision
from service.training.export.int8 import int8_model
from service.training.export.onnx_graph import float32_model

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")


@pytest.fixture(scope="module")
def squares() -> Pixels:
    return draw_squares(range(4))[0]


@pytest.fixture(scope="module", params=PRECISIONS)
def engine(request: pytest.FixtureRequest, tiny_version: Path) -> Engine:
    engine = load(tiny_version / "flowers" / "1", request.param, threads=2)
    engine.warm_up(32)
    return engine


@pytest.fixture(scope="module", params=PRECISIONS)
def unsure_engine(request: pytest.FixtureRequest, squares: Pixels, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Untrained: no probability is near 0 or 1, so every image has a row of its own."""
    network = build_tiny_network()
    numbers: dict[str, Any] = {"scale": 1 / 127.5, "offset": -1.0, "temperature": 1.0}
    float32 = request.param == "float32"
    model = float32_model(network, **numbers) if float32 else int8_model(network, squares, **numbers)
    folder = tmp_path_factory.mktemp("untrained")
    write(folder, model, request.param)
    return load(folder, request.param)


def load(folder: Path, precision: Precision = "float32", threads: int = 0) -> OnnxRuntimeEngine:
    network = (folder / CPU_MODEL_FILES[precision]).read_bytes()
    return OnnxRuntimeEngine(network, choice(precision), version=folder.name, threads=threads)


def choice(precision: Precision = "float32") -> EngineInfo:
    return EngineInfo("onnxruntime", "cpu", precision, "a test")


def write(folder: Path, model: onnx.ModelProto, precision: Precision = "float32") -> Path:
    (folder / "assets.extra").mkdir()
    (folder / CPU_MODEL_FILES[precision]).write_bytes(model.SerializeToString())
    return folder


def test_it_says_what_the_savedmodel_says(engine: Engine, tiny_version: Path) -> None:
    squares, class_indices = draw_squares(range(6))
    reference = SavedModelEngine(tiny_version / "flowers" / "1", EngineInfo("savedmodel", "cpu", "float32", "a test"))
    scores, expected = engine.run(squares), reference.run(squares)
    probabilities = scores.probabilities
    assert probabilities.dtype == np.float32
    assert probabilities.shape == (30, engine.num_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    tolerance = 1e-4 if engine.info.precision == "float32" else 0.03
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=tolerance)
    assert scores.energy is not None
    assert expected.energy is not None
    np.testing.assert_allclose(scores.energy, expected.energy, atol=tolerance * np.abs(expected.energy).max())
    assert np.ptp(expected.energy) > 1, "the energies must differ, or order means nothing"
    np.testing.assert_array_equal(probabilities.argmax(axis=1), class_indices)


def test_a_distance_is_that_of_the_network(squares: Pixels) -> None:
    network = with_distance(build_tiny_network())
    model = float32_model(network, scale=SCALE, offset=OFFSET, temperature=TEMPERATURE)
    engine = OnnxRuntimeEngine(model.SerializeToString(), choice(), version="7")
    scores, expected = engine.run(squares), expected_scores(network, squares)
    for name, values in vars(expected).items():
        np.testing.assert_allclose(vars(scores)[name], values, rtol=1e-4, atol=1e-5)


def test_it_shows_what_it_is(engine: Engine) -> None:
    info = engine.info
    assert (info.engine, info.device, info.reason, info.warning) == ("onnxruntime", "cpu", "a test", "")
    assert engine.lanes_decode


@pytest.mark.parametrize(("threads", "num_cores"), [(1, 1), (3, 3), (0, count_cores())])
def test_a_call_uses_the_cores_it_is_given(
    tiny_version: Path, monkeypatch: pytest.MonkeyPatch, threads: int, num_cores: int
) -> None:
    session = Mock(side_effect=onnxruntime.InferenceSession)
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    engine = load(tiny_version / "flowers" / "1", threads=threads)
    [made] = session.call_args_list  # one session, since a second costs the memory of the network again
    assert made.args[1].intra_op_num_threads == num_cores
    assert engine.min_queue_size == 3 * num_cores


@pytest.mark.parametrize("num_images", range(1, 20))
def test_rows_follow_images_alone_and_in_pieces(unsure_engine: Engine, squares: Pixels, num_images: int) -> None:
    alone = np.concatenate([unsure_engine.run(square[None]).probabilities for square in squares[:num_images]])
    assert len(np.unique(alone.round(4), axis=0)) == num_images, "the rows must differ, or order means nothing"
    together = unsure_engine.run(squares[:num_images]).probabilities
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_several_threads_each_get_their_own_rows(unsure_engine: Engine, squares: Pixels) -> None:
    batches = [squares[start : start + 3] for start in range(8)] * 5
    wanted = [unsure_engine.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as lanes:
        for found, expected in zip(lanes.map(unsure_engine.run, batches), wanted, strict=True):
            np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-5)


def test_images_of_another_size_are_engine_failed(engine: Engine) -> None:
    with pytest.raises(EngineFailed, match="could not score 1 images"):
        engine.run(np.zeros((1, 8, 8, 3), np.uint8))


def test_a_closed_engine_fails_instead_of_answering(tiny_version: Path, squares: Pixels) -> None:
    engine = load(tiny_version / "flowers" / "1", threads=2)
    engine.close()
    with pytest.raises(EngineFailed):
        engine.run(squares[:1])


@pytest.mark.parametrize("content", [b"", b"no protocol buffer at all"])
def test_a_damaged_network_is_an_invalid_version(content: bytes) -> None:
    with pytest.raises(InvalidVersion, match=r"Version 7 has no cpu_model\.onnx that can be loaded"):
        OnnxRuntimeEngine(content, choice(), version="7")


def test_weights_in_a_file_beside_the_network_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file lies in the current folder, where nothing has verified it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights.bin").write_bytes(np.ones((4, 4), np.float32).tobytes())
    weights = TensorProto(name="weights", data_type=TensorProto.FLOAT, dims=[4, 4])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="weights.bin")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in ("x", "y")]
    body = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])], "g", values[:1], values[1:], [weights]
    )
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with pytest.raises(InvalidVersion, match="can be loaded"):
        OnnxRuntimeEngine(model.SerializeToString(), choice(), version="7")


@pytest.mark.parametrize("text", ["std::bad_alloc", "Failed to allocate memory for requested buffer of size 9"])
def test_a_load_without_memory_is_not_the_versions_fault(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession", Mock(side_effect=RuntimeError(text)))
    with pytest.raises(OutOfMemory, match="to load version 7"):
        OnnxRuntimeEngine(b"sound", choice(), version="7")


def test_the_bytes_of_a_network_are_not_kept(tiny_version: Path) -> None:
    network = (tiny_version / "flowers" / "1" / CPU_MODEL_FILES["float32"]).read_bytes()
    before = sys.getrefcount(network)
    engine = OnnxRuntimeEngine(network, choice(), version="1", threads=2)
    assert sys.getrefcount(network) == before
    engine.close()


def test_a_call_without_memory_is_out_of_memory(
    tiny_version: Path, monkeypatch: pytest.MonkeyPatch, squares: Pixels
) -> None:
    engine = load(tiny_version / "flowers" / "1", threads=1)
    monkeypatch.setattr(onnxruntime.InferenceSession, "run", Mock(side_effect=RuntimeError("std::bad_alloc")))
    with pytest.raises(OutOfMemory, match="batch of 1"):
        engine.run(squares[:1])


def graph(
    nodes: list[onnx.NodeProto], *, shape: tuple[str | int, ...] = ("N", 8, 8, 3), output: str = "probabilities",
    columns: dict[str, tuple[str | int, ...]] | None = None,
) -> onnx.ModelProto:  # fmt: skip
    """From `images` to (N, 192) of whatever the nodes make of them, and copies of the input's numbers as `columns`."""
    for name in columns or {}:
        nodes = [*nodes, helper.make_node("Identity", ["numbers"], [name])]
    more = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (columns or {}).items()]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, shape)
    out = helper.make_tensor_value_info(output, TensorProto.FLOAT, ("N", 192))
    body = helper.make_graph(nodes, "network", [images], [out, *more])
    return helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def flat(*others: onnx.NodeProto, last: str = "probabilities") -> list[onnx.NodeProto]:
    return [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["numbers"], ["flat" if others else last]),
        *others,
    ]


def of_numbers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, which takes float32."""
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    return model


@pytest.mark.parametrize(
    "model",
    [
        graph(flat(), shape=("N", 8, 6, 4)),
        graph(flat(), shape=("N", 4, 16, 3)),
        of_numbers(graph(flat())),
        graph(flat(), shape=(4, 8, 8, 3)),
        graph(flat(last="scores"), output="scores"),
        graph(flat(), columns={"scores": ("N", 8, 8, 3)}),
        graph(flat(), columns={"energy": ("N", 8, 8, 3)}),
        graph(flat(), columns={"energy": ("N", 8, 8, 3), "distance": ("N", 8, 8, 3)}),
    ],
)
def test_tensors_not_as_promised_are_an_invalid_version(tmp_path: Path, model: onnx.ModelProto) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    with pytest.raises(InvalidVersion, match=r"network for onnxruntime of version 7 has .*Expected were images: uint8"):
        load(write(folder, model))


def test_the_warm_up_runs_smallest_and_largest_calls(tiny_version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(tiny_version / "flowers" / "1", threads=2)
    sizes: set[int] = set()

    def watched(images: Pixels) -> Scores:
        sizes.add(len(images))
        return OnnxRuntimeEngine.run(engine, images)

    monkeypatch.setattr(engine, "run", watched)
    engine.warm_up(32)
    assert sizes == {1, 2, engine.max_batch_size}


def test_the_runtime_writes_nothing_past_the_log(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = graph(flat())
    model.graph.initializer.append(TensorProto(name="unused", data_type=TensorProto.FLOAT, dims=[1], float_data=[1.0]))
    load(write(tmp_path, model))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        (flat(), "no probability distribution"),
        (flat(helper.make_node("Log", ["flat"], ["log"]), helper.make_node("Sub", ["log", "log"], ["probabilities"])),
         "no table of finite numbers"),
        (flat(helper.make_node("Softmax", ["flat"], ["probabilities"], axis=0)), "no probability distribution"),
    ],
)  # fmt: skip
def test_answers_that_are_no_probabilities_fail_the_warm_up(
    tmp_path: Path, nodes: list[onnx.NodeProto], found: str
) -> None:
    engine = load(write(tmp_path, graph(nodes)))
    with pytest.raises(EngineFailed, match=found):
        engine.warm_up(4)


def test_a_version_in_use_may_be_removed(tiny_version: Path, tmp_path: Path, squares: Pixels) -> None:
    folder = shutil.copytree(tiny_version / "flowers" / "1", tmp_path / "1")
    engine = load(folder)
    shutil.rmtree(folder)
    assert engine.run(squares[:2]).probabilities.shape == (2, 5)
