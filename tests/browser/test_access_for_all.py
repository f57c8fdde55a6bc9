"""The page for everybody: small and large, light and dark, by keyboard alone, by screen reader."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.browsing import read_labels, upload

pytestmark = pytest.mark.browser
Open = Callable[..., Any]


def find_faults(page: Any) -> list[str]:
    """Findings of axe-core, with their elements."""
    from axe_playwright_python.sync_playwright import Axe  # here, as only .ci/browser installs it

    found = Axe().run(page).response["violations"]
    return [f"{fault['id']}: {node['html']}" for fault in found for node in fault["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_at_any_size_or_scheme(
    open_page: Open, url: str, guarded_url: str, samples: Path, width: int, scheme: str
) -> None:
    options = {"viewport": {"width": width, "height": 844}, "color_scheme": scheme, "reduced_motion": "reduce"}
    page = open_page(url, **options)
    page.get_by_role("button", name="Try the sample tulips").wait_for()
    assert find_faults(page) == []
    photo = (samples / "daisy.jpg").read_bytes()
    upload(page, ("a-name-" + "of-many-letters" * 8 + ".jpg", photo), ("cut.jpg", photo[:5000]), ("b.jpg", photo))
    assert read_labels(page, 3) == ["daisy"] * 2
    page.locator(".problem").wait_for()
    assert find_faults(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") == width, "nothing is wider than the screen"
    page = open_page(guarded_url, **options)
    page.get_by_label("API key", exact=True).fill("wrong")
    page.keyboard.press("Enter")
    page.get_by_text("This key was refused").wait_for()
    assert find_faults(page) == []


def test_dark_is_dark_and_light_is_light(open_page: Open, url: str) -> None:
    read = "Math.max(...getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3))"
    assert open_page(url, color_scheme="dark").evaluate(read) < 60
    assert open_page(url, color_scheme="light").evaluate(read) > 200


def test_the_keyboard_alone_is_enough(open_page: Open, url: str) -> None:
    page = open_page(url)
    page.get_by_role("button", name="Try the sample daisy").wait_for()
    names, outlines = [], set()
    for _ in range(30):
        page.keyboard.press("Tab")
        names.append(page.evaluate("document.activeElement.ariaLabel || document.activeElement.textContent.trim()"))
        outlines.add(page.evaluate("getComputedStyle(document.activeElement).outlineStyle"))
        if names[-1] == "Try the sample daisy":
            break
    assert names[:2] == ["Choose files", "Use camera"]
    assert outlines == {"solid"}
    page.keyboard.press("Enter")
    assert read_labels(page) == ["daisy"]
    page.locator("#status", has_text="daisy.jpg: daisy, ").wait_for(state="attached")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "clear":
            break
    page.keyboard.press("Space")
    assert page.locator(".card").count() == 0
    assert page.evaluate("document.activeElement.id") == "choose", "the focus is not lost"


def test_the_camera_closes_by_escape(open_page: Open, url: str) -> None:
    page = open_page(url)
    page.get_by_role("button", name="Use camera").click()
    page.get_by_role("dialog", name="Camera").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="hidden")
    camera = "document.getElementById('viewfinder').srcObject"
    page.evaluate(f"async () => {{ while ({camera}) await new Promise(requestAnimationFrame); }}")
    assert page.evaluate("document.activeElement.id") == "photograph"


def test_waiting_shows_a_skeleton_that_can_rest(open_page: Open, url: str, samples: Path) -> None:
    page = open_page(url, reduced_motion="reduce")
    held: list[Any] = []
    page.route("**/predict", lambda route: held.append(route))
    upload(page, ("mine.jpg", (samples / "tulips.jpg").read_bytes()))
    page.locator(".answer[aria-busy=true] .bone").first.wait_for()
    assert page.locator(".bone").first.evaluate("(bone) => getComputedStyle(bone).animationName") == "none"
    page.wait_for_timeout(0)
    held[0].continue_()
    assert read_labels(page) == ["tulips"]
    assert page.locator(".bone").count() == 0
