"""A real Prometheus reads the metrics, and its own tool checks what ships in docker/prometheus."""

import re
from pathlib import Path

import httpx
import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode
from support.prometheus import KEY, SHIPPED, prometheus, promtool, require_prometheus, wait_for
from support.serving import served

PHOTO = encode(draw_photograph(2, seed=300))


@pytest.fixture(scope="module", autouse=True)
def _prometheus_is_here() -> None:
    require_prometheus()


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
