"""The page in real Chromium when something is wrong: problems, keys, an empty store, no network, a prefix."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from PIL import Image
from support.browsing import KEY, read_labels, upload
from support.serving import served

from service.api.problems import PROBLEMS, problem_response

pytestmark = pytest.mark.browser
Open = Callable[..., Any]


def make_bmp(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 140, 60)).save(file, "BMP")
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("empty.jpg", "The file is empty"),
        ("words.jpg", "The file is in a format that is not supported"),
        ("cut.jpg", "The image is damaged or incomplete"),
        ("heavy.bmp", "The file is too large"),
        ("wide.gif", "The image has too many pixels"),
    ],
)
def test_the_service_s_refusals_are_shown_in_words(
    open_page: Open, strict_url: str, samples: Path, name: str, title: str
) -> None:
    wide = io.BytesIO()
    Image.new("L", (400, 400)).save(wide, "GIF")
    files = {
        "empty.jpg": b"",
        "words.jpg": b"no image, but words",
        "cut.jpg": (samples / "tulips.jpg").read_bytes()[:6000],
        "heavy.bmp": make_bmp(1000, 1000),
        "wide.gif": wide.getvalue(),
    }
    page = open_page(strict_url)
    upload(page, (name, files[name]))
    page.locator(".problem strong", has_text=title).wait_for()
    assert len(page.locator(".problem p").last.inner_text()) > 20


def refuse(page: Any, status: int, body: bytes) -> None:
    """Answer the page's next predictions with a problem."""
    page.route(
        "**/predict", lambda route: route.fulfill(status=status, body=body, content_type="application/problem+json")
    )


def test_every_problem_is_shown_with_its_detail(open_page: Open, url: str, samples: Path) -> None:
    """Some cannot be met from the page. So the answer is the service's, but written here."""
    photo = (samples / "tulips.jpg").read_bytes()
    page = open_page(url)
    for name, problem in PROBLEMS.items():
        detail = f"This is the detail of {name}."
        status = 503 if problem.status == 429 else problem.status  # it would be asked again
        refuse(page, status, bytes(problem_response("0193a5d4", problem, detail).body))
        upload(page, ("mine.jpg", photo))
        page.get_by_text(detail).wait_for()
        assert page.locator(".problem strong").inner_text() not in ("", problem.title)
        page.unroute("**/predict")
        page.get_by_role("button", name="Try again").click()
        page.locator(".best").wait_for()
        assert read_labels(page) == ["tulips"]
        page.get_by_role("button", name="Clear").click()


def test_a_proxy_s_refusal_is_told_apart(open_page: Open, url: str, samples: Path) -> None:
    page = open_page(url)
    page.route("**/predict", lambda route: route.fulfill(status=413, body="<h1>413</h1>", content_type="text/html"))
    upload(page, ("mine.jpg", (samples / "tulips.jpg").read_bytes()))
    page.locator(".problem strong", has_text="The answer is not from this service (status 413)").wait_for()


def test_after_429_the_page_waits_as_told(open_page: Open, url: str, samples: Path) -> None:
    page = open_page("about:blank")
    page.clock.install()
    page.goto(url)
    answers = [429]
    sent: list[str] = []

    def answer(route: Any) -> None:
        sent.append(route.request.method)
        if answers:
            body = json.dumps({"type": "/problems/overloaded", "title": "Overloaded", "status": 429, "detail": "Full."})
            route.fulfill(
                status=answers.pop(), body=body, headers={"Retry-After": "7"}, content_type="application/problem+json"
            )
        else:
            route.continue_()

    page.route("**/predict", answer)
    photo = (samples / "tulips.jpg").read_bytes()
    page.clock.pause_at(page.evaluate("Date.now()") + 1000)
    upload(page, ("mine.jpg", photo))
    page.get_by_text("The service is busy. It is asked again in 7 s.").wait_for()
    upload(page, ("other.jpg", photo))
    page.clock.run_for(6900)
    assert len(sent) == 1, "the next image waits, too"
    page.clock.run_for(200)
    page.clock.resume()
    assert read_labels(page, 2) == ["tulips"] * 2


