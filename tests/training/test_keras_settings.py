"""A user's settings of Keras are for other programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY

PROGRAM = """
import sys
from service.cli.main import main
assert main(sys.argv[1:]) == 2  # there is no such folder
import keras
print(keras.backend.backend(), keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon())
"""


def test_no_backend_and_no_axes_of_the_user_reach_a_training(tmp_path: Path) -> None:
    settings = {"backend": "torch", "image_data_format": "channels_first", "floatx": "float16", "epsilon": 1e-3}
    (tmp_path / "keras.json").write_text(json.dumps(settings), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)}
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        "train",
        str(tmp_path / "nowhere"),
        "--teacher",
        "none",
        "--device",
        "cpu",
    ]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.stdout == "tensorflow channels_last float32 1e-07\n", process.stderr
    assert process.stderr.startswith("flowers: "), "no warning of TensorFlow comes before the sentence"
