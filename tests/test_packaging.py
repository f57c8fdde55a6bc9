"""The built package and the files for contributors."""

import re
import zipfile
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY
from hatchling.builders.wheel import WheelBuilder

import service
from service.api.page import read_files

GITHUB = REPOSITORY / ".github"
PAGES = [REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "examples").rglob("*.md"))]


def test_the_built_package_has_its_types_and_page(tmp_path: Path) -> None:
    (wheel,) = WheelBuilder(str(REPOSITORY)).build(directory=str(tmp_path), versions=["standard"])
    names = zipfile.ZipFile(wheel).namelist()
    assert {"service/py.typed", *(f"service/api/page/{name}" for name in read_files())} <= {*names}


def test_the_changelog_describes_the_packaged_version() -> None:
    changelog = (REPOSITORY / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = [line.split()[1] for line in changelog.splitlines() if line.startswith("## ")]
    assert service.__version__ in releases


def test_every_target_of_the_contributing_page_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z-]+)`?", (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {"check", "test"} <= named <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_for_contributors_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8"))
    assert not [link for link in links if not (page.parent / link).exists()]


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.yml")), ids=lambda path: path.name)
def test_files_for_the_forge_are_valid_yaml(path: Path) -> None:
    assert yaml.safe_load(path.read_text(encoding="utf-8"))


def test_the_workflow_runs_every_check_on_every_python() -> None:
    job = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"]["ci"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert job["steps"][-1]["run"].endswith(".ci/run")


def test_hooks_run_the_tools_of_the_environment() -> None:
    (repository,) = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert repository["repo"] == "local"
    commands = {hook["entry"].split()[0] for hook in repository["hooks"] if "stages" not in hook}
    assert commands == {".venv/bin/ruff", ".venv/bin/mypy"}
