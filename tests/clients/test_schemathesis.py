"""schemathesis with all of its checks against the shipped model, with and without keys."""

import os
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest
from conftest import REPOSITORY
from support.programs import require_environment
from support.serving import served

pytestmark = pytest.mark.clients

KEY = "a-key-of-32-characters-000000001"
CONFIG = Path(__file__).with_name("schemathesis") / "schemathesis.toml"
SECONDS = 50


@pytest.mark.parametrize("key", ["", KEY], ids=["without keys", "with keys"])
def test_schemathesis_finds_nothing(key: str, tmp_path: Path) -> None:
    program = Path(require_environment("schemathesis")).with_name("schemathesis")
    (newest,) = (REPOSITORY / "model_store" / "flowers").iterdir()
    store = tmp_path / "model_store"
    shutil.copytree(newest, store / "flowers" / "1")  # the version of the document's examples
    keys = tmp_path / "keys"
    keys.write_text(key)
    flags = ["--api-keys-file", str(keys)] if key else []
    routes = ["--vertex-predict-route", "/vertex", "--vertex-health-route", "/health"]
    with served(store, "--device", "cpu", "--no-access-log", *routes, *flags) as service:
        service.wait_for("model loaded")
        command = [str(program), "--no-color", "--config-file", str(CONFIG), "run", f"{service.url}/openapi.json"]
        command += ["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--max-time", str(SECONDS)]
        header = ["--header", f"X-API-Key: {key}"] if key else []
        environment = {**os.environ, "PYTHONPATH": ""}
        process = subprocess.run(
            [*command, *header], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
        )
        lines = httpx.get(f"{service.url}/metrics", headers={"X-API-Key": key}).text.splitlines()
    assert process.returncode == 0, process.stdout + process.stderr
    answered = [line for line in lines if line.startswith("flowers_requests_total{")]
    assert {'status="200"', 'status="422"'} <= {line.partition("}")[0].rpartition(",")[2] for line in answered}
    assert not [line for line in answered if 'status="500"' in line]
