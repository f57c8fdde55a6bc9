"""What the README tells a stranger to type works as it stands there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY
from containers.conftest import PHOTO

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]  # the first one builds the image


def test_the_commands_of_the_laptop_deployment_work(cpu_image: str, tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    (block,) = [block for block in readme.split("```sh\n")[1:] if block.startswith("docker compose --profile cpu up")]
    commands = block.split("```")[0]
    clone = tmp_path / "clone"
    shutil.copytree(
        REPOSITORY, clone, ignore=shutil.ignore_patterns(".venv", ".git", "runs", ".*_cache", ".hypothesis")
    )
    (clone / "tulip.jpg").write_bytes(PHOTO)
    tmp_path.chmod(0o755)
    environment = {**os.environ, "COMPOSE_PROJECT_NAME": "flowers-readme"}
    process = subprocess.run(
        ["bash", "-euc", commands], cwd=clone, env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr[-4000:]
    assert '"label":' in process.stdout
