"""What the code knows, the documents name: settings, commands, metrics, problems; and every link leads somewhere."""

import re
import runpy
from pathlib import Path

import pytest
from conftest import REPOSITORY

from service.api.problems import PROBLEMS
from service.cli.main import VERBS
from service.settings import ENVIRONMENT_PREFIX, PROGRAMS

DOCUMENTS = sorted([REPOSITORY / "README.md", REPOSITORY / "SECURITY.md", *(REPOSITORY / "docs").glob("*.md")])
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)


@pytest.mark.parametrize("setting", sorted({field for program in PROGRAMS for field in program.model_fields}))
def test_every_setting_is_documented_as_a_flag_and_a_variable(setting: str) -> None:
    assert f"`--{setting.replace('_', '-')}`" in TEXT
    assert f"`{ENVIRONMENT_PREFIX}{setting.upper()}`" in TEXT


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_is_documented(verb: str) -> None:
    assert f"`flowers {verb}" in TEXT or f"flowers {verb} " in TEXT


@pytest.mark.parametrize("problem", sorted({problem.name for problem in PROBLEMS.values()}))
def test_every_problem_type_is_documented(problem: str) -> None:
    assert f"`{problem}`" in TEXT


def test_the_page_of_settings_is_what_the_settings_say() -> None:
    page = runpy.run_path(str(REPOSITORY / "docs" / "generate_settings.py"))["render"]()
    assert (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8") == page, "run `make docs`"


def test_every_metric_is_documented() -> None:
    source = (REPOSITORY / "service" / "api" / "metrics.py").read_text(encoding="utf-8")
    metrics = set(re.findall(r'"(flowers_[a-z0-9_]+)"', source))
    assert metrics
    assert not [metric for metric in sorted(metrics) if f"`{metric}`" not in TEXT]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_to_a_file_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", document.read_text(encoding="utf-8"))
    assert not [link for link in links if not (document.parent / link).exists()]
