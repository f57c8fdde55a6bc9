"""A real engine, the CPU image built once, and the compose stack on a copy of the model store."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode

PHOTO = encode(draw_photograph(3, seed=300))


def run(*command: str, **options: Any) -> str:
    """Standard output of a command that must succeed; what it says otherwise is in the failure."""
    process = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    assert process.returncode == 0, f"{' '.join(command)}\n{process.stdout[-2000:]}\n{process.stderr[-4000:]}"
    return str(process.stdout)


@dataclass(frozen=True)
class Compose:
    """The compose file on a folder that looks like a fresh clone; `port` tells one test run from another."""

    folder: Path
    port: int
    override: Path | None = None

    def __call__(self, *arguments: str) -> str:
        files = ["--project-directory", str(self.folder), "-f", str(REPOSITORY / "docker-compose.yml")]
        if self.override is not None:
            files += ["-f", str(self.override)]
        environment = {**os.environ, "FLOWERS_PORT": str(self.port)}
        return run("docker", "compose", "-p", f"flowers-test-{self.port}", *files, *arguments, env=environment)

    def container(self, service: str) -> str:
        return self("--profile", "cpu", "--profile", "monitoring", "ps", "-aq", service).strip()


@dataclass(frozen=True)
class Stack:
    """The running CPU service."""

    compose: Compose
    container: str

    def inspect(self) -> dict[str, Any]:
        (state,) = json.loads(run("docker", "inspect", self.container))
        assert isinstance(state, dict)
        return state

    @property
    def published_url(self) -> str:
        return f"http://127.0.0.1:{self.compose.port}"

    @property
    def direct_url(self) -> str:
        """Past the engine's proxy, which accepts connections for a container that is gone."""
        (network,) = self.inspect()["NetworkSettings"]["Networks"].values()
        return f"http://{network['IPAddress']}:8000"


def predict(url: str) -> httpx.Response:
    return httpx.post(f"{url}/predict", files={"file": ("flower.jpg", PHOTO, "image/jpeg")}, timeout=60)


@pytest.fixture(scope="session")
def engine() -> None:
    """A container engine that answers; without one the test is skipped aloud, and fails where CI=true."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        reason = "no container engine answers: start Docker (.ci/containers can bring one up)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def cpu_image(engine: None) -> str:
    """The CPU image, built from this tree."""
    run("docker", "build", "-f", str(REPOSITORY / "docker" / "Dockerfile"), "--target", "cpu", "-t", "flowers:cpu",
        str(REPOSITORY))  # fmt: skip
    return "flowers:cpu"


@pytest.fixture(scope="session")
def compose(cpu_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    """The compose file beside a copy of the model store, with a free port."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(REPOSITORY / "model_store", folder / "model_store")
    for room in ("prometheus", "grafana"):
        shutil.copytree(REPOSITORY / "docker" / room, folder / "docker" / room)
    folder.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    compose = Compose(folder, port)
    yield compose
    profiles = [flag for name in ("cpu", "train", "monitoring") for flag in ("--profile", name)]
    compose(*profiles, "down", "--volumes", "--timeout", "0")


@pytest.fixture
def stack(compose: Compose) -> Stack:
    """The CPU service, healthy: `up --wait` returns when the image's own health check says so."""
    compose("--profile", "cpu", "up", "--no-build", "--detach", "--wait", "cpu")
    return Stack(compose, compose.container("cpu"))
