"""The examples that need more than Python, against the shipped model with and without keys."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode
from support.pages import read_block

pytestmark = pytest.mark.clients

EXAMPLES = REPOSITORY / "examples"
PHOTO = encode(draw_photograph(3, seed=300))
READ_CONFIG = """
import sys
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig
with open(sys.argv[1]) as file:
    (model,) = text_format.Parse(file.read(), ModelServerConfig()).model_config_list.config
print(model.name, model.base_path, model.model_platform)
"""


def run(service: Any, folder: Path, *command: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "SERVICE_URL": service.url, "SERVICE_KEY": service.key}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def label(service: Any) -> str:
    headers = {"X-API-Key": service.key} if service.key else {}
    return str(httpx.post(f"{service.url}/predict", content=PHOTO, headers=headers).json()["label"])


def test_the_curl_example_classifies_each_photograph(
    service: Any, label: str, tmp_path: Path, require: Callable[[str, str], str]
) -> None:
    require("curl", "curl")
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(PHOTO)
    process = run(service, tmp_path, str(EXAMPLES / "curl.sh"), "a.jpg", "b.jpg")
    assert process.returncode == 0, process.stderr
    answers = [json.loads(line.partition(": ")[2]) for line in process.stdout.splitlines()]
    assert [(answer["label"], len(answer["predictions"])) for answer in answers] == [(label, 2), (label, 2)]


def test_the_curl_example_fails_with_the_problem(
    service: Any, tmp_path: Path, require: Callable[[str, str], str]
) -> None:
    require("curl", "curl")
    (tmp_path / "note.jpg").write_text("no image")
    process = run(service, tmp_path, str(EXAMPLES / "curl.sh"), "note.jpg")
    assert process.returncode == 22
    assert "/problems/unsupported-image-format" in process.stdout


def test_the_javascript_example_classifies_and_names_problems(
    service: Any, label: str, tmp_path: Path, require: Callable[[str, str], str]
) -> None:
    (tmp_path / "a.jpg").write_bytes(PHOTO)
    (tmp_path / "note.jpg").write_text("no image")
    process = run(service, tmp_path, require("node", "nodejs"), str(EXAMPLES / "client.mjs"), "note.jpg", "a.jpg")
    assert process.returncode == 1
    assert process.stdout.startswith(f"a.jpg: {label} (")
    assert process.stderr.startswith("note.jpg: Unsupported image format. ")


def test_the_page_s_curl_lines_explain_a_score(
    service: Any, label: str, tmp_path: Path, require: Callable[[str, str], str]
) -> None:
    if service.key:
        pytest.skip("the lines have no key")
    require("curl", "curl")
    (tmp_path / "tulip.jpg").write_bytes(PHOTO)
    lines = read_block("reference/http.md", "Explain a score", "sh", service.url)
    process = run(service, tmp_path, "bash", "-euc", lines)
    assert process.returncode == 0, process.stderr
    assert (tmp_path / "heat_map.png").read_bytes().startswith(b"\x89PNG")
    answer = json.loads(process.stdout)
    assert (answer["label"], len(answer["grid"])) == (label, 7)


def test_the_page_s_javascript_explains_a_score(
    service: Any, label: str, tmp_path: Path, require: Callable[[str, str], str]
) -> None:
    if service.key:
        pytest.skip("the lines have no key")
    (tmp_path / "tulip.jpg").write_bytes(PHOTO)
    (tmp_path / "explain.mjs").write_text(read_block("reference/http.md", "Explain a score", "js", service.url))
    process = run(service, tmp_path, require("node", "nodejs"), "explain.mjs")
    assert process.stderr == ""
    printed, drop = process.stdout.split()
    assert printed == label
    assert -1 <= float(drop) <= 1


def test_tensorflow_serving_understands_the_config() -> None:
    """Its own schema reads the file. The server itself is in no registry of packages and was not run."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        reason = "no tensorflow-serving-api here: .ci/clients installs it for itself"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    config = str(EXAMPLES / "tensorflow_serving" / "models.config")
    process = subprocess.run([sys.executable, "-c", READ_CONFIG, config], capture_output=True, text=True, check=False)
    assert process.stdout.split() == ["flowers", "/models/flowers", "tensorflow"], process.stderr
