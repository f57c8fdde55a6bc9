"""`flowers predict --ray`: requests that are refused. `tests/scoring/test_ray.py` has those that run."""

from pathlib import Path

import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode

from service.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a photograph of a daisy. The store is the shipped one. The libraries seem installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLOWERS_MODEL_STORE", str(REPOSITORY / "model_store"))
    monkeypatch.setattr("service.cli.predict_ray.find_spec", lambda name: name)
    (tmp_path / "photo.jpg").write_bytes(encode(draw_photograph(0, 301)))
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ray"], "Name their folder with --output"),
        (["--output", "scores"], "--output is the folder of --ray"),
        (["--ray", "--output", "scores", "--format", "csv"], "Leave out --format csv"),
        (["--ray", "--output", "scores", "--top-k", "1"], "--sort-into and --top-k"),
        (["--ray", "--output", "scores", "--url", "http://localhost:1"], "Leave out --sample, --url"),
        (["--ray", "--output", "scores", "nowhere"], "nowhere is not there. Name a folder, a pattern, a list"),
        (["--ray", "--output", ".", "--rows-per-file", "1"], "which holds other files"),
        (["--ray", "--output", "scores", "--rows-per-file", "0"], "--rows-per-file (FLOWERS_ROWS_PER_FILE) is '0'"),
        (["--ray", "--output", "scores", "--device", "gpu", "--engine", "onnxruntime"], "Leave out --device gpu"),
    ],
)
def test_asking_wrongly_is_one_sentence(place: Path, arguments: list[str], said: str, capsys: Capture) -> None:
    assert main(["predict", "photo.jpg", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
    assert [path.name for path in place.iterdir()] == ["photo.jpg"]


def test_a_missing_library_is_named(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("service.cli.predict_ray.find_spec", lambda name: None if name == "ray" else name)
    assert main(["predict", "photo.jpg", "--ray", "--output", "scores"]) == 2
    message = capsys.readouterr().err
    assert "needs the library ray, which is not installed." in message
    assert "-m pip install 'ray[data]' pyarrow fsspec`" in message
    assert [path.name for path in place.iterdir()] == ["photo.jpg"]
