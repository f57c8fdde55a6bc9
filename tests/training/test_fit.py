import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.fitting import RECIPE, drawn_pixels, fit_small

from service.errors import TrainingError
from service.training import fit as fit_module
from service.training.checkpoint import Epoch, Variables, load_checkpoint, save_checkpoint
from service.training.fit import normalise
from service.training.teach import Lesson

FITTING = Path(__file__).parents[1] / "support" / "fitting.py"


def weights_of(checkpoint: Path) -> list[np.ndarray]:
    loaded = load_checkpoint(checkpoint)
    assert loaded is not None
    return [*loaded[1], *loaded[2]]


@pytest.mark.slow
def test_a_training_killed_and_run_again_ends_with_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    fit_small(tmp_path / "whole.npz")
    tests = str(FITTING.parent.parent)
    process = subprocess.Popen(
        [sys.executable, str(FITTING), str(tmp_path / "killed.npz")],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": tests},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 1 1"):  # in the middle of the second epoch
            process.kill()
            break
    process.stdout.close()
    assert process.wait() == -9
    history, _, _ = load_checkpoint(tmp_path / "killed.npz") or ([], [], [])
    assert [epoch.epoch for epoch in history] == [0]

    resumed = fit_small(tmp_path / "killed.npz")

    assert [epoch.epoch for epoch in resumed.history] == [0, 1, 2]
    whole, killed = weights_of(tmp_path / "whole.npz"), weights_of(tmp_path / "killed.npz")
    for value, again in zip(whole, killed, strict=True):
        np.testing.assert_array_equal(again, value)


