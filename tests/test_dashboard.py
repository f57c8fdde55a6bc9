"""The dashboard for Grafana: each of its queries asks a real Prometheus that scrapes the real service."""

import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest
import yaml
from conftest import REPOSITORY
from support.dashboard import DASHBOARD, PANELS, fill_in, thresholds_of
from support.drawing import draw_photograph, encode
from support.prometheus import SHIPPED, prometheus, promtool, require_prometheus, wait_for
from support.serving import served

from docs.draw_dashboard import draw_dashboard
from docs.panels import Series, name_series

GRAFANA = REPOSITORY / "docker" / "grafana"
PHOTO = encode(draw_photograph(2, seed=300))
WEEK_S = 7 * 24 * 3600
VARIABLES = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}


@dataclass(frozen=True)
class Scraped:
    """A Prometheus that has scraped some traffic."""

    client: httpx.Client
    instance: str

    def ask(self, target: dict[str, Any]) -> list[Series]:
        """The series of the last minute, or those of now."""
        query = fill_in(target["expr"], instance=self.instance, rate_interval="2s")
        now = time.time()
        path, span = ("query", {}) if target["instant"] else ("query_range", {"start": now - 60, "end": now, "step": 1})
        answer = self.client.get(path, params={"query": query, **span}).json()
        assert answer["status"] == "success", answer
        return [
            Series(
                one["metric"],
                name_series(target["legendFormat"], one["metric"]),
                [(at - now + 60, float(value)) for at, value in one.get("values") or [one["value"]]],
            )
            for one in answer["data"]["result"]
        ]


def write_last_week(instance: str, folder: Path) -> None:
    """Put predictions of a week ago into the data of a Prometheus."""
    lines = [
        f'flowers_prediction_probability_{name}{{job="flowers",instance="{instance}"}} {each * count} {at}'
        for name, each in (("sum", 0.9), ("count", 1.0))
        for count, at in enumerate(range(int(time.time()) - WEEK_S - 7200, int(time.time()) - WEEK_S + 7200, 300))
    ]
    written = folder / "last-week.txt"
    written.write_text("\n".join([*lines, "# EOF\n"]))
    promtool("tsdb", "create-blocks-from", "openmetrics", written, folder / "data")


def send_some_of_all(service: httpx.Client) -> None:
    photos = [encode(draw_photograph(number % 5, seed=300 + number)) for number in range(10)]
    assert {service.post("/predict", content=photo).status_code for photo in photos} == {200}
    assert service.post("/predict", content=b"no image").status_code == 415
    assert service.post("/predict/batch", files=[("file", PHOTO), ("file", PHOTO)]).status_code == 200
    assert service.post("/explain", content=PHOTO).status_code == 200
    assert service.get("/nowhere").status_code == 404


