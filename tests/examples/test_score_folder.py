"""The example with this project's client, against a scripted service."""

import csv
import os
import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY
from support.predictions import prediction, problem
from support.scripted_server import scripted_server


def test_the_example_prints_a_line_for_each_photograph(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "bad.jpg"):
        (tmp_path / name).write_bytes(name.encode())

    async def answer(number: int) -> bytes:
        return problem(422, "invalid-image") if b"bad.jpg" in server.bodies[number] else prediction()

    with scripted_server(answer) as server:
        process = subprocess.run(
            [sys.executable, str(REPOSITORY / "examples" / "score_folder.py"), str(tmp_path)],
            env={**os.environ, "SERVICE_URL": f"http://127.0.0.1:{server.port}", "SERVICE_KEY": "garden"},
            capture_output=True,
            text=True,
            check=False,
        )
    header, *rows = csv.reader(process.stdout.splitlines())
    assert header == ["file", "label", "probability", "confident", "reason"]
    assert rows == [[str(tmp_path / name), "roses", "0.9", "True", ""] for name in ("a.jpg", "b.jpg")]
    assert process.stderr == f"{tmp_path / 'bad.jpg'}: It is invalid-image.\n"
    assert process.returncode == 1
    assert all("x-api-key: garden\r\n" in head for head in server.heads)
