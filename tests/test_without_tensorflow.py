"""Where onnxruntime serves, nothing imports TensorFlow or anything else that only training needs."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from support.drawing import draw_photograph, encode

PHOTO = encode(draw_photograph(2, seed=300))
HEAVY = ["tensorflow", "keras", "onnx", "matplotlib"]

# As `flowers` starts, but in the end it writes down which of the heavy libraries were imported.
PROGRAM = f"""
import sys
from pathlib import Path
from service.cli.main import main

exit_code = main(sys.argv[2:])
Path(sys.argv[1]).write_text(" ".join(name for name in {HEAVY} if name in sys.modules))
sys.exit(exit_code)
"""


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """One photograph of each class."""
    for index, label in enumerate(("daisy", "dandelion", "roses", "sunflowers", "tulips")):
        (tmp_path / "photographs" / label).mkdir(parents=True)
        (tmp_path / "photographs" / label / "1.jpg").write_bytes(encode(draw_photograph(index, seed=300)))
    return tmp_path / "photographs"


def command(tmp_path: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(tmp_path / "imported"), *arguments]


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_photographs_are_scored_without_it(
    tiny_version: Path, photographs: Path, tmp_path: Path, verb: str, precision: str
) -> None:
    flags = ("--model-store", str(tiny_version), "--device", "cpu", "--precision", precision)
    subprocess.run(command(tmp_path, verb, str(photographs), *flags), check=True, capture_output=True)
    assert (tmp_path / "imported").read_text() == ""


def test_doctor_does_without_it(tiny_version: Path, tmp_path: Path) -> None:
    subprocess.run(
        command(tmp_path, "doctor", "--model-store", str(tiny_version), "--device", "cpu"),
        check=True,
        capture_output=True,
        env={**os.environ, "PATH": ""},  # no nvidia-smi, wherever this runs
    )
    assert (tmp_path / "imported").read_text() == ""


def test_it_serves_without_it(tiny_version: Path, tmp_path: Path) -> None:
    flags = ("--port", "0", "--log-format", "json", "--drain-delay-s", "0", "--device", "cpu", "--workers", "1")
    with subprocess.Popen(
        command(tmp_path, "serve", "--model-store", str(tiny_version), *flags), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        events = {}
        while "model loaded" not in events:
            event = json.loads(process.stderr.readline())
            events[event["event"]] = event
        response = httpx.post(
            f"{events['service listening']['url']}/predict", content=PHOTO, headers={"Content-Type": "image/jpeg"}
        )
        assert (response.status_code, response.json()["label"]) == (200, "roses")
        assert events["model loaded"]["engine"] == "onnxruntime"
        process.send_signal(signal.SIGTERM)
        process.stderr.read()
        assert process.wait() == 0
    assert (tmp_path / "imported").read_text() == ""
