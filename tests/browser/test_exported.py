"""The exported ONNX file in real Chromium, with onnxruntime-web and the line that `flowers export` prints."""

import http.server
import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import PIL.Image
import pytest
from conftest import REPOSITORY
from support import programs

from service.cli.main import main

pytestmark = pytest.mark.browser

# The canvas gives four channels a pixel. `LINE` is the printed one.
SCRIPT = """
async () => {
  ort.env.wasm.numThreads = 1;
  const bitmap = await createImageBitmap(await (await fetch("photo.png")).blob());
  const {width, height} = bitmap;
  const context = new OffscreenCanvas(width, height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, width, height).data;
  const rgb = Uint8Array.from({length: 3 * width * height}, (_, i) => rgba[4 * Math.floor(i / 3) + i % 3]);
  return Array.from(LINE);
}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the library, a photograph without losses, and a page that loads the library."""
    folder = tmp_path_factory.mktemp("site")
    npm = programs.require("npm", "npm")
    for file in (REPOSITORY / ".ci" / "onnxruntime-web").iterdir():
        shutil.copy(file, folder)
    subprocess.run([npm, "ci", "--silent", "--ignore-scripts", "--prefix", str(folder)], check=True)
    (folder / "index.html").write_text('<script src="node_modules/onnxruntime-web/dist/ort.wasm.min.js"></script>')
    sample = REPOSITORY / "service" / "api" / "page" / "samples" / "tulips.jpg"
    PIL.Image.open(sample).convert("RGB").save(folder / "photo.png")
    return folder


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def guess_type(self, path: Any) -> str:
            return "text/javascript" if str(path).endswith(".mjs") else super().guess_type(path)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=site))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_printed_line_of_javascript_runs_in_chromium(
    open_page: Callable[..., Any], site: Path, address: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(site)
    assert main(["export", "--to", "onnx", "--json", "--model-store", str(REPOSITORY / "model_store")]) == 0
    document = json.loads(capsys.readouterr().out)
    found = open_page(address).evaluate(SCRIPT.replace("LINE", document["use"]["JavaScript"]))
    photograph = np.asarray(PIL.Image.open("photo.png"))
    (expected,) = onnxruntime.InferenceSession(document["file"]).run(["probabilities"], {"image": photograph})
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert document["class_names"][np.argmax(found)] == "tulips"
