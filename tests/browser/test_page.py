"""The page in real Chromium: images in, answers out."""

import base64
import csv
import io
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from support.browsing import read_labels, upload
from support.drawing import CLASS_NAMES

pytestmark = pytest.mark.browser
Open = Callable[..., Any]

DROP = """([event, files]) => {
  const transfer = new DataTransfer();
  for (const [name, data] of files) {
    transfer.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], name, { type: "image/jpeg" }));
  }
  const options = { bubbles: true, cancelable: true };
  document.body.dispatchEvent(event === "paste"
    ? new ClipboardEvent(event, { ...options, clipboardData: transfer })
    : new DragEvent(event, { ...options, dataTransfer: transfer }));
}"""


def test_an_uploaded_image_gets_the_service_s_scores(open_page: Open, url: str, samples: Path) -> None:
    photo = (samples / "tulips.jpg").read_bytes()
    page = open_page(url)
    upload(page, ("mine.jpg", photo))
    assert read_labels(page) == ["tulips"]
    answer = httpx.post(f"{url}predict", content=photo).json()
    meters = page.get_by_role("meter")
    assert meters.count() == len(CLASS_NAMES)
    shown = [(meter.get_attribute("aria-label"), float(meter.get_attribute("aria-valuenow"))) for meter in meters.all()]
    assert [label for label, _ in shown] == [score["label"] for score in answer["predictions"]]
    assert [value for _, value in shown] == pytest.approx([s["probability"] for s in answer["predictions"]], abs=1e-5)
    facts = page.locator(".card .facts").inner_text()
    assert f"flowers, version {answer['model']['version']} · onnxruntime on cpu" in facts
    assert all(stage in facts for stage in ("decode", "queue", "infer", "ms in all"))
    page.locator("#status", has_text="mine.jpg: tulips, ").wait_for(state="attached")


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_dropped_and_pasted_images_are_scored(open_page: Open, url: str, samples: Path, event: str) -> None:
    page = open_page(url)
    data = base64.b64encode((samples / "roses.jpg").read_bytes()).decode()
    page.evaluate(DROP, [event, [["rose.jpg", data]]])
    assert read_labels(page) == ["roses"]


def test_a_drop_without_files_is_explained(open_page: Open, url: str) -> None:
    page = open_page(url)
    page.evaluate(DROP, ["drop", []])
    page.get_by_text("There was no file.").wait_for()


def test_the_camera_takes_a_photograph(open_page: Open, url: str) -> None:
    page = open_page(url)
    page.get_by_role("button", name="Use camera").click()
    page.get_by_role("button", name="Take the photograph").click()
    assert len(read_labels(page)) == 1
    assert not page.locator("dialog").is_visible()


def test_a_phone_opens_its_own_camera(open_page: Open, url: str) -> None:
    page = open_page(url, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    with page.expect_file_chooser() as choosing:
        page.get_by_role("button", name="Use camera").click()
    assert choosing.value.element.get_attribute("capture") == "environment"


def test_samples_are_credited_and_recognised(open_page: Open, url: str) -> None:
    page = open_page(url)
    buttons = page.get_by_role("button", name="Try the sample")
    buttons.first.wait_for()
    for number, label in enumerate(CLASS_NAMES):
        buttons.nth(number).click()
        assert read_labels(page, number + 1)[0] == label
    captions = page.locator("figcaption", has_text="CC BY 2.0, changed")
    assert captions.count() == len(CLASS_NAMES)
    assert captions.first.get_by_role("link").get_attribute("href").startswith("https://www.flickr.com/photos/")


def test_many_files_become_a_gallery_and_a_csv(open_page: Open, url: str, samples: Path) -> None:
    photo = (samples / "daisy.jpg").read_bytes()
    names = ["=1+1.jpg", "+a.jpg", "-b.jpg", "@c.jpg", "\td.jpg", 'with "quotes", and comma.jpg', *map(str, range(14))]
    page = open_page(url)
    active, most = set(), 0

    def begin(request: Any) -> None:
        nonlocal most
        if request.url.endswith("/predict"):
            active.add(request)
            most = max(most, len(active))

    page.on("request", begin)
    page.on("requestfinished", lambda request: active.discard(request))
    upload(page, *((name, photo) for name in names), ("broken.jpg", photo[:5000]))
    assert read_labels(page, len(names) + 1) == ["daisy"] * len(names)
    assert most == 4
    page.locator("#progress", has_text="21 of 21 done, 1 with a problem").wait_for()
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Download CSV").click()
    text = Path(downloading.value.path()).read_bytes().decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""))
    assert header == ["file", "label", "probability", "confident", "reason", "problem"]
    assert [row[0] for row in rows] == [*(f"'{name}" for name in names[:5]), *names[5:], "broken.jpg"]
    assert rows[0][1] == "daisy"
    assert 0.9 < float(rows[0][2]) <= 1
    assert rows[0][3:] == ["true", "", ""]
    assert rows[-1][1:] == ["", "", "", "", "invalid-image"]
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".card").count() == 0


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        ("low-probability", "No class is probable enough."),
        ("unlike-training", "The photograph is unlike those that the model has learned from."),
    ],
)
def test_a_doubtful_answer_says_why(
    open_page: Open, url: str, samples: Path, reason: str, sentence: str
) -> None:  # fmt: skip
    """Between two samples, of which one lies on its side, are images that the model is not sure of."""
    for data in mixed(samples):
        if httpx.post(f"{url}predict", content=data).json().get("reason") == reason:
            break
    else:
        pytest.fail("the model is sure of each of them: mix others")
    page = open_page(url)
    upload(page, ("mixed.png", data))
    page.get_by_text(f"Not confident. {sentence}").wait_for()


