"""A real Prometheus with the shipped files, and its own tool."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from conftest import REPOSITORY
from support.programs import find_free_port, skip_aloud

SHIPPED = REPOSITORY / "docker" / "prometheus"
KEY = "a-key-for-the-prometheus-of-a-test"


def require_prometheus() -> None:
    """Skipped aloud where Debian's package is not installed; a failure where CI=true."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        skip_aloud("no prometheus and promtool here: apt-get install prometheus")


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    ran = subprocess.run(["promtool", *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@contextmanager
def prometheus(
    target: str, folder: Path, *, key: str = KEY, shipped: str = "prometheus.yml", interval: str = "1s"
) -> Iterator[httpx.Client]:
    """It runs with the shipped files, told of another address, a key and less patience only."""
    config = (SHIPPED / shipped).read_text().replace("15s", interval)
    for address in ("localhost:8000", "flowers:8000"):
        config = config.replace(address, target)
    (folder / "key").write_text(key)
    config = config.replace("# authorization:", "authorization:")
    for file in ("/etc/prometheus/flowers-api-key", "/run/flowers-api-key"):
        config = config.replace(file, "key")
    (folder / "prometheus.yml").write_text(config)
    shutil.copy(SHIPPED / "alerts.yml", folder)
    address = f"127.0.0.1:{find_free_port()}"
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
               f"--web.listen-address={address}", "--log.level=error"]  # fmt: skip
    with subprocess.Popen(command) as process, httpx.Client(base_url=f"http://{address}/api/v1") as client:
        try:
            yield client
        finally:
            process.kill()


def value_of(client: httpx.Client, query: str) -> float | None:
    """What the query gives, or None while it gives nothing, or Prometheus does not answer yet."""
    try:
        [sample] = client.get("query", params={"query": query}).json()["data"]["result"]
    except (httpx.TransportError, ValueError, KeyError):
        return None
    return float(sample["value"][1])


def wait_for(client: httpx.Client, query: str, expected: float) -> None:
    until = time.monotonic() + 60
    while (value := value_of(client, query)) != expected:
        assert time.monotonic() < until, f"{query} is {value}, not {expected}"
        time.sleep(0.1)
