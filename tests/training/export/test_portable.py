"""Files for other programs: their resize, their comparison with the SavedModel, and both formats."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from conftest import REPOSITORY
from numpy.typing import NDArray
from support.exporting import draw_squares

from service.errors import ExportError
from service.files import list_visible
from service.imaging.limits import ResizeRule
from service.imaging.pixels import Pixels
from service.imaging.resize import resize
from service.store.verify import verify_version
from service.training.export.checked_images import Pair, read_pairs
from service.training.export.portable import Comparison, PortableForm, compare, export_portable, resize_any

Float32 = NDArray[np.float32]
SIZES = [(1, 1), (1, 700), (500, 3), (224, 224), (256, 256), (31, 47), (240, 320), (1500, 1000), (1024, 1031)]


def draw_noise(height: int, width: int) -> Pixels:
    """Smooth noise, and two hard edges."""
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels[: height // 3] //= 2
    pixels[:, : width // 5] = (255, 0, 128)
    return pixels


@pytest.mark.parametrize("rule", [ResizeRule(), ResizeRule(64, 64), ResizeRule(31, 40)])
@pytest.mark.parametrize("size", SIZES)
def test_the_resize_is_that_of_the_service(size: tuple[int, int], rule: ResizeRule) -> None:
    image = draw_noise(*size)
    expected = resize(image, rule).astype(np.float32)
    found = resize_any(tf.constant(image), rule).numpy()
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1
    assert np.mean(found != expected) < 0.25


def of_label(label: int) -> Pixels:
    return np.full((1, 1, 3), label, np.uint8)


def score(image: Pixels) -> Float32:
    """The label is the first pixel's value."""
    probabilities = np.zeros(5, np.float32)
    probabilities[image[0, 0, 0]] = 1
    return probabilities


@pytest.mark.parametrize("num_different", [0, 1])
def test_one_photograph_may_have_another_label(num_different: int) -> None:
    pairs = [(of_label(1), of_label(1))] * 199 + [(of_label(2), of_label(2 + num_different))]
    assert compare(score, score, pairs) == Comparison(200, num_different, num_different)


def test_two_other_labels_are_refused() -> None:
    pairs = [(of_label(1), of_label(1))] * 198 + [(of_label(2), of_label(3))] * 2
    with pytest.raises(ExportError, match=r"another class than the SavedModel for 2 of 200 images\. .* Nothing was"):
        compare(score, score, pairs)


def test_numbers_that_are_no_probabilities_are_refused() -> None:
    with pytest.raises(ExportError, match="no probabilities"):
        compare(lambda image: score(image) * np.float32(np.nan), score, [(of_label(0), of_label(0))])
    with pytest.raises(ExportError, match="There is no image"):
        compare(score, score, [])


def test_a_refused_file_is_not_written(tiny_version: Path, tmp_path: Path) -> None:
    verified = verify_version(tiny_version / "flowers" / "1")
    squares = draw_squares(range(300, 301))[0]
    wrong = ((squares[place], squares[place - 1]) for place in range(3))
    with pytest.raises(ExportError, match="for 3 of 3 images"):
        export_portable(verified, tmp_path / "flowers.onnx", "onnx", wrong)
    assert list(tmp_path.iterdir()) == []


def list_pairs() -> Iterator[Pair]:
    for height, width in SIZES:
        image = draw_noise(height, width)
        yield image, resize(image)


@pytest.mark.long
@pytest.mark.parametrize("form", ["onnx", "litert"])
def test_both_formats_take_any_size(tiny_version: Path, tmp_path: Path, form: PortableForm) -> None:
    verified = verify_version(tiny_version / "flowers" / "1")
    compared = export_portable(verified, tmp_path / "file", form, list_pairs())
    assert compared.num_photographs == len(SIZES)
    assert compared.num_different <= 1
    assert compared.difference_max < 0.02
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    if form == "onnx":
        session = onnxruntime.InferenceSession(tmp_path / "file")
        assert [(one.name, one.shape, one.type) for one in session.get_inputs()] == [
            ("image", ["height", "width", 3], "tensor(uint8)")
        ]
        assert {one.name: one.shape for one in session.get_outputs()} == {"probabilities": [5], "energy": []}
        names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
        assert names == verified.metadata.class_names


@pytest.mark.long
@pytest.mark.photographs
@pytest.mark.parametrize("form", ["onnx", "litert"])
def test_200_photographs_keep_their_labels(photographs: Path, tmp_path: Path, form: PortableForm) -> None:
    (folder,) = (REPOSITORY / "model_store" / "flowers").glob("[0-9]*")
    files = [path for path in list_visible(photographs) if path.suffix == ".jpg"]
    verified = verify_version(folder)
    compared = export_portable(verified, tmp_path / "file", form, read_pairs(files, ResizeRule()))
    assert compared.num_photographs == 200
    assert compared.num_different <= 1
    assert compared.difference_max < 0.02
