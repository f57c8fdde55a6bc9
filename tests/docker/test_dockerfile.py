"""The Dockerfile, without a container engine."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode

import service
from service.settings import ServeSettings

DOCKERFILE = (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8")
STAGES = {
    match["name"]: match
    for match in re.finditer(
        r"^FROM (?P<base>\S+) AS (?P<name>\S+)$(?P<body>.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S
    )
}

# `flowers`, as if some modules were not installed.
WITHOUT = """
import sys
from importlib.machinery import PathFinder

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in sys.argv[1].split(",") else super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
from service.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


def test_without_a_target_the_image_serves_on_the_cpu() -> None:
    assert list(STAGES)[-1] == "default"
    assert STAGES["default"]["base"] == "cpu"


def test_every_library_has_its_locked_digest() -> None:
    installed = re.findall(r"pip (?:.* )?install (.*)", DOCKERFILE)
    of_libraries = [options for options in installed if "/requirements/" in options]
    assert len(of_libraries) == 4
    assert all("--require-hashes " in options for options in of_libraries)


def test_the_image_is_reached_and_stopped_from_outside() -> None:
    base = STAGES["base"]["body"]
    assert "FLOWERS_HOST=0.0.0.0" in base
    assert f"EXPOSE {ServeSettings().port}\n" in base
    assert "STOPSIGNAL SIGTERM\n" in base
    assert f'image.version="{service.__version__}"' in base


def test_programs_of_the_image_are_copied_into_it() -> None:
    (copied,) = re.findall(r"COPY --chmod=0555 (.*) /project/opt/", STAGES["project"]["body"])
    there = {path.replace("docker/", "/opt/") for path in copied.split()}
    assert set(re.findall(r"/opt/\w+\.py", DOCKERFILE)) == there == {"/opt/healthcheck.py", "/opt/as_owner.py"}


def test_only_serving_is_asked_for_its_health() -> None:
    assert "HEALTHCHECK NONE\n" in STAGES["train"]["body"]
    assert 'CMD ["python", "-I", "/opt/healthcheck.py"]' in STAGES["base"]["body"]


@pytest.mark.parametrize("capability", ["compute", "utility"])
def test_the_nvidia_runtime_gives_the_gpu_image_its_driver(capability: str) -> None:
    (capabilities,) = re.findall(r"NVIDIA_DRIVER_CAPABILITIES=(\S+)", STAGES["gpu"]["body"])
    assert capability in capabilities.split(",")


def test_training_on_a_gpu_adds_to_the_serving_image() -> None:
    assert STAGES["train-on-gpu"]["base"] == "gpu"
    assert read_lock("gpu-serve").items() < read_lock("gpu").items(), "run `make lock`"


def test_packages_left_out_of_the_gpu_image_are_locked() -> None:
    assert {"keras", "h5py", "libclang"} < left_out()
    assert left_out() < {*read_lock("gpu-serve"), "pip"}, "the image holds no such package: take it off the list"


def test_the_savedmodel_engine_needs_no_package_left_out(tmp_path: Path) -> None:
    absent = left_out() | (read_lock("gpu").keys() - read_lock("gpu-serve").keys())
    modules = {module for module, names in packages_distributions().items() if absent & set(map(normal, names))}
    assert {"keras", "h5py", "clang", "matplotlib", "onnx"} < modules
    photograph = tmp_path / "flower.jpg"
    photograph.write_bytes(encode(draw_photograph(3, seed=300)))
    flags = ("--model-store", str(REPOSITORY / "model_store"), "--engine", "savedmodel", "--device", "cpu")
    command = [sys.executable, "-c", WITHOUT, ",".join(modules), "predict", str(photograph), *flags, "--format", "json"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr[-2000:]
    assert '"label"' in process.stdout


@pytest.mark.parametrize("target", ["gpu", "train-on-gpu"])
def test_the_gpu_image_is_built_anew_for_every_lock(target: str) -> None:
    digests = (REPOSITORY / "docker" / "gpu-image.sha256").read_text(encoding="utf-8")
    stages, locks = [target], set()
    for name in stages:
        stage = STAGES.get(name)
        if stage:
            stages += [stage["base"], *re.findall(r"--from=(\S+)", stage["body"])]
            locks |= set(re.findall(r"/(requirements/\S+\.txt)", stage["body"]))
    assert locks >= {"requirements/gpu-serve.txt", "requirements/cpu.txt"}
    assert {"docker/Dockerfile", *locks} <= set(digests.split())


def read_lock(name: str) -> dict[str, list[str]]:
    """Package -> its versions, with their conditions."""
    locked: dict[str, list[str]] = {}
    for package, version in re.findall(
        r"^([a-z0-9-]+)==([^\\\n]+)", (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8"), re.M
    ):
        locked.setdefault(package, []).append(version.strip())
    return locked


def left_out() -> set[str]:
    """Packages that the image for serving on a GPU does without, although TensorFlow's metadata names them."""
    (names,) = re.findall(
        r"pip check .*?uninstall --yes --quiet((?: |\\\n|[a-z0-9-])+)", STAGES["libraries-gpu"]["body"]
    )
    return set(names.replace("\\\n", " ").split())


def normal(name: str) -> str:
    return name.lower().replace("_", "-")
