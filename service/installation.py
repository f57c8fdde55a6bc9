"""Command that installs missing libraries, with the project's own Makefile."""

import shlex
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_TARGET = "install-training"


def install_command(extra: str = "", *, root: Path = _ROOT, prefix: str = sys.prefix) -> str:
    """Return the command for the current folder that installs what training needs.

    Args:
        extra: "train" or "gpu". Without it the Makefile looks for a GPU.
        root: Folder of the project's source. Without one, as in a container, the command takes the right image.
        prefix: Folder of this Python's environment.
    """
    if not (root / "Makefile").is_file():
        return "docker compose up flowers" if extra == "gpu" else "docker compose run --rm train"
    words = ["make"]
    if Path.cwd() != root:
        words.append(f"-C {shlex.quote(str(root))}")
    words.append(_TARGET)
    if extra:
        words.append(f"TRAIN_WITH={extra}")
    if prefix != sys.base_prefix and Path(prefix).resolve() != (root / ".venv").resolve():
        words.append(f"VENV={shlex.quote(prefix)}")
    return " ".join(words)
