"""Screenshots of the page in `docs/images/`: `make screenshots`. They need Chromium and `requirements/browser.txt`.

The shipped model is served on a free port, and answers for one of the samples.
"""

import re
import shutil
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
SERVE = ("serve", "--port", "0", "--workers", "1", "--device", "cpu", "--log-format", "json")
SHOTS: dict[str, dict[str, Any]] = {
    "page-light": {"viewport": {"width": 1280, "height": 1300}, "color_scheme": "light"},
    "page-dark": {"viewport": {"width": 1280, "height": 1300}, "color_scheme": "dark"},
    "page-phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True},
}


def take(browser: Any, url: str, options: dict[str, Any]) -> Image.Image:
    """Return a screenshot of one screen, with the sample of the tulips classified."""
    context = browser.new_context(**options, device_scale_factor=1.25, reduced_motion="reduce")
    page = context.new_page()
    page.goto(url)
    page.get_by_role("button", name="Try the sample tulips").click()
    page.locator(".best").wait_for()
    page.locator(".view figcaption", has_text="pixels").wait_for()
    page.evaluate("document.activeElement.blur()")
    page.evaluate(f"document.querySelector('{'#results' if options.get('is_mobile') else 'body'}').scrollIntoView()")
    screenshot = Image.open(BytesIO(page.screenshot())).convert("RGB")
    context.close()
    return screenshot


def main() -> None:
    """Write every screenshot as WebP."""
    IMAGES.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "service", *SERVE, "--model-store", str(ROOT / "model_store")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - our own program
        try:
            log = "".join(read_until(process, "model loaded"))
            (url,) = re.findall(r'"url": ?"([^"]+)"', log)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(
                    executable_path=shutil.which("chromium") or "chromium", args=["--no-sandbox"]
                )
                for name, options in SHOTS.items():
                    take(browser, f"{url}/", options).save(IMAGES / f"{name}.webp", quality=82, method=6)
                browser.close()
        finally:
            process.terminate()


def read_until(process: "subprocess.Popen[str]", event: str) -> list[str]:
    """Return the lines of the log up to an event."""
    lines = []
    for line in process.stderr or ():
        lines.append(line)
        if f'"{event}"' in line:
            return lines
    raise RuntimeError("".join(lines))


if __name__ == "__main__":
    main()
