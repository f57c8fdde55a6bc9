"""Requests to every route, whole and damaged."""

import base64
import io
import json
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from benchmarks.drawn import draw_photograph

VERTEX = "/vertex"
SIDE = 224
_BOUNDARY = "fuzz"
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_LENGTH_HEADER = "Inference-Header-Content-Length"
_NUMBERS = ("0", "-1", "1", "3", "5", "6", "99999", "1e3", "0x10", "9" * 30, "9" * 5000, "", " ", "٣", "NaN", "1.0")
_TEXTS = (b"", b"\0", b"\xff\xfe", b'"', b"\r\n", b"--fuzz--", b"%00", "é".encode("latin-1"), b"x" * 5000)
_TYPES = (
    *("application/json", "application/octet-stream", "image/png", "image/svg+xml", "text/plain", "*/*", "image", ""),
    *("multipart/form-data", "multipart/form-data; boundary=fuzz", "multipart/form-data; boundary=", "a" * 300),
    *("application/x-www-form-urlencoded", "application/json; charset=utf-16", "multipart/mixed; boundary=fuzz"),
)
_HEADERS: dict[str, tuple[str, ...]] = {
    "Content-Type": _TYPES,
    "Content-Encoding": ("gzip", "identity", "br, gzip", ""),
    "Accept": ("application/json", "image/png;q=0", "*/*;q=x", ";;,,q=", "application/json;q=1e400", "a/b," * 500),
    "X-Request-Id": ("mine", "x" * 129, "a b", "\x7f", "é"),
    "X-Request-Timeout-Ms": (*_NUMBERS, "1", "50"),
    "X-Api-Key": ("k", "é"),
    "Origin": ("null", "https://example.com"),
    "Expect": ("100-continue", "200-ok"),
    "If-None-Match": ("*", '"a", W/"b"', ","),
    "X-Forwarded-Prefix": ("/a", "/a/../b", "//c", "/" + "p" * 3000),
    _LENGTH_HEADER: _NUMBERS,
    "Content-Length": _NUMBERS,
    "Transfer-Encoding": ("chunked", "gzip, chunked", "identity", "chunked, chunked"),
    "Upgrade": ("websocket", "h2c"),
    "Host": ("", "a, b", "[::1", "x" * 300),
}
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 3, 1.5, -0.0, 1e308, 2**63, 10**400, "", "a", "é\ud800", "x" * 70, "A" * 4096, [], {}),
    *([None], [[]], {"b64": ""}, {"b64": None}, [1, "2"], "data:image/png;base64,", "http://127.0.0.1:9/", "softmax"),
)
_NAMES = ("top_k", "image", "b64", "binary_data_size", "classification", "data", "shape", "é", "", "parameters")


@dataclass(frozen=True)
class Asking:
    """One request as it goes over the wire, but for its framing."""

    method: str
    target: bytes
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def add(self, name: str, value: str) -> "Asking":
        """Return it with one more header."""
        return replace(self, headers=(*self.headers, (name, value)))

    def write(self) -> bytes:
        """Return its bytes. A body without a framing of its own gets its length."""
        fields = [*self.headers, ("Connection", "close")]
        names = {name.lower() for name, _ in fields}
        if "host" not in names:
            fields.append(("Host", "flowers"))
        if (self.body or self.method == "POST") and not names & {"content-length", "transfer-encoding"}:
            fields.append(("Content-Length", str(len(self.body))))
        head = b"".join(f"{name}: {value}\r\n".encode("utf-8", "surrogateescape") for name, value in fields)
        return self.method.encode() + b" " + self.target + b" HTTP/1.1\r\n" + head + b"\r\n" + self.body


