import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.number_arrays import NumberArray, find_array, read_pixels, round_pixels
from service.errors import InvalidParameter, MalformedRequest

SHAPE = (2, 96, 96, 3)
PIXELS = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
FLOATS = PIXELS.astype(np.float64)


def find(text: str) -> NumberArray:
    array = find_array(text.encode(), 0)
    assert array is not None
    return array


def read(values: object, shape: tuple[int, ...] = SHAPE, **options: bool) -> np.ndarray:
    return read_pixels(find(json.dumps(values)), shape, "data", **options)


@pytest.mark.parametrize("indent", [None, 1])
def test_nested_integers_become_pixels(indent: int | None) -> None:
    array = find(json.dumps(PIXELS.tolist(), indent=indent) + ', "more": [1]}')
    np.testing.assert_array_equal(read_pixels(array, SHAPE, "data"), PIXELS)
    one = find(json.dumps(PIXELS[0].tolist(), indent=indent))
    np.testing.assert_array_equal(read_pixels(one, SHAPE[1:], "data"), PIXELS[0])


@pytest.mark.parametrize("is_float", [False, True])
def test_flat_arrays_are_an_option(is_float: bool) -> None:
    values = (FLOATS if is_float else PIXELS).ravel().tolist()
    np.testing.assert_array_equal(read(values, is_float=is_float, may_be_flat=True), PIXELS)
    with pytest.raises(InvalidParameter, match="another shape"):
        read(values, is_float=is_float)


def test_float_pixels_are_rounded_half_to_even() -> None:
    values = FLOATS.copy()
    values[0, 0, :2] = [[0.5, 1.5, 2.5], [254.5, 0.49, 255.0]]
    assert read(values.tolist(), is_float=True)[0, 0, :2].tolist() == [[0, 2, 2], [254, 0, 255]]


@pytest.mark.parametrize("value", ["255.4", "-0.3", "1e39", "256", "-1", "1" + "0" * 400])
@pytest.mark.parametrize("is_float", [False, True])
def test_numbers_that_are_no_pixels_are_refused(value: str, is_float: bool) -> None:
    text = json.dumps(PIXELS.tolist())
    cut = text.rindex(",") + 1
    with pytest.raises(InvalidParameter, match="no pixel"):
        read_pixels(find(f"{text[:cut]}{value}]]]]"), SHAPE, "data", is_float=is_float)


@pytest.mark.parametrize("value", ["1.0", "1e2"])
def test_integers_have_no_fraction_or_exponent(value: str) -> None:
    text = json.dumps(PIXELS.tolist())
    cut = text.rindex(",") + 1
    with pytest.raises(InvalidParameter, match="integers"):
        read_pixels(find(f"{text[:cut]}{value}]]]]"), SHAPE, "data")


@pytest.mark.parametrize("value", ["", "1 2", "01", "+1", "1.", "--1", "1" + "0" * 5000])
def test_text_that_is_no_number_is_malformed(value: str) -> None:
    text = json.dumps(PIXELS.tolist())
    cut = text.rindex(",") + 1
    with pytest.raises(MalformedRequest):
        read_pixels(find(f"{text[:cut]}{value}]]]]"), SHAPE, "data")


@pytest.mark.parametrize("shape", [(2, 48, 192, 3), (1, 96, 96, 6), (2, 96, 96, 4), (4, 96, 96, 3), (3, 96, 96, 2)])
def test_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidParameter, match="another shape"):
        read(PIXELS.tolist(), shape)


@pytest.mark.parametrize(("before", "after"), [("[[", "[8["), ("], [", "], 8[")])
def test_numbers_outside_of_their_brackets_are_refused(before: str, after: str) -> None:
    text = json.dumps(PIXELS.tolist())
    at = text.index(before, 20_000 if before[0] == "]" else 0)
    moved = text[:at] + after + text[at + len(before) :].replace("8", "", 1)
    array = find(moved)
    with pytest.raises((InvalidParameter, MalformedRequest)):
        read_pixels(array, SHAPE, "data")


def test_a_number_stays_on_its_side_of_brackets() -> None:
    text = json.dumps(PIXELS.tolist(), separators=(",", ":"))
    at = text.index("],[")
    first, rest = text[: at + 3], text[at + 3 :]
    number, _, rest = rest.partition(",")
    for moved in (f"{first[:-1]}{number}[,{rest}", f"{text[:at].rpartition(',')[0]},]{number},[{number},{rest}"):
        with pytest.raises((InvalidParameter, MalformedRequest)):
            read_pixels(find(moved), SHAPE, "data")


def test_short_and_mixed_arrays_are_left_in_the_document() -> None:
    assert find_array(b"[1, 224, 224, 3]", 0) is None
    assert find_array(b"[" + b"1," * 50_000 + b'"text"]', 0) is None
    assert find_array(b"[" + b"1," * 50_000, 0) is None
    assert find_array(b'[{"b64": ""}, ' + b"[1]," * 50_000 + b"[1]]", 0) is None


@given(st.recursive(st.integers(0, 9), lambda inner: st.lists(inner, min_size=1, max_size=4), max_leaves=300))
def test_an_array_ends_at_its_own_bracket(values: object) -> None:
    text = json.dumps([values, [0] * 100])
    array = find(text + ", [1]]")
    assert array.end == len(text)
    assert array.num_values == text.count(",") + 1


def test_pixels_that_are_not_finite_are_refused() -> None:
    for value in (np.nan, np.inf, -np.inf):
        with pytest.raises(InvalidParameter, match="no pixel"):
            round_pixels(np.array([0, value], np.float32), "images_fp32")
