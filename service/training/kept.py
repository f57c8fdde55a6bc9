"""What an interrupted training keeps in its run folder."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from service.errors import TrainingError
from service.files import write_whole
from service.training.checkpoint import load_checkpoint, unfit_file
from service.training.lesson import LESSON_FILE, TEACHER_FILE
from service.training.run import Run

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class Kept:
    """Kept work of one network: epochs of its teacher, views that are answered, whether all are, and own epochs."""

    teacher_epochs: int = 0
    views: int = 0
    is_taught: bool = False
    epochs: int = 0


def find_kept(run: Run) -> Kept:
    """Find the kept work of one network. A damaged file counts as none. The training names it."""
    is_taught, views = (run.folder / LESSON_FILE).exists(), len(list(run.folder.glob("lesson-*.npz")))
    return Kept(_num_epochs(run.folder / TEACHER_FILE), views, is_taught, _num_epochs(run.checkpoint))


def describe_kept(run: Run) -> str:
    """Return sentences on the kept work of all networks of a run, and on how to go on."""
    networks = [("", run), *((path.name, run.sub(path.name)) for path in sorted(run.folder.glob("*/")))]
    found = [text for name, network in networks if (text := _describe(find_kept(network), name))]
    if any(run.folder.glob("features/*/*.npz")):
        found.insert(0, "the features so far")
    if not found:
        return f"{run.folder} keeps no finished step yet. The same command begins anew."
    return f"{run.folder} keeps {', '.join(found)}. The same command goes on."


def _describe(kept: Kept, network: str) -> str:
    parts = []
    if kept.is_taught:
        parts.append("the teacher's answers")
    elif kept.views:
        parts.append(f"the teacher and its answers to {_count(kept.views, 'view')}")
    elif kept.teacher_epochs:
        parts.append(f"{_count(kept.teacher_epochs, 'epoch')} of the teacher")
    if kept.epochs:
        parts.append(f"{_count(kept.epochs, 'epoch')} of the network")
    return " and ".join(parts) + (f" ({network})" if network and parts else "")


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}{'' if number == 1 else 's'}"


def _num_epochs(path: Path) -> int:
    try:
        saved = load_checkpoint(path)
    except TrainingError:
        return 0
    return saved.num_done if saved else 0


def write_choice(folder: Path, choice: Mapping[str, float]) -> None:
    """Keep what a budget has chosen, names to numbers, in a run folder. Raises `TrainingError`."""
    path = folder / PLAN_FILE
    try:
        write_whole(path, json.dumps(choice).encode() + b"\n")
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror}. Make room.") from error


def read_choice(folder: Path) -> dict[str, float] | None:
    """Return what `write_choice` wrote, or None without a file. Raises `TrainingError` for another content."""
    path = folder / PLAN_FILE
    try:
        return {str(name): float(number) for name, number in json.loads(path.read_bytes()).items()}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise unfit_file(path) from error
