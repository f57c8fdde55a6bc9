"""The dashboard against the types of `@grafana/schema`, by TypeScript's own compiler."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPOSITORY
from support.programs import require_environment

pytestmark = pytest.mark.clients

DASHBOARD = (REPOSITORY / "docker" / "grafana" / "flowers.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def packages() -> Path:
    """The folder with the packages of `tests/clients/grafana`. `.ci/clients` makes it."""
    return Path(require_environment("grafana"))


def compile_dashboard(packages: Path, dashboard: str) -> list[str]:
    """The compiler's faults of a dashboard as a typed constant."""
    program = packages / "dashboard.ts"
    head = 'import type { Shipped } from "./types";\nexport const dashboard: Shipped = '
    program.write_text(f"{head}{dashboard};\n", encoding="utf-8")
    options = [
        "--strict",
        "--noEmit",
        "--module",
        "nodenext",
        "--target",
        "es2022",
        "--skipLibCheck",
        "--pretty",
        "false",
    ]
    node = shutil.which("node")
    assert node
    command = [node, str(packages / "node_modules" / "typescript" / "bin" / "tsc"), *options, str(program)]
    process = subprocess.run(command, capture_output=True, text=True, check=False, cwd=packages)
    return process.stdout.splitlines()


def test_the_dashboard_has_the_types_of_grafana_s_schema(packages: Path) -> None:
    assert compile_dashboard(packages, DASHBOARD) == []


@pytest.mark.parametrize(
    ("right", "wrong", "fault"),
    [
        ('"refresh": "30s"', '"refrehs": "30s"', "'\"refrehs\"' does not exist"),
        ('"lineWidth": 1', '"lineWidht": 1', "'\"lineWidht\"' does not exist"),
        ('"placement": "bottom"', '"placement": "below"', "LegendPlacement"),
        ('"type": "heatmap"', '"type": "heat"', "'\"heat\"' is not assignable"),
        ('"graphMode": "none",', "", "'graphMode' is missing"),
        ('"h": 8', '"h": "8"', "not assignable to type 'number'"),
    ],
)
def test_a_mistake_in_the_dashboard_is_a_fault(packages: Path, right: str, wrong: str, fault: str) -> None:
    assert right in DASHBOARD
    faults = compile_dashboard(packages, DASHBOARD.replace(right, wrong, 1))
    assert fault in "\n".join(faults)
