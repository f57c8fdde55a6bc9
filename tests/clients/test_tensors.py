"""Triton's and KServe's own clients against the shipped model, with and without keys."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode
from support.programs import require_environment

from service.imaging.decode import decode_image
from service.imaging.resize import resize

pytestmark = pytest.mark.clients

PHOTO = encode(draw_photograph(3, seed=300))
MANIFEST = REPOSITORY / "examples" / "kserve" / "inference-service.yaml"


@pytest.fixture
def scores(service: Any) -> dict[str, float]:
    """The probabilities of `/predict` by label, in the order of the classes."""
    headers = {"X-API-Key": service.key} if service.key else {}
    answer = httpx.post(f"{service.url}/predict", content=PHOTO, headers=headers).json()
    card = httpx.get(f"{service.url}/models/flowers", headers=headers).json()["card"]
    by_label = {score["label"]: score["probability"] for score in answer["predictions"]}
    return {name: by_label[name] for name in card["class_names"]}


def run(client: str, *arguments: str) -> Any:
    command = [require_environment(client), *arguments]
    environment = {**os.environ, "PYTHONPATH": ""}
    process = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def ask(client: str, address: str, key: str, folder: Path) -> Any:
    photograph, pixels = folder / "photo.jpg", folder / "pixels.npy"
    photograph.write_bytes(PHOTO)
    square = resize(decode_image(PHOTO))
    np.save(pixels, np.stack([square, square[::-1]]))
    program = Path(__file__).with_name(client) / "ask.py"
    return run(client, str(program), address, str(photograph), str(pixels), key)


def check_rows(rows: dict[str, list[list[float]]], expected: list[float]) -> None:
    for row, other in rows.values():
        np.testing.assert_allclose(row, expected, atol=1e-5)
        assert other != row


def test_triton_s_client_works_unchanged(service: Any, scores: dict[str, float], tmp_path: Path) -> None:
    expected = list(scores.values())
    answer = ask("triton", service.url.removeprefix("http://"), service.key, tmp_path)
    assert (answer["probes"], answer["other"]) == ([True, True, True], False)
    assert answer["server"]["extensions"] == ["classification", "binary_tensor_data"]
    assert answer["model"]["platform"] == "tensorflow_savedmodel"
    check_rows(answer["rows"], expected)
    np.testing.assert_allclose(answer["file"], [expected], atol=1e-5)
    binary, in_json = answer["classified"]
    assert binary == in_json
    score, index, label = binary[0][0].split(":")
    assert float(score) == pytest.approx(max(expected), abs=1e-5)
    assert label == list(scores)[int(index)] == max(scores, key=scores.__getitem__)
    assert (answer["unknown"][0], answer["gzip"][0]) == ("404", "415")
    assert "request_compression_algorithm" in answer["gzip"][1]


def test_kserve_s_client_works_unchanged(service: Any, scores: dict[str, float], tmp_path: Path) -> None:
    expected = list(scores.values())
    answer = ask("kserve", service.url, service.key, tmp_path)
    first, second = answer["v1"], answer["v2"]
    assert (second["probes"], second["ready"], first["ready"]) == ([True, True], True, True)
    check_rows(second["rows"], expected)
    for file in (first["file"], second["file"]):
        np.testing.assert_allclose(file, [expected], atol=1e-5)
    assert "No model is served as 'birds'" in second["unknown"]
    assert "404" in second["unknown"]


def test_kserve_s_models_take_the_manifest() -> None:
    program = Path(__file__).with_name("kserve") / "check_manifest.py"
    answer = run("kserve", str(program), str(MANIFEST))
    assert answer == {"kind": "InferenceService", "unknown": []}
