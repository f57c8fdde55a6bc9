"""Hugging Face's own client against the shipped model, with and without keys."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode
from support.programs import require_environment

pytestmark = pytest.mark.clients

PHOTO = encode(draw_photograph(3, seed=300))
PROGRAM = Path(__file__).with_name("hugging_face") / "ask.py"


def test_hugging_face_s_client_classifies_unchanged(service: Any, tmp_path: Path) -> None:
    photograph = tmp_path / "photo.jpg"
    photograph.write_bytes(PHOTO)
    headers = {"X-API-Key": service.key} if service.key else {}
    scores = httpx.post(f"{service.url}/predict", content=PHOTO, headers=headers).json()["predictions"]
    expected = [{"label": score["label"], "score": score["probability"]} for score in scores]

    command = [
        require_environment("hugging_face"),
        str(PROGRAM),
        f"{service.url}/hugging-face",
        str(photograph),
        service.key,
    ]
    environment = {**os.environ, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path), "PYTHONPATH": ""}
    process = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=environment, check=False)
    assert process.returncode == 0, process.stderr
    answer = json.loads(process.stdout)
    assert (answer["all"], answer["two"], answer["softmax"]) == (expected, expected[:2], expected)
    status, text = answer["refused"]
    assert (status, json.loads(text).keys()) == (422, {"error"})
