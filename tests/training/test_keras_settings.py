import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from conftest import REPOSITORY

from service.networks.alexnet import alexnet_v2
from service.training.keras_settings import compute_precision, fastest_precision

PROGRAM = """
import sys
from service.cli.main import main
assert main(sys.argv[1:]) == 2  # there is no such teacher
import keras
print(keras.backend.backend(), keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon())
"""


@pytest.mark.long
def test_no_keras_settings_of_the_user_reach_a_training(tmp_path: Path) -> None:
    settings = {"backend": "torch", "image_data_format": "channels_first", "floatx": "float16", "epsilon": 1e-3}
    (tmp_path / "keras.json").write_text(json.dumps(settings), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "KERAS_BACKEND": "jax", "KERAS_HOME": str(tmp_path)}
    command = [
        sys.executable,
        "-c",
        PROGRAM,
        "train",
        "--teacher",
        "nobody",
        "--device",
        "cpu",
    ]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.stdout == "tensorflow channels_last float32 1e-07\n", process.stderr
    assert process.stderr.startswith("flowers: "), "no warning of TensorFlow comes before the sentence"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2 avx512f avx512_vnni", "float32"),
        ("fpu avx512f avx512_bf16 avx512_vnni", "mixed_bfloat16"),
        ("fpu amx_tile amx_bf16", "mixed_bfloat16"),
        ("", "float32"),
    ],
)
def test_bfloat16_is_for_cpus_that_have_instructions_for_it(flags: str, expected: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name : any\nflags : {flags}\n")
    assert fastest_precision(tmp_path / "cpuinfo") == expected


def test_where_no_flags_are_listed_it_is_float32(tmp_path: Path) -> None:
    assert fastest_precision(tmp_path / "missing") == "float32"


def test_a_bfloat16_network_has_float32_weights_and_answers() -> None:
    with compute_precision("mixed_bfloat16"):
        network = alexnet_v2(5, batch_norm=True)
    assert keras.config.dtype_policy().name == "float32"
    assert network.get_layer("conv2").compute_dtype == "bfloat16"
    assert {weight.dtype for weight in network.weights} == {"float32"}
    logits = np.asarray(network.predict_on_batch(np.zeros((2, 224, 224, 3), np.float32)))
    assert logits.dtype == np.float32
