"""Program of a worker that takes the place of another."""

import pickle
import subprocess
import sys

from conftest import REPOSITORY

OUTSIDE = """
import pickle, sys
from unittest.mock import Mock
from service.cli import serve_app
serve_app.serve_as_worker = lambda *given: print(*given)
import runpy
runpy.run_module("service.cli.worker_program", run_name=sys.argv[1])
"""


def run_program(name: str) -> str:
    """What it prints that the worker was given."""
    command = [sys.executable, "-c", OUTSIDE, name]
    given = pickle.dumps(("settings", "place"))
    return subprocess.run(command, cwd=REPOSITORY, input=given, capture_output=True, check=True).stdout.decode()


def test_settings_and_place_come_through_the_input() -> None:
    assert run_program("__main__") == "settings place\n"


def test_importing_the_program_runs_nothing() -> None:
    assert run_program("worker_program") == ""
