"""The GPU image without a GPU. `make gpu-image` runs these, as the image takes minutes to build."""

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from conftest import REPOSITORY
from containers.conftest import run

from service.data.split import parse_split
from service.engines.open_version import open_stored
from service.engines.wish import EngineWish
from service.evaluation.score import score_photographs
from service.imaging.limits import ImageLimits
from service.store.layout import SPLIT_FILE
from service.store.verify import verify_version
from service.store.versions import resolve_version

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]  # the first one builds the image

# As in docker-compose.yml, which asks for a GPU as well.
SANDBOX = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
           "--memory", "6g", "--pids-limit", "2048")  # fmt: skip
NO_GPU = "There is no GPU (`nvidia-smi -L` lists none)."
# All but one load without a driver. That one is linked with the driver's own library.
LOAD_CUDA = """
import ctypes, pathlib, subprocess, tensorflow as tf
assert tf.test.is_built_with_cuda()
[nvidia] = pathlib.Path("/opt/flowers/lib").glob("python3*/site-packages/nvidia")
for path in sorted(nvidia.glob("*/lib/*.so*")):
    if path.name != "libcudnn_engines_runtime_compiled.so.9":
        print(path.name, ctypes.CDLL(str(path)) and "")
subprocess.run([nvidia / "cuda_nvcc/bin/ptxas", "--version"], check=True)
"""
TENSORFLOW_WANTS = ("libcublas.so.12", "libcublasLt.so.12", "libcudart.so.12", "libcudnn.so.9", "libcufft.so.11",
                    "libcusolver.so.11", "libcusparse.so.12", "libnccl.so.2", "libnvrtc.so.12")  # fmt: skip
TRAINING = "keras tensorflow matplotlib onnx tf2onnx service.training.train service.training.export.version"


def build(target: str, tag: str, *arguments: str) -> str:
    dockerfile = str(REPOSITORY / "docker" / "Dockerfile")
    run("docker", "build", "-f", dockerfile, "--target", target, *arguments, "-t", tag, str(REPOSITORY))
    return tag


@pytest.fixture(scope="module")
def gpu_image(engine: None) -> str:
    return build("gpu", "flowers:gpu")


@contextmanager
def served(image: str, *flags: str) -> Iterator[tuple[str, str]]:
    """A healthy container and its URL."""
    container = run("docker", "run", "--detach", *SANDBOX, image, "serve", *flags).strip()
    try:
        deadline = time.monotonic() + 120
        while True:
            (state,) = json.loads(run("docker", "inspect", container))
            if state["State"]["Health"]["Status"] == "healthy":
                break
            may_wait = state["State"]["Running"] and time.monotonic() < deadline
            assert may_wait, run("docker", "logs", container)
            time.sleep(0.5)
        yield container, f"http://{state['NetworkSettings']['IPAddress']}:8000"
    finally:
        run("docker", "rm", "--force", container)


@pytest.fixture(scope="module")
def fallen_back(gpu_image: str) -> Iterator[tuple[str, str]]:
    with served(gpu_image) as container_and_url:
        yield container_and_url


@dataclass(frozen=True)
class Sample:
    """A test photograph and the probability of each label by the engine on this machine."""

    path: Path
    probabilities: dict[str, float]


@pytest.fixture(scope="module")
def samples(photographs: Path) -> list[Sample]:
    """The clearest of ten test photographs of each class."""
    store = REPOSITORY / "model_store"
    folder = resolve_version(store, "flowers").folder
    class_names = verify_version(folder).metadata.class_names
    entries = parse_split((folder / SPLIT_FILE).read_bytes(), "of the version").part("test")
    samples = []
    with closing(open_stored(store, "flowers", EngineWish("onnxruntime", "cpu", "float32"))) as here:
        for index, label in enumerate(class_names):
            paths = [photographs / entry.file for entry in entries if entry.file.startswith(f"{label}/")][:10]
            scores = score_photographs(here.engine, paths, here.rule, ImageLimits()).probabilities
            clearest = int(scores[:, index].argmax())
            samples.append(Sample(paths[clearest], dict(zip(class_names, map(float, scores[clearest]), strict=True))))
    return samples


def ask(url: str, path: Path) -> dict[str, float]:
    """Label -> probability."""
    response = httpx.post(f"{url}/predict", content=path.read_bytes(), timeout=60)
    assert response.status_code == 200, response.text
    return {row["label"]: row["probability"] for row in response.json()["predictions"]}


def test_without_a_gpu_it_serves_and_says_why(fallen_back: tuple[str, str]) -> None:
    live = httpx.get(f"{fallen_back[1]}/models/flowers").json()["live"]
    assert (live["engine"], live["device"]) == ("onnxruntime", "cpu")
    assert live["reason"].startswith(NO_GPU)


@pytest.mark.photographs
def test_without_a_gpu_photographs_get_their_labels(fallen_back: tuple[str, str], samples: list[Sample]) -> None:
    for sample in samples:
        answer = ask(fallen_back[1], sample.path)
        assert max(answer, key=lambda label: answer[label]) == sample.path.parent.name, sample.path


@pytest.mark.photographs
def test_its_savedmodel_answers_as_the_engine_here(gpu_image: str, samples: list[Sample]) -> None:
    with served(gpu_image, "--engine", "savedmodel", "--device", "cpu") as (_, url):
        assert httpx.get(f"{url}/models/flowers").json()["live"]["engine"] == "savedmodel"
        for sample in samples:
            assert ask(url, sample.path) == pytest.approx(sample.probabilities, abs=1e-4)


def test_a_missing_gpu_that_is_wanted_ends_the_service(gpu_image: str) -> None:
    command = ["docker", "run", "--rm", *SANDBOX, gpu_image, "serve", "--device", "gpu"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert f"--device gpu fails. {NO_GPU}" in process.stderr


def test_tensorflow_is_for_gpus_and_the_cuda_libraries_load(gpu_image: str) -> None:
    loaded = run("docker", "run", "--rm", *SANDBOX, "--entrypoint", "python", gpu_image, "-c", LOAD_CUDA)
    assert set(TENSORFLOW_WANTS) <= set(loaded.split())


def test_it_runs_without_rights_on_a_read_only_root(fallen_back: tuple[str, str]) -> None:
    container, _ = fallen_back
    assert run("docker", "exec", container, "id", "-u").strip() == "10001"
    for path in ("/written", "/srv/model_store/written", "/opt/flowers/written"):
        write = ["docker", "exec", container, "python", "-c", f"open({path!r}, 'w')"]
        process = subprocess.run(write, capture_output=True, text=True, check=False)
        assert "Read-only file system" in process.stderr, path


def test_the_gpu_image_adds_less_than_stated(gpu_image: str) -> None:
    base, image = (
        int(run("docker", "image", "inspect", "--format", "{{.Size}}", name))
        for name in ("python:3.11-slim-bookworm", gpu_image)
    )
    assert image - base < 6.3e9


def test_the_image_for_training_adds_what_training_needs(gpu_image: str) -> None:
    trainer = build("train", "flowers:train-gpu", "--build-arg", "TRAIN_ON=gpu")
    layers = [
        json.loads(run("docker", "image", "inspect", name))[0]["RootFS"]["Layers"] for name in (gpu_image, trainer)
    ]
    assert layers[1][: len(layers[0])] == layers[0], "a server with both images would hold CUDA twice"
    imports = f"from importlib import import_module; [*map(import_module, {TRAINING.split()})]"
    run("docker", "run", "--rm", *SANDBOX, "--entrypoint", "python", trainer, "-c", imports)
