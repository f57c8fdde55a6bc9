"""Program of a worker, as its supervisor names it."""

import subprocess
import sys
from unittest.mock import Mock

import pytest
from conftest import REPOSITORY

from service.cli.worker_program import run_worker

WITHOUT_THE_APP = """
import pickle, sys
from importlib import import_module
module = import_module(sys.argv[1])
if sys.argv[1].endswith("worker_program"):
    pickle.dumps(module.run_worker)
print(*sorted({"fastapi", "uvicorn", "onnxruntime", "service.api.app", "service.cli.serve_app"} & set(sys.modules)))
"""


@pytest.mark.parametrize("module", ["service.cli.worker_program", "service.cli.serve_workers"])
def test_a_supervisor_does_not_carry_the_app(module: str) -> None:
    command = [sys.executable, "-c", WITHOUT_THE_APP, module]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout == "\n"


def test_the_program_serves_as_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    serve = Mock()
    monkeypatch.setattr("service.cli.serve_app.serve_as_worker", serve)
    settings, place = Mock(), Mock()
    run_worker(settings, place)
    serve.assert_called_once_with(settings, place)
