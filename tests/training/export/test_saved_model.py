import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.exporting import (
    OFFSET,
    SCALE,
    TEMPERATURE,
    build_tiny_network,
    draw_squares,
    expected_scores,
    trained_tiny_network,
    with_distance,
)

from service.engines.engine import Scores
from service.errors import PublishError
from service.imaging.pixels import Pixels
from service.training.export.saved_model import (
    check_saved_model,
    compare_answers,
    export_saved_model,
    read_saved_weights,
)


@pytest.fixture(scope="module")
def squares() -> Pixels:
    return draw_squares(range(3))[0][:13]


@pytest.fixture(scope="module")
def expected(squares: Pixels) -> Scores:
    return expected_scores(trained_tiny_network(), squares)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a compiled and trained network with dropout and optimizer; read-only, `copy` is for changing it."""
    folder = tmp_path_factory.mktemp("exported") / "1"
    export_saved_model(trained_tiny_network(), folder, scale=SCALE, offset=OFFSET, temperature=TEMPERATURE)
    return folder


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "1")


def test_the_weights_are_read_again_in_order(exported: Path, tmp_path: Path) -> None:
    for own, found in zip(trained_tiny_network().get_weights(), read_saved_weights(exported), strict=True):
        np.testing.assert_array_equal(found, own)
    with pytest.raises(PublishError, match="Begin with a version that this program wrote"):
        read_saved_weights(tmp_path)


def test_a_stranger_loads_the_version_with_plain_tensorflow(exported: Path, squares: Pixels, expected: Scores) -> None:
    loaded = tf.saved_model.load(str(exported))
    assert sorted(loaded.signatures) == ["scores", "serving_default"]
    answer = loaded.signatures["serving_default"](images=tf.constant(squares))
    assert list(answer) == ["probabilities"]
    probabilities = answer["probabilities"].numpy()
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (13, 5))
    np.testing.assert_allclose(probabilities, expected.probabilities, atol=1e-6)


@pytest.mark.parametrize("has_distance", [False, True])
def test_the_signature_scores_has_all_outputs(
    has_distance: bool, exported: Path, squares: Pixels, tmp_path: Path
) -> None:
    network = trained_tiny_network()
    if has_distance:
        network = with_distance(network)
        exported = tmp_path / "1"
        export_saved_model(network, exported, scale=SCALE, offset=OFFSET, temperature=TEMPERATURE)
    loaded = tf.saved_model.load(str(exported))
    answer = loaded.signatures["scores"](images=tf.constant(squares))
    names = {"probabilities", "energy", *(["distance"] if has_distance else [])}
    assert set(answer) == names
    assert list(loaded.signatures["serving_default"].structured_outputs) == ["probabilities"]
    expected = expected_scores(network, squares)
    for name in names:
        assert answer[name].dtype == tf.float32
        np.testing.assert_allclose(answer[name], vars(expected)[name], rtol=1e-5, atol=1e-6)


def test_the_signature_takes_any_number_of_squares(tmp_path: Path) -> None:
    network = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Flatten(), keras.layers.Dense(7)])
    export_saved_model(network, tmp_path / "1", scale=1.0, offset=0.0, temperature=1.0)
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    assert signature.structured_input_signature[1] == {"images": tf.TensorSpec((None, 64, 64, 3), tf.uint8, "images")}
    assert signature.structured_outputs["probabilities"].shape.as_list() == [None, 7]


def test_normalisation_temperature_and_softmax_are_inside(tmp_path: Path) -> None:
    network = keras.Sequential([keras.Input((1, 1, 3)), keras.layers.Flatten()])
    export_saved_model(network, tmp_path / "1", scale=0.01, offset=-0.5, temperature=2.0)
    signature = tf.saved_model.load(str(tmp_path / "1")).signatures["serving_default"]
    pixel = np.array([[[[0, 100, 255]]]], np.uint8)
    logits = np.array([-0.5, 0.5, 2.05]) / 2.0
    wanted = np.exp(logits) / np.exp(logits).sum()
    np.testing.assert_allclose(signature(images=tf.constant(pixel))["probabilities"][0], wanted, rtol=1e-6)


def test_nothing_but_the_savedmodel_is_left_in_the_folder(exported: Path) -> None:
    files = {path.relative_to(exported).as_posix() for path in exported.rglob("*")}
    assert files == {
        "fingerprint.pb",
        "saved_model.pb",
        "variables",
        "variables/variables.data-00000-of-00001",
        "variables/variables.index",
    }


def test_neither_optimizer_nor_keras_nor_paths_go_with_it(exported: Path) -> None:
    content = b"".join(path.read_bytes() for path in exported.rglob("*") if path.is_file())
    assert not re.findall(rb"(?i)adam|optimizer|momentum|keras|seed_generator|\.py\b|/home/|/tmp/", content)
    num_parameters = trained_tiny_network().count_params()
    stored = sum(size for _, size in _list_float_variables(exported))
    assert stored == num_parameters


def _list_float_variables(folder: Path) -> list[tuple[str, int]]:
    reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
    types, shapes = reader.get_variable_to_dtype_map(), reader.get_variable_to_shape_map()
    return [(name, int(np.prod(shapes[name]))) for name in shapes if types[name] == tf.float32]


def test_files_that_lie_in_the_folder_stay(tmp_path: Path) -> None:
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "metadata.json").write_text("{}")
    export_saved_model(build_tiny_network(), tmp_path, scale=1.0, offset=0.0, temperature=1.0)
    assert (tmp_path / "assets.extra" / "metadata.json").read_text() == "{}"


def test_an_unwritable_folder_is_a_publish_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="could not be written"):
        export_saved_model(build_tiny_network(), tmp_path / "file" / "1", scale=1.0, offset=0.0, temperature=1.0)


@pytest.mark.long
def test_a_good_export_passes_in_a_fresh_process(exported: Path, squares: Pixels, expected: Scores) -> None:
    check_saved_model(exported, squares, expected)


def test_a_difference_above_the_tolerance_is_refused(exported: Path, squares: Pixels, expected: Scores) -> None:
    other = replace(expected, probabilities=expected.probabilities + np.float32(5e-5))
    with pytest.raises(PublishError, match=r"serving_default .*at most 1e-05 is allowed"):
        check_saved_model(exported, squares, other)


@pytest.mark.long
def test_another_energy_is_found_in_scores(exported: Path, squares: Pixels, expected: Scores) -> None:
    assert expected.energy is not None
    other = replace(expected, energy=expected.energy * np.float32(1.002))
    with pytest.raises(PublishError, match=r"scores of the exported SavedModel.*: its energy differs .* by 0\.002"):
        check_saved_model(exported, squares, other)


RIGHT = {"probabilities": np.full((2, 5), 0.2, np.float32), "energy": np.array([-1, -2000], np.float32)}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"energy": np.array([-1.00009, -2000.1], np.float32)}, ""),
        (
            {"energy": np.array([-1.00011, -2000], np.float32)},
            "its energy differs from the trained network's by 0.00011",
        ),
        ({"energy": np.array([-1, np.nan], np.float32)}, "its energy differs from the trained network's by nan"),
        ({"energy": np.zeros((2, 1), np.float32)}, "its energy differs from the trained network's by nan"),
        ({"distance": np.zeros(2, np.float32)}, "it answers distance, energy, probabilities, expected energy, prob"),
        ({"probabilities": np.full((2, 4), 0.25, np.float32)}, "it answers float32 (2, 4), expected float32 (2, 5)"),
        ({"probabilities": np.full((2, 5), 0.2)}, "it answers float64 (2, 5), expected float32 (2, 5)"),
    ],
)
def test_a_wrong_answer_is_described(changes: dict[str, Any], found: str) -> None:
    complaint = compare_answers({**RIGHT, **changes}, RIGHT)
    assert complaint.startswith(found)
    assert bool(complaint) == bool(found)


@pytest.mark.long
def test_changed_weights_are_found_and_the_difference_is_said(copy: Path, squares: Pixels, expected: Scores) -> None:
    other = build_tiny_network(seed=1)
    export_saved_model(other, copy, scale=SCALE, offset=OFFSET, temperature=TEMPERATURE)
    answer = expected_scores(other, squares[:1]).probabilities
    difference = np.abs(answer - expected.probabilities[:1]).max()
    with pytest.raises(PublishError, match=rf"batch size 1: it differs .* by {difference:.1g}"[:-2]):
        check_saved_model(copy, squares, expected)


@pytest.mark.long
def test_a_difference_in_one_image_is_found(exported: Path, squares: Pixels, expected: Scores) -> None:
    other = replace(expected, probabilities=expected.probabilities.copy())
    other.probabilities[-1] = other.probabilities[-1][::-1]
    with pytest.raises(PublishError, match=f"batch size {len(squares)}: it differs"):
        check_saved_model(exported, squares, other)


def test_damaged_files_are_one_sentence_with_a_note(copy: Path, squares: Pixels, expected: Scores) -> None:
    (copy / "variables" / "variables.data-00000-of-00001").write_bytes(b"short")
    with pytest.raises(PublishError, match="does not load and run in a fresh process") as caught:
        check_saved_model(copy, squares, expected)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    assert any("Traceback" in note for note in caught.value.__notes__)


@pytest.mark.long
def test_weights_that_are_no_numbers_are_found(copy: Path, squares: Pixels, expected: Scores) -> None:
    broken = build_tiny_network()
    broken.set_weights([np.full_like(weight, np.nan) for weight in broken.get_weights()])
    export_saved_model(broken, copy, scale=SCALE, offset=OFFSET, temperature=TEMPERATURE)
    with pytest.raises(PublishError, match="differs from the trained network by nan"):
        check_saved_model(copy, squares, expected)
