import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from support.fitting import SCHEDULE, drawn_pixels, fit_small, learning_network, tiny_network

from service.data.cache import PixelCache
from service.errors import TrainingError
from service.training.checkpoint import Checkpoint, Epoch, Variables, load_checkpoint, save_checkpoint
from service.training.fit import predict, validate
from service.training.observer import Observer
from service.training.targets import TeacherTargets
from service.training.trained_network import add_known, on_pixels

TESTS = Path(__file__).parents[1]
FITTING = TESTS / "support" / "fitting.py"
ONE = replace(SCHEDULE, epochs=1, cosine=False)


def read(checkpoint: Path) -> Checkpoint:
    loaded = load_checkpoint(checkpoint)
    assert loaded is not None
    return loaded


def assert_same(values: Variables, others: Variables) -> None:
    for value, other in zip(values, others, strict=True):
        np.testing.assert_array_equal(value, other)


class Interrupter(Observer):
    """Presses Ctrl-C at the first step of an epoch."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def step(self, epoch: int, *_: float) -> None:
        if epoch == self._epoch:
            raise KeyboardInterrupt


class Recorder(Observer):
    """Remembers the network's own weights at the end of each epoch."""

    def __init__(self, network: keras.Model) -> None:
        self._network = network
        self.ends: list[list[np.ndarray]] = []

    def epoch(self, result: Epoch) -> None:
        self.ends.append(self._network.get_weights())


