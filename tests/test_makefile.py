"""The Makefile's choice of an environment."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from conftest import REPOSITORY


@pytest.mark.parametrize(("exit_code", "serving", "training"), [(0, "gpu.txt", "gpu.txt"), (9, "cpu.txt", "train.txt")])
def test_an_answering_driver_chooses_the_gpu_libraries(
    tmp_path: Path, exit_code: int, serving: str, training: str
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!/bin/sh\nexit {exit_code}\n", encoding="utf-8")
    driver.chmod(0o755)
    assert f"--require-hashes -r requirements/{serving}" in plan(tmp_path, "serve")
    assert f"--require-hashes -r requirements/{training}" in plan(tmp_path, "install-training")


def test_make_takes_the_pythons_of_the_package(tmp_path: Path) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least, above = re.findall(r"3\.(\d+)", project["requires-python"])
    assert f"(3, {least}) <= sys.version_info < (3, {above})" in plan(tmp_path, "serve")


def plan(folder: Path, target: str) -> str:
    """What `make` would run for a target, in a new environment, with the programs of a folder first."""
    environment = {name: value for name, value in os.environ.items() if not name.endswith(("_WITH", "MAKEFLAGS"))}
    environment["PATH"] = f"{folder}:{environment['PATH']}"
    command = ["make", "--dry-run", "-C", str(REPOSITORY), target, f"VENV={folder / 'venv'}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