@pytest.fixture(scope="module")
def scraped(tiny_version: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    """The configuration of the compose stack, with the empty file of a service without keys."""
    require_prometheus()
    folder = tmp_path_factory.mktemp("prometheus")
    with served(tiny_version) as service:
        service.wait_for("model loaded")
        instance = service.url.removeprefix("http://")
        write_last_week(instance, folder)
        with (
            prometheus(instance, folder, key="", shipped="compose.yml", interval="200ms") as client,
            httpx.Client(base_url=service.url) as visitor,
        ):
            assert visitor.post("/predict", content=PHOTO).status_code == 200
            wait_for(client, 'flowers_requests_total{route="/predict", status="200"}', 1)
            send_some_of_all(visitor)
            wait_for(client, 'flowers_requests_total{route="unmatched"}', 1)
            wait_for(client, "sum(rate(flowers_event_loop_lag_seconds_count[2s])) > bool 0", 1)
            yield Scraped(client, instance)


@pytest.mark.long
@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_no_panel_is_empty_after_some_traffic(scraped: Scraped, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        series = scraped.ask(target)
        assert [value for one in series for _, value in one.points if math.isfinite(value)], target["expr"]


@pytest.mark.long
def test_panels_show_what_the_client_has_sent(scraped: Scraped) -> None:
    def asked(title: str) -> list[Series]:
        (panel,) = [panel for panel in PANELS if panel["title"] == title]
        return [one for target in panel["targets"] for one in scraped.ask(target)]

    def shown(title: str) -> list[list[float]]:
        return [[value for _, value in one.points] for one in asked(title)]

    assert shown("Ready") == [[1]]
    assert shown("Alerts firing") == [[0]]
    assert shown("Workers")[0][-1] == 1
    shares: dict[int, float] = {}  # by second, since a class begins with its first answer
    for one in asked("Class mix"):
        for at, share in one.points:
            shares[round(at)] = shares.get(round(at), 0) + share
    assert any(share == pytest.approx(1) for share in shares.values())
    assert 0.2 < shown("Mean probability")[0][-1] <= 1
    assert shown("Mean probability")[1][-1] == pytest.approx(0.9 * 0.9)


@pytest.mark.long
def test_the_variable_finds_every_replica(scraped: Scraped) -> None:
    query = VARIABLES["instance"]["query"]["query"]
    metric, label = re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups()  # type: ignore[union-attr]
    answer = scraped.client.get(f"label/{label}/values", params={"match[]": metric}).json()
    assert answer["data"] == [scraped.instance]


@pytest.mark.long
def test_the_drawing_shows_what_prometheus_answers(scraped: Scraped) -> None:
    texts = [text for text in ElementTree.fromstring(draw_dashboard(DASHBOARD, scraped.ask)).itertext() if text.strip()]
    assert {panel["title"] for panel in PANELS} <= set(texts)
    assert {"ready", "/predict 200", "unsupported-image-format", "p99", "infer", "tulips", "onnxruntime"} <= set(texts)


def test_the_dashboard_shows_every_metric() -> None:
    page = (REPOSITORY / "docs" / "reference" / "metrics.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(flowers_\w+)`", page, re.MULTILINE))
    used = {
        re.sub(r"_(bucket|sum|count)$", "", name)
        for panel in PANELS
        for target in panel["targets"]
        for name in re.findall(r"\bflowers_\w+", target["expr"])
    }
    assert documented
    assert used == documented


def test_a_panel_that_names_an_alert_has_its_threshold() -> None:
    rules = yaml.safe_load((SHIPPED / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    numbers = {rule["alert"]: re.findall(r"> ([\d.]+)", rule["expr"]) for rule in rules}
    checked = set()
    for panel in PANELS:
        named = re.findall(r"alert (Flowers\w+)", panel["description"])
        assert set(named) <= set(numbers), panel["title"]
        if "threshold" in panel["description"]:
            (name,) = named
            assert thresholds_of(panel) == {float(number) for number in numbers[name]}, panel["title"]
            checked.add(name)
    assert checked == {"FlowersFails", "FlowersOverloaded", "FlowersSlow", "FlowersEventLoopBlocked"}


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_every_panel_has_a_unit_and_a_description(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    unit = panel["options"]["yAxis"]["unit"] if panel["type"] == "heatmap" else panel["fieldConfig"]["defaults"]["unit"]
    assert unit
    assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
    assert VARIABLES["datasource"]["query"] == panel["datasource"]["type"] == "prometheus"


def test_no_two_panels_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for one, other in combinations((panel["gridPos"] for panel in DASHBOARD["panels"]), 2):
        apart_x = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        apart_y = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert apart_x or apart_y, (one, other)
    assert {panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in DASHBOARD["panels"]} == {True}


def test_grafana_asks_the_prometheus_of_the_stack() -> None:
    (source,) = yaml.safe_load((GRAFANA / "datasource.yml").read_text(encoding="utf-8"))["datasources"]
    scraping = yaml.safe_load((SHIPPED / "compose.yml").read_text(encoding="utf-8"))
    assert source["url"] == "http://prometheus:9090"
    assert source["jsonData"]["timeInterval"] == scraping["global"]["scrape_interval"]
    assert not source["editable"]


def test_the_drawing_in_the_documents_has_every_panel() -> None:
    drawing = (REPOSITORY / "docs" / "drawings" / "dashboard.svg").read_text(encoding="utf-8")
    assert [panel["title"] for panel in PANELS if f">{panel['title']}</text>" not in drawing] == [], (
        "run `make dashboard`"
    )
    assert len(drawing) < 150_000
