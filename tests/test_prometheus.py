"""A real Prometheus reads the metrics, and its own tool checks what ships in docker/prometheus."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode
from support.serving import served

SHIPPED = REPOSITORY / "docker" / "prometheus"
PHOTO = encode(draw_photograph(2, seed=300))
KEY = "a-key-for-the-prometheus-of-a-test"


@pytest.fixture(scope="module", autouse=True)
def _prometheus_is_here() -> None:
    """Skipped aloud where Debian's package is not installed; a failure where CI=true."""
    if not (shutil.which("prometheus") and shutil.which("promtool")):
        reason = "no prometheus and promtool here: apt-get install prometheus"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


def promtool(*arguments: str | Path, stdin: str = "") -> str:
    ran = subprocess.run(["promtool", *map(str, arguments)], input=stdin, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_the_configuration_is_valid_and_alerts_fire() -> None:
    checked = promtool("check", "config", SHIPPED / "prometheus.yml")
    assert "valid prometheus config" in checked
    assert "rules found" in checked, "it reads the alerts"
    promtool("test", "rules", SHIPPED / "alerts_test.yml")


def test_the_service_has_every_metric_of_the_alerts() -> None:
    source = (REPOSITORY / "service" / "api" / "metrics.py").read_text()
    used = set(re.findall(r"\bflowers_\w+", (SHIPPED / "alerts.yml").read_text()))
    assert used
    assert {re.sub(r"_(total|bucket|sum|count)$", "", name) for name in used} <= set(re.findall(r'"(\w+)"', source))


@contextmanager
def prometheus(target: str, folder: Path) -> Iterator[httpx.Client]:
    """It runs with the shipped files, told of another address, a key and less patience only."""
    config = (SHIPPED / "prometheus.yml").read_text().replace("localhost:8000", target).replace("15s", "1s")
    (folder / "key").write_text(KEY)
    config = config.replace("# authorization:", "authorization:").replace("/etc/prometheus/flowers-api-key", "key")
    (folder / "prometheus.yml").write_text(config)
    shutil.copy(SHIPPED / "alerts.yml", folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
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


@pytest.mark.slow
def test_prometheus_counts_what_the_client_counts(tiny_version: Path, tmp_path: Path) -> None:
    with served(tiny_version, "--api-keys", KEY) as service:
        service.wait_for("model loaded")
        with (
            prometheus(service.url.removeprefix("http://"), tmp_path) as client,
            httpx.Client(base_url=service.url, headers={"X-API-Key": KEY}) as visitor,
        ):
            wait_for(client, 'up{job="flowers"}', 1)
            labels = [visitor.post("/predict", content=PHOTO).json()["label"] for _ in range(20)]
            assert visitor.post("/predict", content=b"no image").status_code == 415
            wait_for(client, 'flowers_requests_total{route="/predict", status="200"}', 20)
            wait_for(client, 'flowers_problems_total{type="unsupported-image-format"}', 1)
            wait_for(client, 'sum(flowers_predictions_total{label="roses"})', labels.count("roses"))
            wait_for(client, 'flowers_stage_duration_seconds_count{stage="infer"}', 20)
            wait_for(client, "count(flowers_batch_size_images_sum >= 20)", 1)  # and the watchdog's own
            wait_for(client, "flowers_ready", 1)
            wait_for(client, "count(process_resident_memory_bytes > 1e7)", 1)
            wait_for(client, "count(flowers_event_loop_lag_seconds_sum)", 1)
            [group] = client.get("rules").json()["data"]["groups"]
            assert {rule["health"] for rule in group["rules"]} == {"ok"}
            assert not [rule["name"] for rule in group["rules"] if rule["alerts"]]
            assert promtool("check", "metrics", stdin=visitor.get("/metrics").text) == ""
