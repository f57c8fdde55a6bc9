"""The GPU image is built and tested anew when one of its inputs has changed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum here")
DIGESTS = "docker/gpu-image.sha256"
INPUTS = [line.split()[1] for line in (REPOSITORY / DIGESTS).read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The lane and the inputs, with digests that fit them, and programs that only write down their arguments."""
    for name in [".ci/gpu-image", ".ci/with-engine", "Makefile", DIGESTS, *INPUTS]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for name in ("bin/docker", "bin/make", ".venv/bin/python", ".venv/bin/pytest"):
        write_program(tmp_path / name, f'echo "$(basename "$0") $*" >>{tmp_path}/called')
    (tmp_path / ".venv" / "dev").touch()
    (tmp_path / DIGESTS).write_text(digests_of(tmp_path), encoding="utf-8")
    return tmp_path


def write_program(path: Path, line: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{line}\n", encoding="utf-8")
    path.chmod(0o755)


def digests_of(clone: Path) -> str:
    return subprocess.run(["sha256sum", *INPUTS], cwd=clone, capture_output=True, text=True, check=True).stdout


def run_lane(clone: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "CONTAINER_ENGINE")}
    environment |= {"PATH": f"{clone / 'bin'}:{os.environ['PATH']}", **variables}
    return subprocess.run([clone / ".ci" / "gpu-image"], env=environment, capture_output=True, text=True, check=False)


def make_gpu_image(clone: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "MAKEFLAGS")}
    command = ["make", "-s", "-C", str(clone), "gpu-image", "--assume-old=.venv/dev"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def called(clone: Path) -> str:
    path = clone / "called"
    return path.read_text(encoding="utf-8") if path.exists() else ""


def test_the_image_is_not_built_while_its_inputs_stay(clone: Path) -> None:
    process = run_lane(clone)
    assert (process.returncode, called(clone)) == (0, "")
    assert process.stdout.count("\n") == 1
    assert "no input has changed" in process.stdout


@pytest.mark.parametrize("changed", INPUTS)
def test_a_changed_input_builds_the_image(clone: Path, changed: str) -> None:
    with (clone / changed).open("a", encoding="utf-8") as file:
        file.write("# changed\n")
    process = run_lane(clone)
    assert process.returncode == 0, process.stderr
    assert changed in process.stdout
    assert called(clone).endswith("make gpu-image\n")


def test_an_input_that_is_gone_builds_the_image(clone: Path) -> None:
    (clone / INPUTS[0]).unlink()
    run_lane(clone)
    assert called(clone).endswith("make gpu-image\n")


def test_without_an_engine_ci_fails_and_others_skip(clone: Path) -> None:
    write_program(clone / "bin" / "docker", "exit 1")
    (clone / "docker" / "Dockerfile").write_text("FROM another", encoding="utf-8")
    no_engine = {"CONTAINER_ENGINE": str(clone / "missing")}
    assert run_lane(clone, CI="true", **no_engine).returncode == 1
    process = run_lane(clone, **no_engine)
    assert (process.returncode, called(clone)) == (0, "")
    assert "SKIPPED" in process.stderr


def test_tests_that_pass_write_the_digests_anew(clone: Path) -> None:
    (clone / "docker" / "Dockerfile").write_text("FROM another", encoding="utf-8")
    process = make_gpu_image(clone)
    assert process.returncode == 0, process.stderr
    assert "pytest -m containers tests/containers/test_gpu_image.py" in called(clone)
    assert (clone / DIGESTS).read_text(encoding="utf-8") == digests_of(clone)


def test_tests_that_fail_or_skip_leave_the_digests(clone: Path) -> None:
    before = (clone / DIGESTS).read_text(encoding="utf-8")
    (clone / "docker" / "Dockerfile").write_text("FROM another", encoding="utf-8")
    write_program(clone / ".venv" / "bin" / "pytest", '[ "$CI" != true ]')  # without an engine, tests fail in CI only
    assert make_gpu_image(clone).returncode != 0
    assert (clone / DIGESTS).read_text(encoding="utf-8") == before
