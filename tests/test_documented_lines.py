"""The lines of the documents for a batch, run as they stand against the shipped model."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode
from support.serving import served

PAGE = REPOSITORY / "docs" / "reference" / "http.md"
SECTION = PAGE.read_text(encoding="utf-8").partition("## Classify many images")[2].partition("\n## ")[0]
PROGRAMS = {"sh": ["bash", "-euc"], "python": [sys.executable, "-c"], "js": ["node", "--input-type=module", "-e"]}
NEEDS = {"sh": "curl", "js": "node"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(REPOSITORY / "model_store", "--device", "cpu") as service:
        service.wait_for("model loaded")
        yield service.url


def run(language: str, url: str, folder: Path) -> str:
    """What the lines of this language print. One of the two photographs is none."""
    if (tool := NEEDS.get(language)) and shutil.which(tool) is None:
        pytest.skip(f"no {tool} here")
    (folder / "tulip.jpg").write_bytes(encode(draw_photograph(4, seed=301)))
    (folder / "rose.jpg").write_text("no image")
    [lines] = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    lines = lines.replace("localhost:8000", url.removeprefix("http://"))
    command = [*PROGRAMS[language], lines]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=True).stdout


def test_the_documented_curl_line_answers_each_image(url: str, tmp_path: Path) -> None:
    first, second = json.loads(run("sh", url, tmp_path))["results"]
    assert len(first["predictions"]) == 2
    assert second["problem"]["type"] == "/problems/unsupported-image-format"


@pytest.mark.parametrize("language", ["python", "js"])
def test_documented_clients_print_labels_and_problems(url: str, tmp_path: Path, language: str) -> None:
    first, second = run(language, url, tmp_path).splitlines()
    assert first in {"daisy", "dandelion", "roses", "sunflowers", "tulips"}
    assert second.startswith("The file is not an image")
