from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from service.errors import SettingsError
from service.training.schedule import Schedule, TeacherSchedule, add_to_mean

TEN = Schedule(epochs=10, batch_size=5, learning_rate=1.0, warmup_epochs=2, cosine=True)


def test_the_rate_warms_up_and_falls_as_cosine() -> None:
    np.testing.assert_allclose([TEN.rate(epoch) for epoch in (1.0, 2.0, 6.0, 10.0)], [0.5, 1.0, 0.5, 0.0], atol=1e-9)
    assert replace(TEN, cosine=False).rate(9.0) == 1.0


def test_the_rate_stands_over_the_epochs_of_the_mean() -> None:
    schedule = replace(TEN, epochs=20, swa_share=0.5, swa_learning_rate=0.3)
    assert schedule.first_of_mean == 10
    rates = [schedule.rate(epoch) for epoch in (6.0, 9.99, 10.0, 20.0)]
    np.testing.assert_allclose(rates, [0.5, 0.0, 0.3, 0.3], atol=1e-4)


def test_a_teacher_s_rate_rises_over_the_first_tenth() -> None:
    schedule = TeacherSchedule(epochs=5, batch_size=32, learning_rate=1.0, num_steps=20)
    np.testing.assert_allclose([schedule.rate(step / 20) for step in (0, 4)], [0.1, 0.5], atol=1e-9)
    np.testing.assert_allclose([schedule.rate(step / 20) for step in (50, 100)], [0.5, 0.0], atol=1e-9)


@pytest.mark.parametrize(
    "change", [{"epochs": 0}, {"batch_size": 0}, {"swa_share": 1.1}, {"average_decay": 1.0}], ids=str
)
def test_values_that_no_training_can_have_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="Correct the recipe"):
        replace(TEN, **change)  # type: ignore[arg-type]


def test_weight_decay_spares_biases_and_normalisation() -> None:
    optimizer = replace(TEN, weight_decay=0.5).make_optimizer()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), keras.layers.BatchNormalization()])
    for weight in model.trainable_variables:
        weight.assign(np.ones(weight.shape))
    optimizer.build(model.trainable_variables)
    optimizer.apply([np.zeros(weight.shape, np.float32) for weight in model.trainable_variables])
    kernel, *others = (np.asarray(weight) for weight in model.trainable_variables)
    np.testing.assert_allclose(kernel, 0.5)
    assert all((other == 1).all() for other in others)


def test_the_mean_is_that_of_all_sets_of_weights() -> None:
    sets = [[np.full(2, value, np.float32), np.uint32(value)] for value in (1, 2, 6)]
    mean: list[Any] = []
    for count, values in enumerate(sets, start=1):
        mean = add_to_mean(mean, values, count)
    np.testing.assert_allclose(mean[0], [3, 3])
    assert mean[1] == 6, "a random stream goes on where it is"