def test_keys_are_asked_for_and_kept_from_sight(open_page: Open, guarded_url: str, samples: Path) -> None:
    page = open_page(guarded_url)
    field = page.get_by_label("API key", exact=True)
    field.wait_for()
    before = page.locator("body").inner_text()
    assert not [word for word in ("flower", "tulips", "version 9") if word in before]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    field.fill("a-wrong-key")
    page.get_by_role("button", name="Use the key").click()
    page.get_by_text("This key was refused. Enter another one.").wait_for()
    assert page.locator("#model").inner_text() == "Image classification"
    field.fill("kein Schlüssel")
    page.get_by_role("button", name="Use the key").click()
    page.get_by_text("A key has letters, digits and signs").wait_for()
    upload(page, ("early.jpg", (samples / "daisy.jpg").read_bytes()))
    page.locator(".problem strong", has_text="The API key is missing or wrong").wait_for()
    field.fill(KEY)
    field.press("Enter")
    page.locator(".best").wait_for()  # what was refused is sent again
    assert read_labels(page) == ["daisy"]
    assert page.locator("#model").inner_text() == "flowers, version 9"
    assert page.get_by_role("tabpanel").inner_text().strip() == (
        f"curl -F file=@photo.jpg -H \"X-API-Key: $FLOWERS_API_KEY\" '{guarded_url}predict'"
    )
    assert "FLOWERS_API_KEY" in page.evaluate("document.body.innerHTML")
    assert KEY not in page.content()
    assert not [address for address in asked if KEY in address]
    assert page.evaluate("[Object.values(sessionStorage), Object.values(localStorage), document.cookie]") == [
        [KEY], [], ""
    ]  # fmt: skip
    page.reload()
    page.get_by_role("button", name="Try the sample tulips").wait_for()
    page.get_by_role("button", name="Forget the key").click()
    field.wait_for()
    assert page.evaluate("sessionStorage.length") == 0


def test_an_empty_store_is_said_until_a_version_comes(open_page: Open, tmp_path: Path) -> None:
    store = tmp_path / "model_store"
    store.mkdir()
    with served(store, "--device", "cpu", "--reload-interval-s", "0.2") as service:
        page = open_page(f"{service.url}/")
        banner = page.get_by_role("alert").filter(has_text="No model is ready")
        banner.wait_for()
        assert "model_store" in banner.inner_text(), "it says where to put a version"
        shutil.copytree(REPOSITORY / "model_store" / "flowers", store / "copy")
        (store / "copy").rename(store / "flowers")
        service.wait_for("model loaded")
        page.get_by_role("button", name="Try the sample tulips").wait_for()
        assert not banner.is_visible()


def test_a_lost_network_is_said_and_comes_back(open_page: Open, url: str, samples: Path) -> None:
    page = open_page(url)
    page.get_by_role("button", name="Try the sample tulips").wait_for()
    page.context.set_offline(True)
    upload(page, ("mine.jpg", (samples / "tulips.jpg").read_bytes()))
    page.locator(".problem strong", has_text="The service cannot be reached").wait_for()
    page.locator("#banner", has_text="The service cannot be reached").wait_for()
    page.context.set_offline(False)
    page.locator("#banner").wait_for(state="hidden")
    page.get_by_role("button", name="Try again").click()
    assert read_labels(page) == ["tulips"]


@pytest.mark.parametrize("path", ["bare", "bare/", "kept", "kept/", "silent/"])
def test_the_page_works_behind_a_prefix(open_page: Open, proxy_url: str, path: str) -> None:
    page = open_page(proxy_url + path)
    page.get_by_role("button", name="Try the sample tulips").click()
    labels = read_labels(page)
    assert labels == ["tulips"], page.locator(".problem").all_inner_texts()
    folder = f"{proxy_url}{path.rstrip('/')}/"
    assert page.url == folder
    assert f"'{folder}predict'" in page.get_by_role("tabpanel").inner_text()
