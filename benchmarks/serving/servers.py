"""Servers that take part. A new peer is a folder below `peers/` and a row here."""

import base64
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.serving.environments import PEERS
from service.bench.photographs import as_form
from service.engines.wish import PrecisionWish

REPOSITORY = Path(__file__).resolve().parents[2]
CORES = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Model:
    """Version in a model store."""

    name: str
    store: Path
    version: int
    class_names: tuple[str, ...]
    network: str

    @property
    def folder(self) -> Path:
        """Folder of the SavedModel."""
        return self.store / self.name / str(self.version)


Body = tuple[bytes, str]
"""Body and content type."""


@dataclass(frozen=True)
class Server:
    """Row of the comparison.

    `command` wants the Python, the port and the model. `environment` is the folder below `peers/` whose lock is
    installed, None for this project's own. `encode` makes a photograph a body, `read` takes the probabilities, in
    the order of the classes, out of the answer's JSON. `precision` is that of our engine.
    """

    name: str
    command: Callable[[str, int, Model], list[str]]
    read: Callable[[Any, Sequence[str]], list[float]]
    environment: str | None = None
    folder: Path = REPOSITORY
    path: str = "/predict"
    encode: Callable[[bytes], Body] = as_form
    needs: Callable[[Model], str] = lambda _: ""
    """Function from a model to the reason why the server cannot run it here, or to nothing."""
    precision: PrecisionWish = "auto"


def _read_ours(document: Any, class_names: Sequence[str]) -> list[float]:
    probabilities = {row["label"]: row["probability"] for row in document["predictions"]}
    return [probabilities[label] for label in class_names]


def _read_plain(document: Any, _: Sequence[str]) -> list[float]:
    return list(document["probabilities"])


def _read_first_row(document: Any, _: Sequence[str]) -> list[float]:
    return list(document[0])


def _read_inference_protocol(document: Any, _: Sequence[str]) -> list[float]:
    return list(document["outputs"][0]["data"])


def _as_body(photograph: bytes) -> Body:
    return photograph, "image/jpeg"


def _as_inference_request(photograph: bytes) -> Body:
    inputs = {
        "name": "photograph",
        "shape": [1],
        "datatype": "BYTES",
        "parameters": {"content_type": "base64"},
        "data": [base64.b64encode(photograph).decode()],
    }
    return json.dumps({"inputs": [inputs]}).encode(), "application/json"


def _has_cpu_model(model: Model) -> str:
    has_one = any((model.folder / "assets.extra").glob("cpu_model.*"))
    return "" if has_one else "the version has no network for onnxruntime (assets.extra/cpu_model.*)"


def _ours(name: str, *flags: str, needs: Callable[[Model], str] = lambda _: "") -> Server:
    def command(python: str, port: int, model: Model) -> list[str]:
        places = ["--port", str(port), "--model-store", str(model.store), "--model", model.name]
        return [python, "-m", "service", "serve", *places, "--device", "cpu", "--log-format", "json", *flags]

    return Server(name, command, _read_ours, needs=needs)


def _peer(name: str, folder: str, *command: str, **fields: Any) -> Server:
    """Return a peer. `command` follows the Python, and "{port}" in it becomes the port."""

    def fill(python: str, port: int, _: Model) -> list[str]:
        return [python, *(word.replace("{port}", str(port)) for word in command)]

    return Server(name, fill, **{"environment": folder, "folder": PEERS / folder, "read": _read_plain, **fields})


_UVICORN = ("-m", "uvicorn", "--port", "{port}")

FASTAPI_DEF, LITSERVE, LITSERVE_OUR_ENGINE = "FastAPI def", "LitServe", "LitServe, our engine"
OURS = (
    _ours("ours", "--engine", "auto"),
    _ours("ours, float32", "--engine", "auto", "--precision", "float32", needs=_has_cpu_model),
    _ours("ours, SavedModel", "--engine", "savedmodel"),
)


@dataclass(frozen=True)
class FrontEnds:
    """Our decoder and engine in one precision, behind our front end and others.

    All have a process per core, but for `one_worker`.
    """

    ours: Server
    one_worker: Server
    others: tuple[Server, ...]

    @property
    def servers(self) -> tuple[Server, ...]:
        """All of them, ours first."""
        return self.ours, self.one_worker, *self.others


def _front_ends(precision: PrecisionWish) -> FrontEnds:
    end = "" if precision == "auto" else f", {precision}"

    def ours(name: str, num_workers: int) -> Server:
        flags = ["--precision", precision, "--workers", str(num_workers)]
        return replace(_ours(f"ours, {name}{end}", *flags, needs=_has_cpu_model), precision=precision)

    def other(name: str, folder: str, *command: str, **fields: Any) -> Server:
        fields |= {"precision": precision, "needs": _has_cpu_model}
        return _peer(f"{name}, our engine{end}", f"{folder}_our_engine", *command, **fields)

    address = ("--address", "127.0.0.1", "--port", "{port}")
    return FrontEnds(
        ours("a worker per core", CORES),
        ours("one worker", 1),
        (
            other("mosec", "mosec", "server.py", *address, encode=_as_body),
            other("FastAPI async def", "fastapi_async", *_UVICORN, "--workers", str(CORES), "async_def:app"),
            other("LitServe", "litserve", "server.py", "{port}"),
        ),
    )


FRONT_ENDS: dict[PrecisionWish, FrontEnds] = {"auto": _front_ends("auto"), "float32": _front_ends("float32")}
OTHER_FRONT_ENDS = tuple(server for group in FRONT_ENDS.values() for server in group.others)
PEERS_OF_OURS = (
    _peer(FASTAPI_DEF, "fastapi", *_UVICORN, "plain_def:app"),
    _peer("FastAPI model.predict", "fastapi", *_UVICORN, "keras_predict:app"),
    _peer(LITSERVE, "litserve", "server.py", "{port}"),
    *(server for server in OTHER_FRONT_ENDS if server.name == LITSERVE_OUR_ENGINE),
    _peer(
        "BentoML",
        "bentoml",
        *("-m", "bentoml", "serve", "server:Flowers", "--host", "127.0.0.1", "--port", "{port}"),
        encode=partial(as_form, field="images"),
        read=_read_first_row,
    ),
    _peer("Ray Serve", "ray_serve", "server.py", "{port}", encode=_as_body),
    _peer(
        "MLServer",
        "mlserver",
        *("-c", "from mlserver.cli import main; main()", "start", "."),
        path="/v2/models/flowers/infer",
        encode=_as_inference_request,
        read=_read_inference_protocol,
    ),
)
COMPARED = (*OURS, *PEERS_OF_OURS)
"""Servers of the whole comparison."""
SERVERS = tuple(dict.fromkeys((*COMPARED, *(server for group in FRONT_ENDS.values() for server in group.servers))))


def environment_of(server: Server, port: int, model: Model, scratch: Path) -> dict[str, str]:
    """Return the variables that the server's process has beside ours."""
    variables = {"SAVED_MODEL": str(model.folder), "SCRATCH": str(scratch), "TF_CPP_MIN_LOG_LEVEL": "2"}
    if server.folder != REPOSITORY:
        variables |= {"PRECISION": server.precision, "WORKERS": str(CORES)}
        variables["PYTHONPATH"] = f"{PEERS / 'shared'}:{REPOSITORY}"
    if server.folder.name == "mlserver":  # it takes its ports from nowhere else
        ports = {f"MLSERVER_{kind}_PORT": str(port + i) for i, kind in enumerate(("HTTP", "GRPC", "METRICS"))}
        variables |= {"MLSERVER_HOST": "127.0.0.1", **ports}
    return variables
