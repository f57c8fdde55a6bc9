import re
from collections.abc import AsyncIterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from conftest import REPOSITORY
from PIL import Image
from support.fakes import Loader
from support.running import Running, running

from service.api.page import find_samples, read_files
from service.api.problems import PROBLEMS

pytestmark = pytest.mark.anyio

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
KEY = "first-key-of-32-characters-000001"
FILES = read_files()
SCRIPTS = {name: content.decode() for name, content in FILES.items() if name.endswith(".js")}


@pytest.fixture
async def service(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader) as service:
        yield service


class Links(HTMLParser):
    """Addresses of an HTML page. `inline` tells of scripts and styles that its policy would refuse."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [values[name] or "" for name in ("src", "href") if name in values]
        if tag == "style" or (tag == "script" and "src" not in values):
            self.inline.append(tag)
        self.inline += [name for name in values if name == "style" or name.startswith("on")]


async def test_the_page_needs_nothing_from_elsewhere(service: Running) -> None:
    page = await service.client.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    links = Links(page.text)
    assert links.inline == []
    loaded = [address for address in links.addresses if not address.startswith(("#", "https://creativecommons"))]
    assert len(loaded) == 5
    for address in loaded:
        assert (await service.client.get(f"/{address}")).status_code == 200, address
    foreign = {name for name, text in SCRIPTS.items() if re.search(r"https?://", text)}
    assert foreign == set()
    assert b"url(" not in FILES["page.css"]


async def test_every_file_has_its_headers(service: Running) -> None:
    for path in ("/", *(f"/page/{name}" for name in FILES if name != "index.html")):
        answer = await service.client.get(path)
        assert answer.status_code == 200, path
        assert answer.headers["content-security-policy"] == POLICY
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-cache"
        again = await service.client.get(path, headers={"If-None-Match": f'W/"x", {answer.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["content-security-policy"] == POLICY
        other = await service.client.get(path, headers={"If-None-Match": '"x"'})
        assert other.status_code == 200


@pytest.mark.parametrize(
    "name",
    ["", "index.html", "__init__.py", "../routes/page.py", "..%2Froutes%2Fpage.py", "samples", "%2Fetc%2Fpasswd"],
)
async def test_only_files_of_the_page_are_sent(service: Running, name: str) -> None:
    assert (await service.client.get(f"/page/{name}")).status_code == 404


async def test_with_keys_the_files_are_open_and_unnamed(store: Path, loader: Loader) -> None:
    async with running(store, loader, api_keys=KEY) as service:
        for path in ("/", *(f"/page/{name}" for name in FILES if name != "index.html")):
            answer = await service.client.get(path)
            assert answer.status_code == 200, path
            if not path.startswith("/page/samples"):
                assert not re.search(r"daisy|dandelion|roses|sunflowers|tulips|version \d", answer.text), path
        assert (await service.client.get("/models")).status_code == 401


@pytest.mark.parametrize(
    ("prefix", "path", "status", "location"),
    [
        ("/flowers", "/flowers", 307, "/flowers/"),
        ("/a/flowers/", "/a/flowers", 307, "/a/flowers/"),
        ("/flowers", "/flowers/", 404, None),
        ("/flowers", "/", 200, None),
        ("/flowers", "/livez", 200, None),
        ("/", "/", 200, None),
        ("//evil.example", "//evil.example", 404, None),
        ("/../x", "/../x", 404, None),
    ],
)
async def test_a_stripped_prefix_redirects_to_its_folder(
    service: Running, prefix: str, path: str, status: int, location: str | None
) -> None:
    answer = await service.client.get(f"http://flowers{path}", headers={"X-Forwarded-Prefix": prefix})
    assert (answer.status_code, answer.headers.get("location")) == (status, location)


async def test_the_redirect_needs_no_key(store: Path, loader: Loader) -> None:
    async with running(store, loader, api_keys=KEY) as service:
        answer = await service.client.get("/flowers", headers={"X-Forwarded-Prefix": "/flowers"})
        assert (answer.status_code, answer.headers["location"]) == (307, "/flowers/")


async def test_links_begin_with_a_told_prefix(service: Running) -> None:
    page = await service.client.get("/", headers={"X-Forwarded-Prefix": "/flowers"})
    assert "/flowers/page/page.js" in Links(page.text).addresses
    assert page.headers["vary"] == "X-Forwarded-Prefix"
    hostile = await service.client.get("/", headers={"X-Forwarded-Prefix": '/"><script>'})
    assert hostile.text == (await service.client.get("/")).text


async def test_all_files_are_counted_under_one_route(service: Running) -> None:
    for name in ("page.css", "page.js", "samples/daisy.jpg"):
        await service.client.get(f"/page/{name}")
    text = (await service.client.get("/metrics")).text
    assert 'flowers_requests_total{method="GET",route="/page/{name:path}",status="200"} 3.0' in text


def test_the_page_is_small() -> None:
    assert sum(len(content) for name, content in FILES.items() if not name.endswith(".jpg")) < 100_000


def test_no_script_reads_text_as_html() -> None:
    pattern = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|setHTML|\beval\(|localStorage"
    assert not [name for name, text in SCRIPTS.items() if re.search(pattern, text)]


def test_the_page_knows_every_problem_in_words() -> None:
    known = set(re.findall(r'^  "([a-z-]+)": \["', SCRIPTS["words.js"], re.MULTILINE))
    assert known >= PROBLEMS.keys()


def test_samples_are_small_and_carry_no_metadata() -> None:
    for path in find_samples():
        with Image.open(path) as image:
            assert max(image.size) == 480
            assert not {"exif", "icc_profile", "comment", "xmp"} & image.info.keys()
        assert path.stat().st_size < 40_000


def test_every_sample_is_credited() -> None:
    notice = (REPOSITORY / "NOTICE").read_text(encoding="utf-8")
    captions = FILES["samples/samples.json"].decode()
    credits_of = dict(re.findall(r"^  (\S+\.jpg) +photograph \d+ by (.+), https", notice, re.MULTILINE))
    assert credits_of.keys() == {path.name for path in find_samples()}
    for name, photographer in credits_of.items():
        assert re.search(rf'"file": "{name}".*"photographer": "{photographer}"', captions)
