"""The drawn folder, as the training takes it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

SCRIPT = REPOSITORY / "examples" / "draw_garden.py"


def draw(folder: Path, photographs_per_class: int) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(folder), str(photographs_per_class)], check=True)


def test_the_garden_has_class_folders_with_photographs(tmp_path: Path) -> None:
    draw(tmp_path / "my_garden", 4)
    counts = {folder.name: len(list(folder.glob("*.jpg"))) for folder in (tmp_path / "my_garden").iterdir()}
    assert counts == {"bluebell": 4, "poppy": 4, "primrose": 4}


@pytest.mark.long
def test_a_model_of_the_garden_is_trained(tmp_path: Path) -> None:
    draw(tmp_path / "my_garden", 12)
    options = ("--epochs", "1", "--teacher", "none", "--device", "cpu", "--json")
    command = [sys.executable, "-m", "service", "train", str(tmp_path / "my_garden"), *options]
    places = ("--model-store", str(tmp_path / "store"), "--runs", str(tmp_path / "runs"))
    process = subprocess.run([*command, *places], stdout=subprocess.PIPE, text=True, check=True)
    (result,) = json.loads(process.stdout)
    assert (result["model"], result["version"]) == ("my_garden", 1)