def mixed(samples: Path) -> Iterator[bytes]:
    for paths in combinations(sorted(samples.glob("*.jpg")), 2):
        first, second = (Image.open(path).resize((320, 320)) for path in paths)
        for percent in range(36, 66, 2):
            file = io.BytesIO()
            Image.blend(first, second.rotate(90), percent / 100).save(file, "PNG")
            yield file.getvalue()


def test_the_square_is_upright_and_centred(open_page: Open, url: str) -> None:
    """Red is left in the file, and up where its orientation is applied. Green lies outside of the centre square."""
    image = Image.new("RGB", (600, 300), (0, 255, 0))
    image.paste((255, 0, 0), (170, 0, 300, 300))
    image.paste((0, 0, 255), (300, 0, 430, 300))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it clockwise to see it upright
    file = io.BytesIO()
    image.save(file, "JPEG", exif=exif, quality=95)
    page = open_page(url)
    upload(page, ("turned.jpg", file.getvalue()))
    read_labels(page)
    page.get_by_text("As the model sees it, 224").wait_for()
    read = "(canvas, [x, y]) => [...canvas.getContext('2d').getImageData(x, y, 1, 1).data]"
    canvas = page.locator(".square canvas").first
    for point in ([112, 8], [4, 60], [219, 100]):
        assert canvas.evaluate(read, point)[0] > 200, point
    for point in ([112, 215], [4, 160], [219, 130]):
        assert canvas.evaluate(read, point)[2] > 200, point


def test_a_tiff_is_scored_without_being_shown(open_page: Open, url: str, samples: Path) -> None:
    file = io.BytesIO()
    Image.open(samples / "sunflowers.jpg").save(file, "TIFF")
    page = open_page(url)
    upload(page, ("scan.tif", file.getvalue()))
    assert read_labels(page) == ["sunflowers"]
    page.get_by_text("This browser cannot show the file.").wait_for()


def test_names_and_labels_are_shown_as_text(open_page: Open, url: str, samples: Path) -> None:
    hostile = "<img src=x onerror=document.title='taken'>"
    page = open_page(url)

    def rename(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=response.text().replace('"tulips"', f'"{hostile}"'))

    page.route("**/predict", rename)
    upload(page, (f"{hostile}.jpg", (samples / "tulips.jpg").read_bytes()))
    assert read_labels(page) == [hostile]
    assert page.locator(".file").inner_text() == f"{hostile}.jpg"
    assert page.locator(".answer img").count() == 0
    assert page.title() != "taken"


def test_own_classes_are_named_and_get_no_samples(open_page: Open, url: str) -> None:
    page = open_page("about:blank")

    def rename(route: Any) -> None:
        response = route.fetch()
        text = response.text().replace("sunflowers", "nettles").replace('"flowers"', '"garden"')
        route.fulfill(response=response, body=text)

    page.route("**/models", rename)
    page.route("**/models/garden", lambda route: rename_of(route, rename))
    page.goto(url)
    page.get_by_text("nettles").wait_for()
    assert not page.locator("#samples").is_visible()
    assert "flower" not in page.locator("body").inner_text().lower()


def rename_of(route: Any, rename: Callable[[Any], None]) -> None:
    """Ask for the model by the name that the service knows."""
    original = route.fetch
    route.fetch = lambda: original(url=route.request.url.replace("garden", "flowers"))
    rename(route)


def test_lines_to_copy_reach_the_clipboard(open_page: Open, url: str) -> None:
    page = open_page(url, permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("tab", name="curl").focus()
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("tab", name="Python").get_attribute("aria-selected") == "true"
    page.keyboard.press("ArrowLeft")
    page.get_by_role("button", name="Copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == f"curl -F file=@photo.jpg '{url}predict'"


def test_the_heat_map_lies_over_the_square(open_page: Open, url: str, samples: Path) -> None:
    explains = httpx.get(f"{url}models").json().get("explanations", False)
    page = open_page(url)
    upload(page, ("mine.jpg", (samples / "tulips.jpg").read_bytes()))
    assert read_labels(page) == ["tulips"]
    button = page.get_by_role("button", name="Show the heat map")
    assert button.count() == int(explains)
    if not explains:
        pytest.skip("this service explains nothing: the button is not there")
    button.click()
    slider = page.get_by_role("slider", name="Heat map opacity")
    slider.wait_for()
    overlay = page.locator("canvas.overlay")
    read = "(canvas) => canvas.getContext('2d').getImageData(0, 0, 224, 224).data.filter((_, i) => i % 4 === 3)"
    strongest = f"(canvas) => Math.max(...({read})(canvas))"
    assert overlay.evaluate(strongest) > 100
    for value in ("0", "80"):
        slider.fill(value)
        assert float(overlay.evaluate("(canvas) => getComputedStyle(canvas).opacity")) == float(value) / 100


def test_the_page_says_what_confident_is_worth(open_page: Open, url: str) -> None:
    sources = httpx.get(f"{url}models/flowers").json()["card"]["confidence"]["none_of_these"]
    counts = [sum(source[name] for source in sources) for name in ("num_images", "num_confident")]
    page = open_page(url)
    page.get_by_text("Of {} photographs of something else, it was confident about {}.".format(*counts)).wait_for()
    assert counts[0] > 100
