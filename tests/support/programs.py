"""Programs of the system: found or skipped aloud, and proxies that listen."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest


def skip_aloud(reason: str) -> NoReturn:
    """Skip the test with the reason. Where CI=true the test fails."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def require(tool: str, package: str) -> str:
    """The path of a program. Without it the test is skipped aloud, and fails where CI=true."""
    path = shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        skip_aloud(f"no {tool} here: install the package {package}")
    return path


def require_environment(client: str) -> str:
    """The path of a client's environment, which `.ci/clients` makes. Without it the test is skipped aloud."""
    path = os.environ.get(f"FLOWERS_TEST_{client.upper()}", "")
    if not path:
        skip_aloud(f"no environment of {client}: .ci/clients makes one")
    return path


def find_free_port() -> int:
    """A port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextmanager
def listening(
    command: Sequence[str], port: int, log: Path, variables: Mapping[str, str] | None = None
) -> Iterator[None]:
    """A program that listens on `port` within 20 s. It ends with the block. `variables` add to its environment."""
    environment = {**os.environ, **(variables or {})}
    with log.open("wb") as words, subprocess.Popen(command, stderr=words, env=environment) as process:
        ends_at = time.monotonic() + 20
        while not _listens(port):
            assert process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < ends_at, f"{command[0]} does not listen"
            time.sleep(0.05)
        yield
        process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
