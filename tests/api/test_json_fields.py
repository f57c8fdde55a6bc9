import pytest

from service.api.json_bodies import JsonValue, parse_json
from service.api.json_fields import read_top_k, take_object
from service.errors import InvalidParameter


def test_an_object_with_known_fields_is_returned() -> None:
    assert take_object({"a": 1}, "the body", ("a", "b")) == {"a": 1}


@pytest.mark.parametrize("value", [None, 1, "a", [], parse_json(b'"%b"' % (b"a" * 99))])
def test_another_value_is_no_object(value: JsonValue) -> None:
    with pytest.raises(InvalidParameter, match="'image' and 'top_k'"):
        take_object(value, "the body", ("image", "top_k"))


@pytest.mark.parametrize(
    ("field", "shown"), [("imgae", "'imgae'"), ("image\ud800", r"'image\\ud800'"), ("i" * 9999, "'i{38}")]
)
def test_an_unknown_field_names_the_nearest(field: str, shown: str) -> None:
    with pytest.raises(InvalidParameter, match=rf"{shown}.*The nearest is 'image'") as caught:
        take_object({field: 1}, "the body", ("image", "top_k"))
    assert len(str(caught.value).encode()) < 200


@pytest.mark.parametrize(("fields", "top_k"), [({}, ()), ({"top_k": None}, ()), ({"top_k": 3}, ("3",))])
def test_top_k_is_an_integer(fields: dict[str, JsonValue], top_k: tuple[str, ...]) -> None:
    assert read_top_k(fields) == top_k


@pytest.mark.parametrize("value", ["3", 3.0, True, [3], {}])
def test_top_k_of_another_type_is_refused(value: JsonValue) -> None:
    with pytest.raises(InvalidParameter, match="top_k is no integer"):
        read_top_k({"top_k": value})
