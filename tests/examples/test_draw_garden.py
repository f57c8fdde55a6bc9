"""The drawn folder. `tests/test_end_to_end.py` trains on it."""

import subprocess
import sys
from pathlib import Path

from conftest import REPOSITORY

SCRIPT = REPOSITORY / "examples" / "draw_garden.py"


def draw(folder: Path, photographs_per_class: int) -> None:
    subprocess.run([sys.executable, str(SCRIPT), str(folder), str(photographs_per_class)], check=True)


def test_the_garden_has_class_folders_with_photographs(tmp_path: Path) -> None:
    draw(tmp_path / "my_garden", 4)
    counts = {folder.name: len(list(folder.glob("*.jpg"))) for folder in (tmp_path / "my_garden").iterdir()}
    assert counts == {"bluebell": 4, "poppy": 4, "primrose": 4}
