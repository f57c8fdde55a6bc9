"""Documents in JSON: what is taken as the standard parser takes it, and every bound."""

import asyncio
import gc
import json
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from support.tickets import open_ticket

from service.api.json_bodies import (
    MAX_STRUCTURE_BYTES,
    JsonValue,
    LongText,
    max_body_bytes,
    parse_json,
    read_json,
)
from service.api.upload import UploadLimits
from service.errors import BodyTooSlow, ImageBytesTooLarge, MalformedRequest, MissingImage, QueueFull
from service.inference.admission import Admission

pytestmark = pytest.mark.anyio

LONG = "A" * 1000
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
TEXTS = st.text(max_size=200) | st.sampled_from(['"', "\\", "\\" * 99, LONG, f'{LONG}"\\"{LONG}', "NaN", "[{:"])
DOCUMENTS = st.recursive(
    SCALARS | TEXTS, lambda values: st.lists(values, max_size=4) | st.dictionaries(TEXTS, values, max_size=4)
)


def plain(value: JsonValue) -> Any:
    """The document with its long strings read."""
    match value:
        case LongText(body, start, end):
            return json.loads(b'"%b"' % body[start:end])
        case list():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
    return value


@given(DOCUMENTS, st.booleans(), st.sampled_from([None, 2]))
def test_documents_are_parsed_as_by_the_standard_parser(document: Any, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode("utf-8", "surrogatepass")
    if depth_of(document) > 16:
        with pytest.raises(MalformedRequest, match="16"):
            parse_json(body)
    elif ascii_only or "\\ud" not in json.dumps(document):
        assert plain(parse_json(body)) == document


def depth_of(document: Any) -> int:
    if not isinstance(document, list | dict):
        return 0
    return 1 + max(map(depth_of, document if isinstance(document, list) else document.values()), default=0)


def test_only_long_values_stay_in_the_body() -> None:
    document = parse_json(json.dumps({LONG: "A" * 62, "b": "A" * 63, "c": [LONG]}).encode())
    assert isinstance(document, dict)
    assert document[LONG] == "A" * 62
    assert isinstance(document["b"], LongText)
    assert plain(document["c"]) == [LONG]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"{", b'{"a": 1,}', b"{'a': 1}", b'{"a": 1} x', b'{"a": 1}{}', b'"abc', b'"ab\\"'),
        *(b"\xff\xd8\xff", b"NaN", b"[-Infinity]", b'{"a": Infinity}', b"[1e999]", b"[-1e999]", b"9" * 5000),
        *(b'{"a": 1, "a": 2}', b'{"a": {"b": 1, "\\u0062": 1}}', b"[" * 17 + b"]" * 17, b"[" * 50_000),
        *(b'["\xff"]', '["ä"]'.encode("utf-16"), b'\xef\xbb\xbf{"a": 1}', b'["a\nb"]', b'["\\x"]', b'{"a" "b"}'),
        b'[NaN, "%b"]' % LONG.encode(),
        *(b'"\\ud800"', b'{"\\udfff": 1}', b'{"a": ["\\ud83c"]}', b'["\\udf3b\\ud83c"]'),
    ],
)  # fmt: skip
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="Let a library write it"):
        parse_json(body)


def test_sixteen_levels_are_taken() -> None:
    assert parse_json(b"[" * 16 + b"]" * 16) == json.loads("[" * 16 + "]" * 16)


@pytest.mark.parametrize(
    "body",
    [
        b" " * MAX_STRUCTURE_BYTES + b"1",
        b"[" + b"1," * MAX_STRUCTURE_BYTES + b"1]",
        b'{"%b": 1}' % (b"a" * MAX_STRUCTURE_BYTES),
        b"[" + b'"",' * MAX_STRUCTURE_BYTES + b'""]',
        b"[" + b'"%b",' % LONG.encode() * MAX_STRUCTURE_BYTES + b'""]',
        b'["%b"]' % (b'\\"' * MAX_STRUCTURE_BYTES),
    ],
    ids=["spaces", "numbers", "key", "short strings", "long strings", "escaped quotes"],
)
def test_much_beside_long_strings_is_too_large(body: bytes) -> None:
    with pytest.raises(ImageBytesTooLarge, match="65536 bytes beside"):
        parse_json(body)


