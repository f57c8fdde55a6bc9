"""What libraries do when they are imported is decided before: in this process, and in each that it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from service.libraries import keep_ray_quiet

VARIABLES = ("ORT_DISABLE_TELEMETRY", "KERAS_HOME", "MPLCONFIGDIR")


def variables_after_import(environment: dict[str, str]) -> dict[str, str]:
    """The three variables in a process whose parent has imported the package in this environment."""
    child = f"import os; print(*(os.environ[name] for name in {VARIABLES}), sep='\\n')"
    parent = f"import service, subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}], check=True)"
    command = [sys.executable, "-c", parent]
    environment = {"PYTHONPATH": str(REPOSITORY), "HOME": "/home/ada", **environment}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return dict(zip(VARIABLES, printed.splitlines(), strict=True))


@pytest.mark.parametrize("value", ["", "0", "false", "no"])
def test_no_value_makes_onnx_runtime_report(value: str) -> None:
    assert variables_after_import({"ORT_DISABLE_TELEMETRY": value})["ORT_DISABLE_TELEMETRY"] == "1"


def test_libraries_keep_their_files_in_the_cache_folder() -> None:
    assert variables_after_import({}) == {
        "ORT_DISABLE_TELEMETRY": "1",
        "KERAS_HOME": "/home/ada/.cache/flowers/keras",
        "MPLCONFIGDIR": "/home/ada/.cache/flowers/matplotlib",
    }
    moved = variables_after_import({"FLOWERS_CACHE": "/var/cache/flowers", "KERAS_HOME": "/home/ada/keras"})
    assert moved["MPLCONFIGDIR"] == "/var/cache/flowers/matplotlib"
    assert moved["KERAS_HOME"] == "/home/ada/keras", "the user's choice is left alone"


@pytest.mark.parametrize(
    ("address", "loopback"), [("", "0"), ("127.0.0.1:6379", "0"), ("localhost:6379", "0"), ("10.0.0.1:6379", None)]
)
def test_ray_stays_on_this_machine_and_reports_nothing(
    monkeypatch: pytest.MonkeyPatch, address: str, loopback: str | None
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    keep_ray_quiet(address)
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert os.environ.pop("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", None) == loopback


def test_the_cache_of_a_training_moves_their_files(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    program = f"""
import os
from service.cli.main import main
assert main(["train", {str(tmp_path / "photos")!r}, "--cache", {str(tmp_path / "cache")!r}, "--name", "../x"]) == 2
print(os.environ["KERAS_HOME"])
"""
    unset = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-c", program]
    environment = {**unset, "PYTHONPATH": str(REPOSITORY)}
    printed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(tmp_path / "cache" / "keras")
