"""The Dockerfile, without a container engine."""

import re

import pytest
from conftest import REPOSITORY

import service
from service.settings import ServeSettings

DOCKERFILE = (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8")
STAGES = {
    match["name"]: match
    for match in re.finditer(
        r"^FROM (?P<base>\S+) AS (?P<name>\S+)$(?P<body>.*?)(?=^FROM |\Z)", DOCKERFILE, re.M | re.S
    )
}


def test_without_a_target_the_image_serves_on_the_cpu() -> None:
    assert list(STAGES)[-1] == "default"
    assert STAGES["default"]["base"] == "cpu"


def test_every_library_has_its_locked_digest() -> None:
    installed = re.findall(r"pip install (.*)", DOCKERFILE)
    of_libraries = [options for options in installed if "/requirements/" in options]
    assert len(of_libraries) == 3
    assert all(options.startswith("--require-hashes ") for options in of_libraries)


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
