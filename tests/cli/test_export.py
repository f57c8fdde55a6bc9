"""`flowers export`: a file, a check, and a line for each language."""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import PIL.Image
import pytest
from support.drawing import CLASS_NAMES, draw_photograph, encode

from service.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, tiny_version: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a photograph of a daisy. The store has a tiny version."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWERS_MODEL_STORE", str(tiny_version))
    (tmp_path / "photo.jpg").write_bytes(encode(draw_photograph(0, 301)))
    return tmp_path


def test_the_printed_line_of_python_runs(place: Path, capsys: Capture) -> None:
    assert main(["export", "--to", "onnx", "--photographs", "."]) == 0
    check, order, python, javascript = capsys.readouterr().out.splitlines()
    assert check.startswith("flowers-1.onnx gives the label of the SavedModel for 1 of 1 images. Probabilities differ")
    assert order == f"The order of the probabilities: {', '.join(CLASS_NAMES)}."
    libraries = {"onnxruntime": onnxruntime, "numpy": np, "PIL": PIL}
    probabilities = eval(python.removeprefix("Python: "), libraries)
    assert CLASS_NAMES[probabilities.argmax()] == "daisy"
    assert javascript.startswith('JavaScript: (await (await ort.InferenceSession.create("flowers-1.onnx")).run({image')


@pytest.mark.long
def test_without_photographs_views_of_samples_are_compared(place: Path, capsys: Capture) -> None:
    assert main(["export", "--to", "onnx"]) == 0
    same = capsys.readouterr().out.split(" for ")[1].split(".")[0]
    assert same in ("199 of 200 images", "200 of 200 images")


@pytest.mark.long
def test_programs_get_figures_names_and_lines(place: Path, capsys: Capture) -> None:
    (place / "photos").mkdir()
    os.link(place / "photo.jpg", place / "photos" / "photo.jpg")
    arguments = ["--to", "litert", "--json", "--photographs", "photos", "--output", "a b.tflite", "--version", "1"]
    assert main(["export", *arguments]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["file"], document["num_photographs"], document["num_different"]) == ("a b.tflite", 1, 0)
    assert document["difference_max"] < 0.02
    assert document["class_names"] == list(CLASS_NAMES)
    assert document["use"]["Python"].startswith('ai_edge_litert.interpreter.Interpreter("a b.tflite").get_sig')
    assert (place / "a b.tflite").read_bytes()[4:8] == b"TFL3"


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        ([], 2, "--to"),
        (["--to", "coreml"], 2, "--to"),
        (["--to", "onnx", "--version", "9"], 1, "no version 9"),
        (["--to", "onnx", "--output", "photo.jpg"], 2, "photo.jpg is there already. Remove it, or name another"),
        (["--to", "onnx", "--photographs", "nowhere"], 1, "There is no image to check the exported file with"),
        (["--to", "onnx", "--photographs", ".", "--output", "nowhere/a.onnx"], 1, "cannot be written"),
    ],
)
def test_what_cannot_be_done_leaves_no_file(
    place: Path, arguments: list[str], exit_code: int, said: str, capsys: Capture
) -> None:
    assert main(["export", *arguments]) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert [path.name for path in place.iterdir()] == ["photo.jpg"]


def test_a_version_without_a_network_is_named(store: Path, capsys: Capture) -> None:
    assert main(["export", "--to", "onnx", "--model-store", str(store)]) == 1
    assert "The SavedModel of version 1 cannot be loaded" in capsys.readouterr().err
