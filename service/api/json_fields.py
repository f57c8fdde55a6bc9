"""Fields of JSON documents, checked before their use."""

import difflib
from collections.abc import Collection

from service.api.json_bodies import JsonValue
from service.api.parameters import TOP_K
from service.errors import InvalidParameter


def take_object(value: JsonValue, name: str, fields: Collection[str]) -> dict[str, JsonValue]:
    """Return an object with no fields but these. `name` is its place in the document.

    Raises `InvalidParameter` for another value, and for an unknown field, with the nearest known one.
    """
    if not isinstance(value, dict):
        raise InvalidParameter(
            f"A JSON object was expected for {name}. Send one with {' and '.join(map(repr, fields))}."
        )
    for field in value:
        if field not in fields:
            nearest = difflib.get_close_matches(field[:80], fields, n=1, cutoff=0)[0]
            raise InvalidParameter(
                f"{field[:40]!a} is no field of {name}. The nearest is {nearest!r}. Write that, or leave it out."
            )
    return value


def read_top_k(fields: dict[str, JsonValue]) -> tuple[str, ...]:
    """Return the value of `top_k` as the text of a parameter. null is no value.

    Raises `InvalidParameter` for no integer.
    """
    top_k = fields.get(TOP_K)
    if top_k is None:
        return ()
    if not isinstance(top_k, int) or isinstance(top_k, bool):
        raise InvalidParameter(f"{TOP_K} is no integer. Send a number such as 3, without quotes.")
    return (str(top_k),)
