"""The training image's entry point, run by root and by another user."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

SCRIPT = (REPOSITORY / "docker" / "as_owner.py").read_text(encoding="utf-8")
OWNER = (4321, 4322)


def run(program: str, store: Path, *command: str, extra_groups: list[int] | None = None) -> list[str]:
    """Words that the command prints. The script comes as text, since another user may not read this folder."""
    process = subprocess.run(
        [sys.executable, "-I", "-c", program, *command],
        env={**os.environ, "FLOWERS_MODEL_STORE": str(store)},
        capture_output=True,
        text=True,
        check=True,
        extra_groups=extra_groups,
    )
    return process.stdout.split()


def test_root_becomes_the_owner_and_keeps_no_group(tmp_path: Path) -> None:
    os.chown(tmp_path, *OWNER)
    assert run(SCRIPT, tmp_path, "id", "-u") == ["4321"]
    assert run(SCRIPT, tmp_path, "id", "-G", extra_groups=[0, 4323]) == ["4322"]


def test_any_other_user_stays_itself(tmp_path: Path) -> None:
    os.chown(tmp_path, *OWNER)
    become_another = "import os, pathlib\nos.setgid(4324)\nos.setuid(4324)\n"
    assert run(become_another + SCRIPT, tmp_path, "id", "-u") == ["4324"]
