"""TensorFlow Serving on the model store, without TensorFlow Serving, which no test can install.

The store's layout is compared with what it documents, and the client's body goes through the SavedModel. The lane of
real clients reads the config with its own schema.
"""

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode

from service.store.versions import list_versions

EXAMPLE = REPOSITORY / "examples" / "tensorflow_serving"
STORE = REPOSITORY / "model_store"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(REPOSITORY)  # the client reads the metadata there
    return runpy.run_path(str(EXAMPLE / "client.py"))


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{seed}.jpg" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.write_bytes(encode(draw_photograph(seed, seed=300)))
    return paths


def test_the_store_has_the_layout_of_tensorflow_serving() -> None:
    base_path = re.findall(r'base_path: "/models/(\w+)"', (EXAMPLE / "models.config").read_text(encoding="utf-8"))
    assert base_path == [path.name for path in STORE.iterdir() if path.is_dir()]
    versions = list_versions(STORE, base_path[0])
    numbered = [path.name for path in (STORE / base_path[0]).iterdir() if path.name.isdecimal()]
    assert sorted(map(str, versions)) == sorted(numbered)
    for version in numbered:
        assert (STORE / base_path[0] / version / "saved_model.pb").is_file()
        assert (STORE / base_path[0] / version / "variables" / "variables.index").is_file()


def test_its_body_gets_our_answer_from_the_saved_model(client: dict[str, Any], photographs: list[Path]) -> None:
    metadata = client["read_metadata"]()
    body = json.loads(json.dumps(client["make_body"](photographs, metadata)))
    version = max(list_versions(STORE, "flowers"))
    signature = tf.saved_model.load(str(STORE / "flowers" / str(version))).signatures[body["signature_name"]]
    # As TensorFlow Serving does: the names and types of the inputs come from the signature.
    _, specs = signature.structured_input_signature
    inputs = {name: tf.constant(values, specs[name].dtype) for name, values in body["inputs"].items()}
    (theirs,) = signature(**inputs).values()
    labels = [metadata["class_names"][index] for index in theirs.numpy().argmax(axis=1)]

    command = [sys.executable, "-m", "service", "predict", *map(str, photographs), "--format", "json"]
    flags = ("--model-store", str(STORE), "--device", "cpu", "--precision", "float32")
    ours = json.loads(subprocess.run([*command, *flags], capture_output=True, text=True, check=True).stdout)
    assert labels == [row["label"] for row in ours]
    np.testing.assert_allclose(theirs.numpy().max(axis=1), [row["probability"] for row in ours], atol=1e-4)
