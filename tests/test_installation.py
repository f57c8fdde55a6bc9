"""The command that a message names, and what the Makefile does with it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

from service.installation import install_command

PHOTOGRAPHS = "my garden; $(echo no) 's"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The Makefile beside an environment in which all is installed, whose `flowers` says what it was asked."""
    folder = tmp_path / "checkout"
    binaries = folder / ".venv" / "bin"
    (folder / "requirements").mkdir(parents=True)
    binaries.mkdir(parents=True)
    (folder / "Makefile").write_bytes((REPOSITORY / "Makefile").read_bytes())
    (folder / "pyproject.toml").touch()
    for kind in ("cpu", "train", "gpu"):
        (folder / "requirements" / f"{kind}.txt").touch()
        (folder / ".venv" / f"with-{kind}").touch()
    for name in ("python", "flowers"):
        (binaries / name).write_text(f"#!/bin/sh\nprintf '{name}'; printf '|%s' \"$@\"\n", encoding="utf-8")
        (binaries / name).chmod(0o755)
    return folder


def make(folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("FOLDER", "MAKEFLAGS")}
    command = ["make", "-s", "SERVE_WITH=cpu", *arguments]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_one_command_trains_a_folder_whatever_its_name(checkout: Path) -> None:
    assert make(checkout, "train") == "flowers|train"
    assert make(checkout, "train", f"FOLDER={PHOTOGRAPHS.replace('$', '$$')}") == f"flowers|train|{PHOTOGRAPHS}"


def test_one_target_installs_what_training_needs_and_trains_nothing(checkout: Path) -> None:
    assert make(checkout, "install-training") == ""
    (checkout / ".venv" / "with-train").unlink()
    assert "requirements/train.txt" in make(checkout, "install-training")
    assert "install-training" in make(checkout, "help")


def test_the_command_is_the_shortest_that_works_here(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = str(checkout / ".venv")
    monkeypatch.chdir(checkout)
    assert install_command(root=checkout, prefix=own) == "make install-training"
    assert install_command("gpu", root=checkout, prefix=own) == "make install-training TRAIN_WITH=gpu"
    (checkout.parent / "link").symlink_to(checkout)
    assert install_command(root=checkout, prefix=f"{checkout.parent}/link/.venv") == "make install-training"
    assert install_command(root=checkout, prefix="/other") == "make install-training VENV=/other"
    assert install_command(root=checkout, prefix=sys.base_prefix) == "make install-training"
    monkeypatch.chdir("/")
    assert install_command(root=checkout, prefix=own) == f"make -C {checkout} install-training"


def test_names_with_spaces_stay_one_word_of_the_command(tmp_path: Path) -> None:
    root = tmp_path / "my checkout"
    root.mkdir()
    (root / "Makefile").touch()
    command = install_command(root=root, prefix="/my environment")
    assert shlex.split(command) == ["make", "-C", str(root), "install-training", "VENV=/my environment"]


def test_without_the_source_the_command_is_the_image_s(tmp_path: Path) -> None:
    assert install_command(root=tmp_path) == "docker compose run --rm train"
    assert install_command("gpu", root=tmp_path) == "docker compose up flowers"


def test_no_message_names_a_package_that_no_index_has() -> None:
    sources = [path for folder in ("service", "docs", "docker") for path in (REPOSITORY / folder).rglob("*")]
    for path in [*sources, REPOSITORY / "README.md", REPOSITORY / "Makefile"]:
        if path.suffix in (".py", ".md", ".yaml", "") and path.is_file():
            assert "flowers-service" not in path.read_text(encoding="utf-8"), path
