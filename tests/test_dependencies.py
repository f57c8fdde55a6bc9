"""Libraries that are used beyond their public interface: bounded, and the same as when that was written."""

import hashlib
import inspect
import re
import tomllib
from importlib import import_module, metadata

import pytest
from conftest import REPOSITORY
from packaging.requirements import Requirement

REACHED_INTO = {
    "fastapi": "api/openapi.py describes a plain route as one of its own",
    "fastapi-swagger": "api/routes/docs.py reads its files",
    "httptools": "wire/head_guard.py feeds its parser part by part, and knows which errors it wraps",
    "onnxruntime": "engines/onnx_runtime.py takes the model's bytes from a session",
    "pillow": "imaging/decode.py and inference/decode_process.py set up its plug-ins",
    "pydantic-settings": "settings.py filters what it has read of the environment",
    "python-multipart": "api/multipart.py extends its parser, which passes over blanks behind delimiters",
    "tf2onnx": "training/export/int8.py drops nodes that it has written",
    "uvicorn": "wire/head_guard.py and wire/server.py extend its protocol and its server",
    "uvloop": "wire/ relies on how its transports pause, write and abort",
}

WRITTEN_FOR = {
    ("uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol"): "18fdf324b11bf160",
    ("uvicorn.protocols.http.httptools_impl", "RequestResponseCycle"): "e67d470d435dcc1c",
    ("uvicorn.protocols.http.flow_control", "FlowControl"): "126debcdaa894c83",
    ("uvicorn.server", "Server"): "06e799f7c58f8be6",
    ("python_multipart.multipart", "MultipartParser"): "d884158e94457558",
    ("python_multipart.multipart", "parse_options_header"): "448f39ef8cd0ff0b",
    ("fastapi.routing", "APIRoute"): "022b86b01668be47",
    ("pydantic_settings.sources.providers.env", "EnvSettingsSource"): "7993117ca8b68cc2",
}
"""Module and name -> the beginning of the SHA-256 of its source."""


def read_bounds() -> dict[str, Requirement]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return {requirement.name: requirement for requirement in map(Requirement, [*project["dependencies"], *extras])}


@pytest.mark.parametrize("library", REACHED_INTO)
def test_a_library_reached_into_has_an_upper_bound(library: str) -> None:
    operators = {bound.operator for bound in read_bounds()[library].specifier}
    assert operators == {">=", "<"}, f"{library}: {REACHED_INTO[library]}"
    assert read_bounds()[library].specifier.contains(metadata.version(library)), "install what the locks say"


@pytest.mark.parametrize(
    "lock", ["cpu", "train", "gpu", "gpu-serve", "remote", "dev", "browser", "containers", "docs", "ray"]
)
def test_the_locks_keep_to_the_bounds(lock: str) -> None:
    text = (REPOSITORY / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    locked = re.findall(r"^([a-z0-9-]+)==([^ ;\\\\]+)", text, re.MULTILINE)
    assert locked
    bounds = read_bounds()
    wrong = [
        f"{name}=={version}" for name, version in locked if name in bounds and version not in bounds[name].specifier
    ]
    assert not wrong, "run `make lock`"


@pytest.mark.parametrize(("module", "name"), WRITTEN_FOR)
def test_extended_code_is_what_it_was_when_extended(module: str, name: str) -> None:
    source = inspect.getsource(getattr(import_module(module), name))
    digest = hashlib.sha256(source.encode()).hexdigest()[:16]
    assert digest == WRITTEN_FOR[module, name], (
        f"{module}.{name} has changed. Compare it with the version that the lock had before. Mend what extends it. "
        "Then change the digest here and the bound in pyproject.toml."
    )
