"""The site of the documents: built in strict mode without a network, and without resources of other hosts."""

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.site

RESOURCES = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
OUTSIDE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)


class Resources(HTMLParser):
    """The addresses that a page loads by itself. Links that a reader follows are not among them."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        value = dict(attrs).get(RESOURCES.get(tag, ""))
        if value and dict(attrs).get("rel") != "canonical":
            self.addresses.append(value)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    isolated = ["unshare", "--net", "--map-root-user", *command]
    if shutil.which("unshare") and subprocess.run([*isolated[:3], "true"], capture_output=True).returncode == 0:
        command = isolated
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_of_the_documents_is_built(site: Path) -> None:
    sources = {path.relative_to(REPOSITORY / "docs") for path in (REPOSITORY / "docs").rglob("*.md")}
    assert sources
    assert not {source for source in sources if not (site / source).with_suffix(".html").exists()}


def test_no_page_loads_resources_of_other_hosts(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert pages
    for page in pages:
        resources = Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert resources.addresses, page
        assert not [address for address in resources.addresses if OUTSIDE.match(address)], page


def test_no_style_or_drawing_loads_from_other_hosts(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in (".css", ".svg")]
    assert files
    for path in files:
        text = path.read_text(encoding="utf-8")
        addresses = re.findall(r"(?:url\(\s*|@import\s+|xlink:href=|\bhref=|\bsrc=)[\"']?([^\"')\s]+)", text)
        assert not [address for address in addresses if OUTSIDE.match(address)], path


def test_the_search_has_its_index(site: Path) -> None:
    index = (site / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "flowers_queue_images" in index
