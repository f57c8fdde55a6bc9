"""The dashboard that ships in docker/grafana: its panels and its queries."""

import json
from typing import Any

from conftest import REPOSITORY

DASHBOARD = json.loads((REPOSITORY / "docker" / "grafana" / "flowers.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def fill_in(query: str, *, instance: str, rate_interval: str) -> str:
    """The query with its variables replaced, as Grafana does."""
    filled = query.replace("$instance", instance).replace("$__rate_interval", rate_interval)
    assert "$" not in filled, f"a variable that no test fills in: {filled}"
    return filled


def thresholds_of(panel: dict[str, Any]) -> set[float]:
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", [])
    return {step["value"] for step in steps if step["value"] is not None}
