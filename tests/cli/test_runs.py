"""`flowers runs`, as a table and for programs."""

import json
from pathlib import Path

import pytest

from service.cli.main import main

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A finished training and one that has just begun."""
    test = {"accuracy": 0.925, "accuracy_low": 0.897, "accuracy_high": 0.944}
    files: dict[str, object] = {
        "garden-1/recipe": {"name": "transfer"}, "garden-1/split": {"photographs": [0] * 1234},
        "garden-1/history": [{"epoch": 0, "seconds": 3600.0}, {"epoch": 1, "seconds": 123.4}],
        "garden-1/published": {"model": "garden", "version": 3, "finished": True, "test": test},
        "garden-2/recipe": {"name": "default"},
    }  # fmt: skip
    for name, document in files.items():
        path = tmp_path / "runs" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document))
    return tmp_path / "runs"


def test_a_table_has_a_row_for_each_training(runs: Path, capsys: Capture) -> None:
    assert main(["runs", "--runs", str(runs)]) == 0
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines() if "│" in line]
    finished = ["garden-1", "garden", "3", "transfer", "1,234", "2", "92.5%", "89.7-94.4", "%", "1:02:03"]
    assert rows == [finished, ["garden-2", "(unfinished)", "default"]]


def test_programs_get_the_figures(runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("FLOWERS_RUNS", str(runs))
    assert main(["runs", "--json"]) == 0
    finished, begun = json.loads(capsys.readouterr().out)
    assert finished == {
        "run": "garden-1", "model": "garden", "version": 3, "recipe": "transfer", "num_photographs": 1234,
        "num_epochs": 2, "accuracy": 0.925, "accuracy_low": 0.897, "accuracy_high": 0.944, "seconds": 3723.4,
        "is_finished": True,
    }  # fmt: skip
    assert (begun["run"], begun["num_epochs"], begun["is_finished"]) == ("garden-2", None, False)


@pytest.mark.parametrize(("flags", "out"), [((), ""), (("--json",), "[]\n")])
def test_without_a_training_the_folder_is_named(
    tmp_path: Path, flags: tuple[str, ...], out: str, capsys: Capture
) -> None:
    assert main(["runs", "--runs", str(tmp_path), *flags]) == 0
    captured = capsys.readouterr()
    assert captured.out == out
    assert f"There is no training in {tmp_path}. Begin one with `flowers train`" in captured.err