def test_long_strings_take_no_memory_of_their_own() -> None:
    body = json.dumps({"image": "A" * 4_000_000}).encode()
    tracemalloc.start()
    try:
        document = parse_json(body)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert isinstance(document, dict)


def ask(body: bytes, *, announced: int | None = None, never_ends: bool = False, size: int = 100_000) -> Request:
    """A request whose body comes in pieces."""
    pieces: Iterator[bytes] = iter([body[start : start + size] for start in range(0, len(body), size)])

    async def receive() -> dict[str, Any]:
        piece = next(pieces, None)
        if piece is None and never_ends:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

    headers = [(b"transfer-encoding", b"chunked")]
    if announced is not None:
        headers = [(b"content-length", str(announced).encode())]
    return Request({"type": "http", "headers": headers, "state": {}}, receive)


async def read(
    request: Request, translate: Callable[[JsonValue], Any] = plain, body_timeout_s: float = 30, max_bytes: int = 10**7
) -> Any:
    with open_ticket() as ticket:
        return await read_json(request, ticket, UploadLimits(1000, body_timeout_s), translate, max_bytes)


@pytest.mark.parametrize(("num_bytes", "is_beside"), [(1000, False), (300_000, True)])
async def test_a_large_body_is_parsed_beside_the_event_loop(num_bytes: int, is_beside: bool) -> None:
    def translate(document: JsonValue) -> tuple[Any, bool]:
        return plain(document), threading.current_thread() is not threading.main_thread()

    text = "A" * num_bytes
    assert await read(ask(json.dumps([text]).encode()), translate) == ([text], is_beside)


@pytest.mark.parametrize("announced", [None, 1_000_001])
async def test_a_body_above_its_limit_is_refused(announced: int | None) -> None:
    request = ask(b" " * 1_000_001, announced=announced, never_ends=True)
    with pytest.raises(ImageBytesTooLarge, match="1000000 bytes"):
        await read(request, max_bytes=1_000_000)


async def test_an_empty_body_is_a_missing_image() -> None:
    for request in (ask(b""), ask(b"", announced=0)):
        with pytest.raises(MissingImage):
            await read(request)


async def test_a_body_has_its_time() -> None:
    with pytest.raises(BodyTooSlow):
        await read(ask(b"[", never_ends=True), body_timeout_s=0.01)


async def test_the_ticket_counts_every_piece() -> None:
    with open_ticket() as ticket:
        assert await read_json(ask(b"[1]"), ticket, UploadLimits(1000, 30), plain, 100) == [1]
        assert ticket.num_bytes == 3


async def test_a_ticket_without_room_refuses_the_body() -> None:
    admission = Admission(max_queue_size=1, max_queue_bytes=150_000, min_queue_size=lambda: 1)
    with pytest.raises(QueueFull), admission.request() as ticket:
        await read_json(ask(b" " * 200_000), ticket, UploadLimits(1000, 30), plain, 10**6)
    assert admission.num_bytes == 0


@pytest.mark.parametrize("num_bytes", [1000, 300_000])
async def test_a_refused_body_is_gone_without_a_collection(num_bytes: int) -> None:
    def refuse(document: JsonValue) -> None:
        raise MissingImage("none")

    def num_texts() -> int:
        return sum(isinstance(held, LongText) for held in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        num_before = num_texts()
        with pytest.raises(MissingImage):
            await read(ask(json.dumps(["A" * num_bytes]).encode()), refuse)
        await asyncio.sleep(0)  # until then the event loop holds what woke the task
        assert num_texts() == num_before
    finally:
        gc.enable()


def test_a_body_has_room_for_base64_and_64_kib() -> None:
    assert max_body_bytes(20 * 1024 * 1024) == 27_962_028 + 64 * 1024


def test_whole_surrogate_pairs_are_a_character() -> None:
    assert parse_json(b'{"\\ud83c\\udf3b": ["\\\\ud800"]}') == {"\U0001f33b": ["\\ud800"]}
