import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.cli.terminal import open_console
from service.cli.training_progress import ProgressObserver, print_trained, to_json
from service.evaluation.metrics import evaluate
from service.evaluation.mistakes import Mistake
from service.training.checkpoint import Epoch
from service.training.gate import Verdict
from service.training.plan import NETWORK_LEARNS, Plan, Step
from service.training.train import Trained

EPOCH = Epoch(6, 1.5, 0.25, 1.25, 0.5, 1e-3, 12.0, 80.0)


def plan() -> Plan:
    steps = [
        Step("colours answers", 4, 30.0, "view"),
        Step(NETWORK_LEARNS, 40, 12.0, "epoch"),
        Step("exporting", 1, 60.0),
    ]
    return Plan("tiny learns the answers of colours. It is a test.", steps, clock=lambda: 5.0)


def test_a_log_says_epoch_and_time_left() -> None:
    log = io.StringIO()
    with ProgressObserver(open_console(log)) as observer:
        observer.epoch(EPOCH)
        observer.planned(plan())
        observer.progress("colours answers", 200, 400)
        observer.step(6, 10, 10, 1.5, 0.25, 80.0)
        observer.epoch(EPOCH)
        assert observer.at == "epoch 7 of 40"
        observer.stage("exporting")
    lines = log.getvalue().splitlines()
    assert lines[0].startswith("epoch 7: loss 1.5000")
    assert lines[1:-4] == list(plan().lines()), "the plan comes before its first step"
    assert lines[-4:] == [
        "colours answers",
        "epoch 7 of 40",
        "epoch 7 of 40: loss 1.5000, accuracy 0.2500, validation loss 1.2500, validation accuracy 0.5000, 12.0 s, "
        "80 images/s, about 8 min left in all",
        "exporting",
    ]


@pytest.fixture
def trained(tmp_path: Path) -> Trained:
    evaluation = evaluate(np.eye(2, dtype=np.float32), np.array([0, 0]), ["daisy", "roses"])
    mistakes = (Mistake(Path("garden/daisy/7.jpg"), "daisy", "roses", 0.875),)
    return Trained("garden", 3, "cpu", tmp_path, (EPOCH,), False, evaluation, mistakes)


def test_the_end_names_report_mistakes_and_next_command(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    (trained.run / "report.html").touch()
    print_trained([trained])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-5:] == [
        "Mistakes on the test part: 1 of 2 photographs. The most confident:",
        "  garden/daisy/7.jpg shows daisy. The answer is roses, 87.5%.",
        "All of them: flowers evaluate FOLDER --model garden --part test --mistakes wrong.csv",
        f"Report: {trained.run / 'report.html'}",
        "Next: flowers serve --model garden",
    ]
    (document,) = json.loads(to_json([trained]))
    assert document["report"] == str(trained.run / "report.html")


def test_a_candidate_is_named_with_its_reason_and_remedy(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    candidate = replace(trained, verdict=Verdict(False, "It is worse."))
    print_trained([candidate])
    lines = capsys.readouterr().out.splitlines()
    take = "flowers models take 3 --model garden"
    said = "Version 3 of garden is a candidate, which no service serves. It is worse."
    assert f"{said} Take it all the same with `{take}`." in lines
    assert "--model garden --version 3 --part test" in lines[-2]
    assert lines[-1] == f"Next: {take}"
    assert json.loads(to_json([candidate]))[0]["state"] == "candidate"
    live = replace(trained, verdict=Verdict(True, "It is the first."))
    print_trained([live])
    assert "Version 3 of garden goes live. It is the first." in capsys.readouterr().out.splitlines()
    assert json.loads(to_json([live]))[0]["state"] == "version"


def test_a_missing_report_is_not_named(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    print_trained([trained])
    assert "Report:" not in capsys.readouterr().out
    assert json.loads(to_json([trained]))[0]["report"] is None