def test_a_checkpoint_of_another_training_is_refused_with_a_remedy(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    (epoch,) = fit_small(path, replace(RECIPE, epochs=1)).history
    _, state, best = load_checkpoint(path) or ([], [], [])
    others: list[tuple[list[Epoch], Variables, Variables]] = [
        ([epoch], [np.zeros(3, np.float32)], [np.zeros(3, np.float32)]),
        ([], state, best),
        ([replace(epoch, validation_loss=None, validation_accuracy=None)], state, best),
    ]
    for history, other_state, other_best in others:
        save_checkpoint(path, history, other_state, other_best)
        with pytest.raises(TrainingError, match=r"checkpoint\.npz is damaged.* remove it"):
            fit_small(path, replace(RECIPE, epochs=1))


@pytest.mark.slow
def test_one_seed_trains_the_same_network_twice_and_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    first = fit_small(tmp_path / "first.npz")
    second = fit_small(tmp_path / "second.npz")
    again = fit_small(tmp_path / "first.npz")
    for weight, other, same in zip(
        first.model.get_weights(), second.model.get_weights(), again.model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(other, weight)
        np.testing.assert_array_equal(same, weight)
    assert again.history == first.history


@pytest.mark.slow
def test_ctrl_c_keeps_the_best_epoch_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = fit_small(tmp_path / "one.npz", replace(RECIPE, epochs=1, cosine=False)).model.get_weights()
    run_epoch = fit_module._Trainer.run_epoch

    def interrupted(trainer, epoch, *rest):  # type: ignore[no-untyped-def]
        if epoch == 1:
            raise KeyboardInterrupt
        return run_epoch(trainer, epoch, *rest)

    monkeypatch.setattr(fit_module._Trainer, "run_epoch", interrupted)
    fitted = fit_small(tmp_path / "stopped.npz", replace(RECIPE, epochs=3, cosine=False))
    assert fitted.interrupted
    assert len(fitted.history) == 1
    for weight, value in zip(fitted.model.get_weights(), kept, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_ctrl_c_before_the_first_epoch_has_nothing_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fit_module._Trainer, "run_epoch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fit_small(tmp_path / "checkpoint.npz")


def test_a_loss_that_is_no_number_ends_the_training_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="learning rate"):
        fit_small(tmp_path / "checkpoint.npz", replace(RECIPE, scale=float("nan")))


def test_the_rate_warms_up_and_falls_to_zero_along_a_half_cosine() -> None:
    recipe = replace(RECIPE, epochs=10, warmup_epochs=2, learning_rate=1.0)
    rates = [fit_module.learning_rate(recipe, epoch) for epoch in (1.0, 2.0, 6.0, 10.0)]
    np.testing.assert_allclose(rates, [0.5, 1.0, 0.5, 0.0], atol=1e-9)
    assert fit_module.learning_rate(replace(recipe, cosine=False), 9.0) == 1.0
    with_mean = replace(recipe, epochs=20, swa_share=0.5, swa_learning_rate=0.3)
    rates = [fit_module.learning_rate(with_mean, epoch) for epoch in (6.0, 9.99, 10.0, 20.0)]
    np.testing.assert_allclose(rates, [0.5, 0.0, 0.3, 0.3], atol=1e-4)


def test_the_mean_of_the_last_epochs_weights_is_kept_and_a_resumed_training_has_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, epochs=4, swa_share=0.5, swa_learning_rate=0.01)
    ends: list[list[np.ndarray]] = []
    kept: list[Variables] = []
    run_epoch = fit_module._Trainer.run_epoch

    def remembered(trainer, epoch, *rest):  # type: ignore[no-untyped-def]
        if epoch == 3 and len(ends) == 3:
            ends.append([])
            raise KeyboardInterrupt  # in the middle of the mean
        result = run_epoch(trainer, epoch, *rest)
        ends.append(trainer._model.get_weights())
        kept.append(result[1])
        return result

    monkeypatch.setattr(fit_module._Trainer, "run_epoch", remembered)
    assert fit_small(tmp_path / "checkpoint.npz", recipe).interrupted
    resumed = fit_small(tmp_path / "checkpoint.npz", recipe)
    third, fourth = ends[2], ends[4]
    for mean, one, other in zip(kept[-1], third, fourth, strict=True):
        np.testing.assert_allclose(mean, (one + other) / 2, atol=1e-6)
    assert [epoch.learning_rate for epoch in resumed.history[2:]] == pytest.approx([0.01, 0.01])
    assert any(np.abs(one - other).max() > 1e-3 for one, other in zip(third, fourth, strict=True))


def test_after_a_validation_the_weights_go_on_where_they_were_those_of_the_features_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = np.full((1, 10, 5), 0.2, np.float32)
    features = np.random.default_rng(0).standard_normal((1, 10, 4)).astype(np.float16)
    seen: list[list[np.ndarray]] = []
    averaged_weights = fit_module._Trainer._averaged

    @contextmanager
    def watched(trainer, epoch):  # type: ignore[no-untyped-def]
        with averaged_weights(trainer, epoch):
            seen.append(trainer._trained.get_weights())
            yield

    run_epoch = fit_module._Trainer.run_epoch

    def compared(trainer, *rest):  # type: ignore[no-untyped-def]
        result = run_epoch(trainer, *rest)
        seen.append(trainer._trained.get_weights())
        return result

    monkeypatch.setattr(fit_module._Trainer, "_averaged", watched)
    monkeypatch.setattr(fit_module._Trainer, "run_epoch", compared)
    recipe = replace(RECIPE, epochs=1, average_decay=0.9, feature_weight=1.0)
    fit_small(tmp_path / "checkpoint.npz", recipe, Lesson(answers, features, None))
    averaged, own = seen
    kernel = [weight.shape for weight in own].index((1024, 4))
    assert not np.array_equal(averaged[kernel], own[kernel])


def test_normalising_is_pixel_times_scale_plus_offset() -> None:
    images = np.asarray(drawn_pixels(0, 1).images)
    inputs = normalise(images, replace(RECIPE, scale=1 / 127.5, offset=-1.0))
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs, images / 127.5 - 1, atol=1e-6)
