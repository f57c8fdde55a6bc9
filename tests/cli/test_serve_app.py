"""One serving process: how it is tuned, and how it serves alone."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest
from conftest import REPOSITORY

from service.cli import serve_app
from service.cli.listening import listen, url_of
from service.engines.found import list_driver_gpus
from service.errors import DeviceUnavailable
from service.logs import LogWriter
from service.settings import ServeSettings

TUNED = """
import gc, sys
from service.cli.serve_app import tune_process
at_start = gc.get_freeze_count()  # more than none from Python 3.12 on
on_loaded = tune_process()
assert sys.getswitchinterval() == 0.0005, sys.getswitchinterval()
assert gc.get_threshold()[0] == 10_000
assert gc.get_freeze_count() == at_start, "the runtime is not imported yet"
on_loaded()
frozen = gc.get_freeze_count()
assert frozen > at_start + 10_000
kept = [[] for _ in range(1000)]
on_loaded()
assert gc.get_freeze_count() <= frozen, "only the first engine is followed by a freeze"
"""


def test_the_process_is_tuned_once() -> None:
    subprocess.run([sys.executable, "-c", TUNED], cwd=REPOSITORY, check=True)


@pytest.fixture
def stays_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service runs in this process, which it neither tunes nor ends."""
    monkeypatch.setattr(serve_app, "tune_process", lambda: Mock())
    monkeypatch.setattr(serve_app, "is_thread_at_work", lambda: False)
    monkeypatch.setattr(serve_app, "leave", Mock(side_effect=AssertionError("it would end pytest")))


@pytest.mark.usefixtures("stays_here")
def test_a_process_alone_serves_until_a_signal(tmp_path: Path) -> None:
    listener = listen("127.0.0.1", 0)
    answers: list[int] = []

    def ask_and_stop() -> None:
        with httpx.Client(base_url=url_of(listener), timeout=60) as client:
            answers.extend(client.get(path).status_code for path in ("/livez", "/readyz", "/metrics"))
        os.kill(os.getpid(), signal.SIGINT)

    client = threading.Thread(target=ask_and_stop)
    client.start()
    settings = ServeSettings(model_store=tmp_path, workers=1)
    assert serve_app.serve_alone(settings, listener, Mock(spec=LogWriter, num_dropped=0)) == 0
    client.join()
    assert answers == [200, 503, 200]


@pytest.mark.usefixtures("stays_here")
@pytest.mark.skipif(bool(list_driver_gpus()), reason="this machine has a GPU")
def test_what_no_version_can_mend_is_raised(tmp_path: Path) -> None:
    settings = ServeSettings(model_store=tmp_path, workers=1, device="gpu")
    with pytest.raises(DeviceUnavailable, match="There is no GPU"):
        serve_app.serve_alone(settings, listen("127.0.0.1", 0), Mock(spec=LogWriter, num_dropped=0))
