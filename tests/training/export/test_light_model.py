from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.exporting import (
    OFFSET,
    SCALE,
    TEMPERATURE,
    build_tiny_network,
    draw_squares,
    expected_scores,
    trained_tiny_network,
)

from service.engines.engine import Scores
from service.imaging.pixels import Pixels
from service.store.layout import Precision, list_precisions
from service.store.metadata import CpuModel
from service.training.export.int8 import int8_model
from service.training.export.light_model import Int8Limits, compare, export_cpu_models


def rows(*best: float) -> Scores:
    """Two classes; the first has these probabilities."""
    first = np.array(best, np.float32)
    return Scores(np.stack([first, 1 - first], axis=1))


SURE, TRUTH = rows(*[0.9] * 1000), np.zeros(1000, np.int64)


def changed(found: Scores, *, to: float, count: int) -> Scores:
    probabilities = found.probabilities.copy()
    probabilities[:count] = rows(*[to] * count).probabilities
    return Scores(probabilities)


def test_the_same_answers_are_taken() -> None:
    for precision in ("float32", "int8"):
        model = compare(precision, SURE, SURE, TRUTH)
        assert model.refused is None
        assert (model.same_top1, model.accuracy, model.difference_max) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize(("difference", "refused"), [(9e-5, False), (2e-4, True)])
def test_float32_may_differ_by_1e_4(difference: float, refused: bool) -> None:
    model = compare("float32", changed(SURE, to=0.9 + difference, count=1), SURE, TRUTH)
    assert (model.refused is not None) == refused


@pytest.mark.parametrize(
    ("to", "count", "why"),
    [
        (0.4, 3, None),
        (0.4, 4, "accuracy changes by -0.40 points, at most 0.3 are allowed"),
        (0.4, 6, "the best class is the same for 99.4% of the photographs, at least 99.5% are wanted"),
        (0.86, 9, None),
        (0.86, 11, "the 99th percentile of the largest differences is 0.040, at most 0.03 is allowed"),
    ],
)
def test_int8_is_refused_with_the_reason(to: float, count: int, why: str | None) -> None:
    found = changed(SURE, to=to, count=count)
    model = compare("int8", found, SURE, TRUTH)
    assert (why is None) == (model.refused is None)
    if why is not None:
        assert why in str(model.refused)


SPREAD = np.linspace(-20, -10, 1000, dtype=np.float32)  # its standard deviation is 2.9


@pytest.mark.parametrize(
    ("precision", "found", "why"),
    [
        ("float32", SPREAD * np.float32(1.0009), None),
        ("float32", SPREAD * np.float32(1.0011), "differs by 0.0011, at most 1e-03 is allowed"),
        ("float32", SPREAD * np.float32(np.nan), "differs by nan"),
        ("int8", SPREAD + np.float32(1.4), None),
        ("int8", SPREAD + np.float32(1.6), "is 1.6, at most 1.4 is allowed"),
        ("int8", SPREAD * np.float32(np.nan), "is nan"),
        ("int8", None, "is missing in one of the two"),
    ],
)
@pytest.mark.parametrize("name", ["energy", "distance"])
def test_other_energies_and_distances_are_refused(
    name: str, precision: Precision, found: np.ndarray | None, why: str | None
) -> None:
    ours, reference = (Scores(SURE.probabilities, **{name: column}) for column in (found, SPREAD))
    refused = compare(precision, ours, reference, TRUTH).refused
    assert (refused is None) == (why is None)
    assert why is None or (why in str(refused) and name in str(refused))


WRONG = Scores(np.full((30, 5), 0.2, np.float32))


def export(
    network: keras.Model, folder: Path, expected: Scores | None = None, *, is_pretrained: bool = False
) -> list[CpuModel]:
    squares, class_indices = draw_squares(range(200, 206))
    return export_cpu_models(
        network, folder, scale=SCALE, offset=OFFSET, temperature=TEMPERATURE,
        calibration=draw_squares(range(4))[0], images=squares, class_indices=class_indices,
        expected=expected_scores(network, squares) if expected is None else expected, is_pretrained=is_pretrained,
    )  # fmt: skip


def precisions_in(folder: Path) -> tuple[Precision, ...]:
    return list_precisions({path.relative_to(folder).as_posix() for path in folder.rglob("*")})


def test_good_networks_are_written_beside_the_savedmodel(tmp_path: Path) -> None:
    float32, int8 = export(trained_tiny_network(), tmp_path)
    assert (float32.precision, float32.refused) == ("float32", None)
    assert (int8.precision, int8.quantised, int8.refused) == ("int8", "convolutions and hidden dense layers", None)
    assert float32.difference_max <= 1e-5 < int8.difference_max
    assert precisions_in(tmp_path) == ("float32", "int8")


def test_refused_networks_are_not(tmp_path: Path) -> None:
    models = export(trained_tiny_network(), tmp_path, expected=WRONG)
    assert [model.refused is not None for model in models] == [True, True, True]
    assert [model.quantised for model in models] == ["", "convolutions and hidden dense layers", "convolutions"]
    assert precisions_in(tmp_path) == ()


def test_a_pretrained_network_has_one_int8_form(tmp_path: Path) -> None:
    models = export(trained_tiny_network(), tmp_path, expected=WRONG, is_pretrained=True)
    assert [model.quantised for model in models] == ["", "most convolutions"]
    assert all(model.refused for model in models)


def test_the_class_of_one_photograph_may_differ() -> None:
    unsure, truth = rows(*[0.51] * 20), TRUTH[:20]
    one, two = (changed(unsure, to=0.495, count=count) for count in (1, 2))
    assert compare("int8", one, unsure, truth).refused is None
    assert "the same for 90.0% of the photographs" in str(compare("int8", two, unsure, truth).refused)
    assert compare("int8", two, unsure, truth, limits=Int8Limits(0.9, 0.1, 0.03)).refused is None


def test_convolutions_alone_are_taken_for_coarse_dense_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(network: keras.Model, calibration: Pixels, *, with_dense_layers: bool, **numbers: float) -> Any:
        darkened = np.full_like(calibration, 127) if with_dense_layers else calibration  # all ranges are narrow
        return int8_model(network, darkened, with_dense_layers=with_dense_layers, **numbers)

    monkeypatch.setattr("service.training.export.light_model.int8_model", spoilt)
    float32, coarse, good = export(trained_tiny_network(), tmp_path)
    assert (float32.refused, good.refused, good.quantised) == (None, None, "convolutions")
    assert "the same for" in str(coarse.refused)
    assert precisions_in(tmp_path) == ("float32", "int8")


def test_channels_of_different_size_are_made_alike(tmp_path: Path) -> None:
    # The same function: each filter many times as large as the one before, and read by weights as much smaller.
    network = trained_tiny_network()
    lopsided = build_tiny_network()
    for layer, source in zip(lopsided.layers, network.layers, strict=True):
        weights = source.get_weights()
        if isinstance(layer, keras.layers.Conv2D):
            factors = np.logspace(-2, 2, layer.filters)
            weights = [weights[0] * factors, weights[1] * factors]
        elif isinstance(layer, keras.layers.Dense):
            weights[0] = weights[0] / np.resize(factors, len(weights[0]))[:, None]
        layer.set_weights(weights)
    float32, int8 = export(lopsided, tmp_path)
    assert (float32.refused, int8.refused) == (None, None)
