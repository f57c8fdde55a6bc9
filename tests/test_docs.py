"""The documents: every setting, command, metric and problem is in them, and every link leads somewhere."""

import importlib.util
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from conftest import REPOSITORY

from service.api.problems import PROBLEMS
from service.cli.help import VERBS
from service.setting_sources import ENVIRONMENT_PREFIX
from service.settings import PROGRAMS

DOCS = REPOSITORY / "docs"
DOCUMENTS = sorted([REPOSITORY / "README.md", REPOSITORY / "SECURITY.md", *DOCS.rglob("*.md")])
TEXT = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATE, DRAW = load("generate"), load("draw")


def find_anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as sites of Markdown make them."""
    text = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
    assert [slug for slug, count in Counter(slugs).items() if count > 1] == [], f"{document}: headings of one name"
    return set(slugs)


def identify(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("setting", sorted({field for program in PROGRAMS for field in program.model_fields}))
def test_every_setting_is_documented(setting: str) -> None:
    assert f"`--{setting.replace('_', '-')}`" in TEXT
    assert f"`{ENVIRONMENT_PREFIX}{setting.upper()}`" in TEXT


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS])
def test_every_command_is_documented(verb: str) -> None:
    assert re.search(rf"`flowers {verb}\b", (DOCS / "reference" / "commands.md").read_text(encoding="utf-8"))


@pytest.mark.parametrize("problem", sorted({problem.name for problem in PROBLEMS.values()}))
def test_every_problem_type_is_documented(problem: str) -> None:
    assert f"`{problem}`" in (DOCS / "reference" / "problems.md").read_text(encoding="utf-8")


def test_every_metric_is_documented() -> None:
    source = (REPOSITORY / "service" / "api" / "metrics.py").read_text(encoding="utf-8")
    page = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
    metrics = set(re.findall(r'"(flowers_[a-z0-9_]+)"', source))
    assert metrics
    assert not [metric for metric in sorted(metrics) if not {f"`{metric}`", f"`{metric}_total`"} & set(page.split())]


@pytest.mark.parametrize(("name", "render"), GENERATE.PAGES.items())
def test_written_tables_are_what_the_code_says(name: str, render: Callable[[], str]) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    assert page == GENERATE.embed(render(), page), "run `make docs`"


@pytest.mark.parametrize(("name", "draw"), DRAW.DRAWINGS.items())
def test_drawings_are_what_the_code_says(name: str, draw: Callable[[], str]) -> None:
    assert (DOCS / "drawings" / name).read_text(encoding="utf-8") == draw(), "run `make docs`"


def test_the_drawing_of_rooms_implies_every_import() -> None:
    arrows = DRAW.read_imports()
    drawn = DRAW.drop_implied(arrows)

    def reach(room: str) -> set[str]:
        return set().union(*({other} | reach(other) for other in drawn[room]))

    assert arrows["cli"]
    assert all(known <= reach(room) for room, known in arrows.items())
    rooms = set(re.findall(r">(\w+)</text>", (DOCS / "drawings" / "rooms.svg").read_text(encoding="utf-8")))
    assert rooms == set(arrows)


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", document.read_text(encoding="utf-8"))
    for link in links:
        name, _, anchor = link.partition("#")
        target = document.parent / name if name else document
        assert target.exists(), link
        assert not anchor or anchor in find_anchors(target), link


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}
    assert not [page for page in sorted(pages) if f"]({page})" not in index]


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_every_named_file_exists(document: Path) -> None:
    paths = re.findall(r"`((?:service|tests|benchmarks|docs|docker)/[\w/.-]+)`", document.read_text(encoding="utf-8"))
    assert not [path for path in paths if not (REPOSITORY / path).exists()]


def test_every_page_that_the_code_names_exists() -> None:
    folders = ("service", "tests", "benchmarks", "docker", ".ci")
    paths = [path for folder in folders for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
    sources = [*paths, REPOSITORY / "docker-compose.yml", REPOSITORY / "pyproject.toml", REPOSITORY / "Makefile"]
    pages = {
        (path.relative_to(REPOSITORY).as_posix(), page)
        for path in sources
        if path.suffix in {"", ".py", ".yml", ".yaml", ".toml"} and "__pycache__" not in path.parts
        for page in re.findall(r"\bdocs/[\w/]+\.md\b", path.read_text(encoding="utf-8", errors="replace"))
    }
    assert pages
    assert not sorted((source, page) for source, page in pages if not (REPOSITORY / page).exists())
