"""A client in TypeScript whose types are generated from the live document, with and without keys."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.drawing import draw_photograph, encode
from support.pages import read_block
from support.programs import require, require_environment

pytestmark = pytest.mark.clients

PHOTO = encode(draw_photograph(3, seed=300))
PAGE, HEADING = "guides/openapi.md", "A client in TypeScript"
COMPILE = ["--strict", "--noUncheckedIndexedAccess", "--target", "es2022", "--module", "nodenext", "--outDir", "out"]


def test_a_generated_client_compiles_and_classifies(service: Any, tmp_path: Path) -> None:
    environment = Path(require_environment("typescript"))
    node = require("node", "nodejs")
    for name in ("package.json", "ask.ts"):
        shutil.copy(environment / name, tmp_path)
    (tmp_path / "node_modules").symlink_to(environment / "node_modules")
    (tmp_path / "generate.mjs").write_text(read_block(PAGE, HEADING, "js"))
    (tmp_path / "classify.ts").write_text(read_block(PAGE, HEADING, "ts"))
    (tmp_path / "photo.jpg").write_bytes(PHOTO)

    def run(*command: str) -> str:
        variables = {**os.environ, "NODE_OPTIONS": ""}
        process = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    run(node, "generate.mjs", f"{service.url}/openapi.json")
    run(node, "node_modules/typescript/bin/tsc", *COMPILE, "classify.ts", "ask.ts")
    answer = json.loads(run(node, "out/ask.js", service.url, "photo.jpg", service.key))

    headers = {"X-API-Key": service.key} if service.key else {}
    expected = httpx.post(f"{service.url}/predict", content=PHOTO, headers=headers).json()["predictions"]
    assert [answer[form]["predictions"] for form in ("form", "raw", "json")] == [expected[:3], expected, expected[:3]]
    assert answer["explained"]["label"] == expected[0]["label"]
    assert answer["explained"]["drop"] > 0
    assert answer["refused"].startswith("Unsupported image format. The file is not an image")
