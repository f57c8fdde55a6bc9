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

from service.store.layout import METADATA_FILE
from service.store.metadata import read_metadata
from service.training.export.model_card import write_card

pytestmark = pytest.mark.clients

PHOTO = encode(draw_photograph(3, seed=300))
PROGRAM = Path(__file__).with_name("hugging_face") / "ask.py"


def test_the_hub_reads_the_card_of_a_version(tmp_path: Path) -> None:
    newest = max((REPOSITORY / "model_store" / "flowers").glob("[0-9]*"), key=lambda path: int(path.name))
    metadata = read_metadata(newest / METADATA_FILE)
    card = tmp_path / "README.md"
    card.write_text(write_card(metadata), encoding="utf-8")
    program = "import sys; from huggingface_hub import ModelCard; data = ModelCard.load(sys.argv[1]).data;"
    program += "print(data.pipeline_tag, [(r.metric_type, r.metric_value) for r in data.eval_results])"
    python = require_environment("hugging_face")
    process = subprocess.run([python, "-c", program, str(card)], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("image-classification [")
    assert str(("accuracy", metadata.stated_accuracy)) in process.stdout


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