@pytest.mark.long
def test_a_killed_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    fit_small(learning_network(), tmp_path / "whole.npz")
    with subprocess.Popen(
        [sys.executable, str(FITTING), str(tmp_path / "killed.npz")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["epoch 0\n", "half of the second epoch\n"]
        process.kill()
    assert [epoch.epoch for epoch in read(tmp_path / "killed.npz").history] == [0]

    resumed = fit_small(learning_network(), tmp_path / "killed.npz")

    assert [epoch.epoch for epoch in resumed.history] == [0, 1, 2]
    whole, killed = read(tmp_path / "whole.npz"), read(tmp_path / "killed.npz")
    assert_same([*killed.state, *killed.best], [*whole.state, *whole.best])


@pytest.mark.usefixtures("eager")
def test_an_interrupted_training_from_disk_ends_the_same(tmp_path: Path) -> None:
    cache = PixelCache(tmp_path / "decoded", 10**9)
    schedule = replace(SCHEDULE, epochs=2)
    fit_small(learning_network(), tmp_path / "whole.npz", schedule, cache=cache)
    stopped = tmp_path / "stopped.npz"
    assert fit_small(learning_network(), stopped, schedule, cache=cache, observer=Interrupter(1)).interrupted
    fit_small(learning_network(), stopped, schedule, cache=cache)
    whole, resumed = read(tmp_path / "whole.npz"), read(stopped)
    assert_same([*resumed.state, *resumed.best], [*whole.state, *whole.best])


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    (epoch,) = fit_small(learning_network(), path, ONE).history
    saved = read(path)
    others = [
        Checkpoint((epoch,), [np.zeros(3, np.float32)], [np.zeros(3, np.float32)]),
        replace(saved, history=()),
        replace(saved, history=(replace(epoch, validation_loss=None, validation_accuracy=None),)),
    ]
    for other in others:
        save_checkpoint(path, other)
        with pytest.raises(TrainingError, match=r"checkpoint\.npz is damaged.* Remove it"):
            fit_small(learning_network(), path, ONE)


@pytest.mark.long
def test_one_seed_trains_the_same_network_twice(tmp_path: Path) -> None:
    first, second, again = learning_network(), learning_network(), learning_network()
    done = fit_small(first, tmp_path / "first.npz")
    fit_small(second, tmp_path / "second.npz")
    assert_same(second.get_weights(), first.get_weights())
    assert fit_small(again, tmp_path / "first.npz").history == done.history
    assert_same(again.get_weights(), first.get_weights())


def test_a_finished_training_without_state_is_taken_up(tmp_path: Path) -> None:
    first, again = learning_network(), learning_network(seed=12)
    history = fit_small(first, None).history
    kept = Checkpoint((history[1], history[2]), (), first.get_weights())
    save_checkpoint(tmp_path / "checkpoint.npz", kept)
    assert fit_small(again, tmp_path / "checkpoint.npz").history == kept.history
    assert_same(again.get_weights(), first.get_weights())


def test_ctrl_c_keeps_the_best_epoch_so_far(tmp_path: Path) -> None:
    one, stopped = learning_network(), learning_network()
    fit_small(one, tmp_path / "one.npz", ONE)
    fitted = fit_small(stopped, tmp_path / "stopped.npz", replace(ONE, epochs=3), observer=Interrupter(1))
    assert fitted.interrupted
    assert len(fitted.history) == 1
    assert_same(stopped.get_weights(), one.get_weights())


def test_ctrl_c_in_the_first_epoch_keeps_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit_small(learning_network(), tmp_path / "checkpoint.npz", observer=Interrupter(0))


@pytest.mark.parametrize(
    ("second", "keeps_best", "kept"),
    [((2.0, 0.5), True, 0), ((0.5, 0.9), True, 1), ((1.5, 0.9), True, 0), ((2.0, 0.5), False, 1)],
    ids=["less accurate", "as accurate and surer", "as accurate and less sure", "the last is wanted"],
)
def test_the_network_ends_with_its_best_epoch(
    second: tuple[float, float], keeps_best: bool, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: Iterator[tuple[float, float]] = iter([(1.0, 0.9), second])
    monkeypatch.setattr("service.training.fit.validate", lambda *_: next(figures))
    network = learning_network()
    recorder = Recorder(network)
    schedule = replace(ONE, epochs=2, average_decay=0.0)
    fit_small(network, None, schedule, observer=recorder, keeps_best=keeps_best)
    assert not np.array_equal(recorder.ends[0][0], recorder.ends[1][0])
    assert_same(network.get_weights(), recorder.ends[kept])


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="learning rate"):
        fit_small(learning_network(scale=float("nan")), tmp_path / "checkpoint.npz")


@pytest.mark.long
def test_a_resumed_training_keeps_the_mean_of_weights(tmp_path: Path) -> None:
    schedule = replace(SCHEDULE, epochs=4, swa_share=0.5, swa_learning_rate=0.01)
    path, first, second = tmp_path / "checkpoint.npz", learning_network(), learning_network()
    before, after = Recorder(first), Recorder(second)
    stop = Interrupter(3)
    before.step = stop.step  # type: ignore[method-assign,assignment]  # in the middle of the mean
    assert fit_small(first, path, schedule, observer=before).interrupted
    resumed = fit_small(second, path, schedule, observer=after)
    third, fourth = before.ends[2], after.ends[0]
    for mean, one, other in zip(read(path).state[-len(third) :], third, fourth, strict=True):
        np.testing.assert_allclose(mean, (one + other) / 2, atol=1e-6)
    assert [epoch.learning_rate for epoch in resumed.history[2:]] == pytest.approx([0.01, 0.01])
    assert any(np.abs(one - other).max() > 1e-3 for one, other in zip(third, fourth, strict=True))


def test_a_validation_leaves_the_weights_as_they_were() -> None:
    answers = np.full((1, 10, 5), 0.2, np.float32)
    features = np.random.default_rng(0).standard_normal((1, 10, 4)).astype(np.float16)
    network = learning_network(num_features=4)
    recorder = Recorder(network)
    targets = TeacherTargets(answers, features, None)
    fit_small(network, None, replace(ONE, average_decay=0.9), targets=targets, observer=recorder)
    averaged, own = network.get_weights(), recorder.ends[0]
    head = [weight.shape for weight in own].index((16, 4))
    assert not np.array_equal(averaged[head], own[head])


def test_logits_are_those_of_the_network_behind_its_normalisation() -> None:
    squares = drawn_pixels(0, 14)  # more than one batch
    network = tiny_network(5)
    inputs = np.asarray(squares.images, np.float32) * np.float32(1 / 127.5) - np.float32(1)
    expected = np.asarray(network.predict_on_batch(inputs))
    logits = predict(on_pixels(network, 1 / 127.5, -1.0), np.asarray(squares.images))["logits"]
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    loss, accuracy = validate(on_pixels(network, 1 / 127.5, -1.0), squares)
    assert accuracy == (expected.argmax(axis=1) == squares.class_indices).mean()
    chosen = np.exp(expected)[np.arange(70), squares.class_indices] / np.exp(expected).sum(axis=1)
    assert loss == pytest.approx(-np.log(chosen).mean(), abs=1e-4)


def test_the_energy_learns_what_is_known() -> None:
    is_known = np.arange(10) % 5 > 1  # three of the five classes
    targets = TeacherTargets(np.full((2, 10, 5), 0.2, np.float32), None, None, is_known=is_known)
    network = learning_network()
    learning = keras.Model(network.input, add_known(network.output))
    schedule = replace(SCHEDULE, epochs=12, learning_rate=0.05, cosine=False, average_decay=0.0)
    fit_small(learning, None, schedule, targets=targets, is_validated=False)
    images = np.asarray(drawn_pixels(0, 2).images)
    told = np.asarray(learning(images, training=True)["known"])[:, 0]  # the statistics lag behind so few steps
    assert told[is_known].mean() > told[~is_known].mean() + 0.5
