"""One serving process: how it is tuned."""

import subprocess
import sys

from conftest import REPOSITORY

TUNED = """
import gc, sys
from service.cli.serve_app import tune_process
on_loaded = tune_process()
assert sys.getswitchinterval() == 0.0005, sys.getswitchinterval()
assert gc.get_threshold()[0] == 10_000
assert gc.get_freeze_count() == 0, "the runtime is not imported yet"
on_loaded()
frozen = gc.get_freeze_count()
assert frozen > 10_000
kept = [[] for _ in range(1000)]
on_loaded()
assert gc.get_freeze_count() <= frozen, "only the first engine is followed by a freeze"
"""


def test_the_process_is_tuned_once() -> None:
    subprocess.run([sys.executable, "-c", TUNED], cwd=REPOSITORY, check=True)