def make_requests(model: str, version: int) -> list[Asking]:
    """Return whole requests to every route of a service of this version. `VERTEX` is among the paths."""
    files = [_encode(name, seed) for seed, name in enumerate(_FORMATS)]
    asked = [_post("/predict", file, f"image/{name.lower()}") for file, name in zip(files, _FORMATS, strict=True)]
    text = base64.b64encode(files[1]).decode()
    form, form_type = _form(files[:1]), f"multipart/form-data; boundary={_BOUNDARY}"
    asked += [_post(path, form, form_type) for path in ("/predict?top_k=2", "/predict/batch", "/invocations")]
    asked += [_post("/predict/batch", _form(files), form_type)]
    asked += [_post("/explain", files[1], "image/jpeg"), _post("/explain?label=roses", form, form_type)]
    asked += [_post(path, files[0], "application/octet-stream") for path in ("/invocations", "/hugging-face")]
    asked += [_post_json("/explain", {"image": text})]
    document = {"image": text, "top_k": 3}
    asked += [_post_json(path, document) for path in ("/predict", "/invocations")]
    asked += [_post_json("/hugging-face", {"inputs": text, "parameters": {"top_k": 3, "function_to_apply": "softmax"}})]
    asked += [_post_json(VERTEX, {"instances": [{"b64": text}] * 2, "parameters": {"top_k": 2}})]
    for model_path in (f"/v1/models/{model}", f"/v1/models/{model}/versions/{version}"):
        asked += [Asking("GET", path.encode()) for path in (model_path, f"{model_path}/metadata")]
        pixels = [[[7, 8, 9]] * SIDE] * SIDE
        bodies: list[Any] = [
            {"instances": [{"b64": text}, {"images": {"b64": text}}]},
            {"inputs": {"images": [pixels]}},
        ]
        bodies += [{"inputs": [{"b64": text}], "signature_name": "serving_default"}, {"instances": [pixels]}]
        asked += [_post_json(f"{model_path}:predict", body) for body in bodies]
    for model_path in (f"/v2/models/{model}", f"/v2/models/{model}/versions/{version}"):
        asked += [Asking("GET", path.encode()) for path in (model_path, f"{model_path}/ready")]
        asked += _make_inferences(f"{model_path}/infer", text, files[1])
    paths: tuple[str, ...] = (
        "/",
        "/docs",
        "/openapi.json",
        "/models",
        f"/models/{model}",
        "/metrics",
        "/livez",
        "/readyz",
        "/startupz",
    )
    paths += (
        "/problems/invalid-image",
        "/ping",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/page/page.js",
        "/docs/swagger-ui.css",
    )
    return asked + [Asking("GET", path.encode()) for path in paths]


def damage(asking: Asking, others: list[Asking], source: random.Random) -> Asking:
    """Return a request that is damaged in one to four places: its body, a header, its method or its target."""
    for _ in range(source.randint(1, 4)):
        kind = source.random()
        if kind < 0.3 and asking.body[:1] == b"{":
            asking = replace(asking, body=_damage_json(asking.body, source))
        elif kind < 0.65:
            asking = replace(asking, body=_damage_bytes(asking.body, source.choice(others).body, source))
        elif kind < 0.85:
            name = source.choice(list(_HEADERS))
            kept = [field for field in asking.headers if field[0].lower() != name.lower() or source.random() < 0.2]
            asking = replace(asking, headers=(*kept, (name, source.choice(_HEADERS[name]))))
        elif kind < 0.95:
            asking = replace(asking, target=_damage_target(asking.target, source))
        elif kind < 0.98:
            asking = replace(asking, method=source.choice(("GET", "HEAD", "PUT", "OPTIONS", "BREW", "POST", "")))
        else:
            asking = replace(asking, target=source.choice(others).target)
    return asking


def _damage_bytes(data: bytes, other: bytes, source: random.Random) -> bytes:
    """Flip, replace, delete, repeat, splice or cut."""
    at = source.randrange(len(data) + 1)
    if source.random() < 0.4:
        at = min(at, source.randrange(64))  # headers decide the most
    size = source.choice((1, 2, 4, 16, 256))
    changes: tuple[Callable[[], bytes], ...] = (
        lambda: data[:at] + bytes(byte ^ 1 << source.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :],
        lambda: data[:at] + source.randbytes(size) + data[at + size :],
        lambda: data[:at] + source.choice(_TEXTS) + data[at:],
        lambda: data[:at] + data[at + size :],
        lambda: data[:at] + data[at : at + size] * source.choice((2, 10, 100)) + data[at:],
        lambda: data[:at] + other[source.randrange(len(other) + 1) :],
        lambda: data[:at],
    )
    return source.choice(changes)()


