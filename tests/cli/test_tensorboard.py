"""The log for TensorBoard, as TensorBoard itself reads it."""

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from service.cli.main import main
from service.cli.tensorboard import TensorBoardObserver
from service.cli.terminal import open_console
from service.training.checkpoint import Epoch
from service.training.plan import NETWORK_LEARNS, Plan, Step

EPOCH = Epoch(0, 1.5, 0.25, 1.25, 0.5, 1e-3, 12.0, 80.0)


def read_log(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Name of a figure -> step and value of each point."""
    log = EventAccumulator(str(folder))
    log.Reload()
    return {
        name: [(event.step, event.tensor_proto.float_val[0]) for event in log.Tensors(name)]
        for name in log.Tags()["tensors"]
    }


def test_each_epoch_is_a_point_of_each_figure(tmp_path: Path) -> None:
    words = io.StringIO()
    with TensorBoardObserver(open_console(words)) as observer:
        observer.began(tmp_path)
        observer.epoch(EPOCH)
        observer.epoch(replace(EPOCH, epoch=1, loss=0.75, validation_loss=None, validation_accuracy=None))
    figures = read_log(tmp_path / "tensorboard" / "network-1")
    assert figures["loss"] == [(1, 1.5), (2, 0.75)]
    assert figures["validation_accuracy"] == [(1, 0.5)]
    assert set(figures) == set(vars(EPOCH)) - {"epoch"}
    assert words.getvalue().splitlines()[0].startswith("epoch 1: loss 1.5000"), "the progress is shown as well"


def test_each_network_of_a_training_has_its_folder(tmp_path: Path) -> None:
    steps = [Step(NETWORK_LEARNS, 2, 1.0, "epoch"), Step("refit", 1), Step(NETWORK_LEARNS, 2, 1.0, "epoch")]
    with TensorBoardObserver(open_console(io.StringIO())) as observer:
        observer.began(tmp_path)
        observer.planned(Plan("two networks", steps))
        for loss, epoch in ((4.0, 0), (3.0, 1), (2.0, 0), (1.0, 1)):
            observer.epoch(replace(EPOCH, epoch=epoch, loss=loss))
    losses = [read_log(tmp_path / "tensorboard" / f"network-{number}")["loss"] for number in (1, 2)]
    assert losses == [[(1, 4.0), (2, 3.0)], [(1, 2.0), (2, 1.0)]]


def test_a_missing_library_is_missed_before_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    assert main(["train", str(tmp_path / "missing"), "--tensorboard"]) == 2
    assert "-m pip install tensorboard`, or leave out the flag" in capsys.readouterr().err
