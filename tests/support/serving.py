"""`flowers serve` as a process of its own, over a real socket; its log is read event by event."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


class Served:
    """A running `flowers serve` and what it logs, event by event."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = self.wait_for("service listening")["url"]

    def wait_for(self, event: str) -> dict[str, Any]:
        """Read the log up to this event; requests and what else it says are passed over."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if not line.startswith("{"):
                continue  # what TensorFlow's own C++ writes while it starts, on some processors
            logged: dict[str, Any] = json.loads(line)
            if logged["event"] == event:
                return logged
            assert (logged["event"], event) != ("version refused", "model loaded"), logged["reason"]
        pytest.fail(f"the service ended without the event {event!r}")


@contextmanager
def served(store: Path | str, *flags: str, python: str = sys.executable) -> Iterator[Served]:
    """The service on a free port, killed at the end of the block. It is one process unless `flags` name workers."""
    command = [python, "-m", "service", "serve", "--port", "0", "--log-format", "json"]
    if "--workers" not in flags:
        command += ["--workers", "1"]
    with subprocess.Popen(
        [*command, "--model-store", str(store), *flags], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Served(process)
        finally:
            process.kill()