def _damage_json(body: bytes, source: random.Random) -> bytes:
    """Replace, add, drop or repeat a part of a document. What follows it stays."""
    try:
        text = body.decode("latin-1")
        document, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return body
    if source.random() < 0.1:
        deep = source.choice((15, 16, 17, 3000))
        return text[:1].encode() + b'"a":' + b"[" * deep + b"]" * deep + b"," + body[1:]
    if source.random() < 0.1:
        return body[:end][:-1] + b"," + body[1:end] + body[end:]  # each key twice
    places = list(_find_places(document, source))
    if places:
        holder, key = source.choice(places)
        change = source.random()
        if change < 0.6:
            holder[key] = source.choice(_VALUES)
        elif isinstance(holder, dict):
            value = holder.pop(key)
            if change < 0.8:
                holder[source.choice(_NAMES)] = value
        else:
            holder *= source.choice((0, 2, 20))
    changed = json.dumps(document, ensure_ascii=source.random() < 0.5)
    return changed.encode("utf-8", "surrogatepass") + text[end:].encode("latin-1")


def _find_places(document: Any, source: random.Random) -> list[tuple[Any, Any]]:
    """List some holders of a document with their keys. Of a long list there are three."""
    found: list[tuple[Any, Any]] = []
    keys = list(document) if isinstance(document, dict) else list(range(len(document)))
    for key in keys if len(keys) <= 8 else source.sample(keys, 3):
        found.append((document, key))
        if isinstance(document[key], dict | list):
            found += _find_places(document[key], source)
    return found


def _damage_target(target: bytes, source: random.Random) -> bytes:
    name = source.choice((b"top_k", b"label", b"topk", b"", b"%00", b"top%5Fk"))
    number = source.choice(_NUMBERS).encode()[:300]
    return source.choice(
        (
            target + b"?" + name + b"=" + number.replace(b" ", b"+"),
            target + b"&" + name + b"=" + source.choice((b"roses", b"%ff", b"%", b"a&" * 50)),
            target
            + source.choice((b"/", b"//", b"/..", b"%2e", b":classify", b"/labels/stable", b"\xc3\xa9", b"#a", b"\0")),
            target.replace(b"flowers", source.choice((b"roses", b"%66lowers", b"%00", b"..", b"f" * 300))),
            target.replace(b"versions/1", b"versions/" + number.replace(b" ", b"")),
            target[: source.randrange(len(target)) + 1],
        )
    )


def _make_inferences(path: str, text: str, file: bytes) -> list[Asking]:
    pixels = bytes(range(256)) * (SIDE * SIDE * 3 // 256)
    shape = [1, SIDE, SIDE, 3]
    floats = struct.pack(f"<{len(pixels)}f", *pixels)
    element = struct.pack("<I", len(file)) + file
    outputs = [{"name": "probabilities", "parameters": {"classification": 2}}]
    encoded = {"name": "encoded", "datatype": "BYTES", "shape": [1]}
    asked = [
        _post_json(path, {"id": "7", "inputs": [{**encoded, "data": [text]}], "outputs": outputs}),
        _post_json(path, {"inputs": [{"name": "images", "datatype": "UINT8", "shape": shape, "data": list(pixels)}]}),
    ]
    for tensor, binary in (
        (encoded, element),
        ({**encoded, "shape": [2]}, element * 2),
        ({"name": "images", "datatype": "UINT8", "shape": shape}, pixels),
        ({"name": "images_fp32", "datatype": "FP32", "shape": shape}, floats),
    ):
        document = {
            "inputs": [{**tensor, "parameters": {"binary_data_size": len(binary)}}],
            "parameters": {"binary_data_output": True},
        }
        head = json.dumps(document).encode()
        asked.append(_post(path, head + binary, "application/octet-stream").add(_LENGTH_HEADER, str(len(head))))
    return asked


def _encode(name: str, seed: int) -> bytes:
    stream = io.BytesIO()
    with Image.open(io.BytesIO(draw_photograph(seed, (48, 36)))) as image:
        image.save(stream, name)
    return stream.getvalue()


def _form(files: list[bytes]) -> bytes:
    head = 'Content-Disposition: form-data; name="{}"\r\n\r\n'
    parts = [head.format('file"; filename="a.jpg').encode() + file for file in files]
    parts.append(head.format("top_k").encode() + b"2")
    start = f"--{_BOUNDARY}\r\n".encode()
    return start + (b"\r\n" + start).join(parts) + f"\r\n--{_BOUNDARY}--\r\n".encode()


def _post(target: str, body: bytes, media_type: str) -> Asking:
    return Asking("POST", target.encode(), (("Content-Type", media_type),), body)


def _post_json(target: str, document: Any) -> Asking:
    return _post(target, json.dumps(document).encode(), "application/json")
