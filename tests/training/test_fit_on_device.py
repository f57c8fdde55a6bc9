"""JAX is in no environment of this project. Where it is missing, this module is skipped aloud."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
TRAIN = """
import sys
from pathlib import Path
import service
import keras
import numpy as np
from support.drawing import CLASS_NAMES
from support.fitting import RECIPE, SCHEDULE, SEED, drawn_pixels, learning_network
from dataclasses import replace
from service.data.views import Views
from service.imaging.limits import ResizeRule
from service.training import fit_on_device
from service.training.augment import training_view
from service.training.checkpoint import load_checkpoint
from service.training.fit import fit
from service.training.observer import Observer
from service.training.targets import TeacherTargets

assert keras.backend.backend() == "jax"
pixels, path = drawn_pixels(0, 2), Path(sys.argv[1])
answers = np.eye(5, dtype=np.float32)[pixels.class_indices][None].repeat(2, 0)
features = np.random.default_rng(0).standard_normal((2, 10, 4)).astype(np.float16)
targets = TeacherTargets(answers, features, None)
views = Views(pixels.images, training_view(RECIPE.augmentation, ResizeRule()), SEED, 2)
schedule = replace(SCHEDULE, epochs=60, average_decay=0.0, swa_share=0.25)
one, other = (learning_network(num_features=4) for _ in range(2))
fitted = fit_on_device.fit(one, views, targets, schedule, path, Observer(), pixels)
fit(other, views, targets, schedule, None, Observer(), pixels, keeps_best=False)
assert [epoch.epoch for epoch in fitted.history] == [39, 59]
assert fitted.history[1].loss < fitted.history[0].loss
saved = load_checkpoint(path)
assert saved.history == fitted.history and not saved.state
for kept, weight, like in zip(saved.best, one.get_weights(), other.get_weights(), strict=True):
    np.testing.assert_array_equal(kept, weight)
    np.testing.assert_allclose(weight, like, atol=0.05)
again = learning_network(seed=12, num_features=4)
assert fit(again, views, targets, schedule, path, Observer(), pixels).history == fitted.history
np.testing.assert_array_equal(again.get_weights()[0], one.get_weights()[0])
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed: pip install jax")
def test_jax_trains_as_the_loop_of_batches_does(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}", "KERAS_BACKEND": "jax"}
    command = [sys.executable, "-c", TRAIN, str(tmp_path / "checkpoint.npz")]
    subprocess.run(command, env=environment, check=True)
