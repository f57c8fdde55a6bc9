"""The image as SageMaker and Vertex AI start it. The platforms themselves are not here."""

import base64
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import REPOSITORY
from containers.conftest import PHOTO, run

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]


@contextmanager
def started(image: str, port: int, *flags: str) -> Iterator[tuple[str, str]]:
    """A running container and its address, once it takes work."""
    container = run("docker", "run", "--detach", *flags, image, "serve").strip()
    try:
        (state,) = json.loads(run("docker", "inspect", container))
        (network,) = state["NetworkSettings"]["Networks"].values()
        url = f"http://{network['IPAddress']}:{port}"
        for _ in range(240):
            try:
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            time.sleep(0.25)
        else:
            pytest.fail(run("docker", "logs", container))
        yield container, url
    finally:
        run("docker", "rm", "--force", container)


def test_sagemaker_gets_the_version_of_its_folder(cpu_image: str, tmp_path: Path) -> None:
    shipped = max(
        int(path.name) for path in (REPOSITORY / "model_store" / "flowers").iterdir() if path.name.isdecimal()
    )
    version = tmp_path / "garden" / "99"
    shutil.copytree(REPOSITORY / "model_store" / "flowers" / str(shipped), version)
    for path in (tmp_path, version.parent, version):
        path.chmod(0o755)
    with started(cpu_image, 8080, "-v", f"{tmp_path}:/opt/ml/model:ro") as (container, url):
        assert httpx.get(f"{url}/ping").status_code == 200
        answer = httpx.post(f"{url}/invocations", content=PHOTO, headers={"Content-Type": "application/x-image"})
        assert answer.json()["model"] == {"name": "garden", "version": 99}
        began_at = time.monotonic()
        run("docker", "stop", "--time", "60", container)
        assert time.monotonic() - began_at < 30
        (state,) = json.loads(run("docker", "inspect", container))
        assert state["State"]["ExitCode"] == 0


def test_sagemaker_s_port_is_heeded(cpu_image: str) -> None:
    with started(cpu_image, 9090, "-e", "SAGEMAKER_BIND_TO_PORT=9090") as (_, url):
        assert httpx.get(f"{url}/ping").status_code == 200


def test_vertex_ai_gets_its_routes(cpu_image: str) -> None:
    variables = {
        "AIP_HTTP_PORT": "8081",
        "AIP_HEALTH_ROUTE": "/v1/endpoints/7/deployedModels/8",
        "AIP_PREDICT_ROUTE": "/v1/endpoints/7/deployedModels/8:predict",
        "AIP_DEPLOYED_MODEL_ID": "8",
    }
    flags = [flag for name, value in variables.items() for flag in ("-e", f"{name}={value}")]
    with started(cpu_image, 8081, *flags) as (_, url):
        assert httpx.get(url + variables["AIP_HEALTH_ROUTE"]).status_code == 200
        instances = [{"b64": base64.b64encode(PHOTO).decode()}] * 3
        answer = httpx.post(url + variables["AIP_PREDICT_ROUTE"], json={"instances": instances}, timeout=60).json()
        assert (len(answer["predictions"]), answer["deployedModelId"]) == (3, "8")
