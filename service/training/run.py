"""Run folder of a training. One process locks it. It stays when the training is finished."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from service.data.dataset import Dataset
from service.data.split import split_to_json
from service.errors import TrainingError
from service.evaluation.folder import FolderEvaluation
from service.evaluation.html_report import Section, render_page, to_section, to_table
from service.evaluation.mistakes import list_worst
from service.files import digest_bytes
from service.store.versions import list_candidates, list_stored
from service.training.distributed import ALONE, Cluster
from service.training.plots import draw_curves
from service.training.recipe import Recipe, recipe_values
from service.training.trained_network import TrainedNetwork

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None  # type: ignore[assignment]

REPORT_FILE = "report.html"
_LOCK_FILE, _PUBLISHED_FILE, _RECIPE_FILE = "lock", "published.json", "recipe.json"


@dataclass(frozen=True)
class Run:
    """Run folder for a version of `model` in `store`.

    `device` is "cpu" or "gpu". `published` is what the finished training published, or None. `cluster` are the
    processes that train together. Its chief alone writes the folder.
    """

    folder: Path
    model: str
    store: Path
    device: str
    published: dict[str, Any] | None = None
    cluster: Cluster = ALONE

    @property
    def checkpoint(self) -> Path:
        """Path of the checkpoint."""
        return self.folder / "checkpoint.npz"

    @property
    def began_on(self) -> str:
        """Device that the training began on, perhaps on another machine."""
        try:
            return str(json.loads((self.folder / _RECIPE_FILE).read_bytes())["device"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return self.device

    def sub(self, name: str) -> "Run":
        """Return the folder of one of several networks of the run."""
        return replace(self, folder=self.folder / name)

    def make(self) -> None:
        """Make the folder if it is not there. Raises `TrainingError`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"the run folder {self.folder} cannot be made: {error.strerror}") from error

    def describe(self, recipe: Recipe, dataset: Dataset) -> None:
        """Write `recipe.json`, `data_check.json` and `split.json`. Raises `TrainingError`."""
        self._write(_RECIPE_FILE, {**recipe_values(recipe), "seed": dataset.seed, "device": self.began_on})
        set_aside = [asdict(finding) for finding in dataset.split.set_aside]
        self._write("data_check.json", {**dataset.check.to_dict(), "set_aside_by_the_split": set_aside})
        self._write("split.json", split_to_json(dataset.split))

    def finish(self, version: int, test: FolderEvaluation, trained: TrainedNetwork, dataset: Dataset) -> None:
        """Write `history.json`, `published.json` and `report.html`, in this order. Raises `TrainingError`."""
        figures = test.evaluation.to_dict()
        worst = list_worst(test.answers, dataset.class_names)
        published = {
            "model": self.model, "version": version, "finished": trained.is_finished, "test": figures,
            "mistakes": [{**asdict(mistake), "path": str(mistake.path)} for mistake in worst],
        }  # fmt: skip
        self._write("history.json", [asdict(epoch) for epoch in trained.history])
        self._write(_PUBLISHED_FILE, published)
        sizes = [(part, len(photographs)) for part, photographs in dataset.split.photographs.items()]
        findings = [(finding.sentence,) for finding in (*dataset.check.findings, *dataset.split.set_aside)]
        sections = [
            to_section("Training", draw_curves(trained.history)),
            Section("Recipe", to_table(list(trained.recipe_values.items()))),
            Section("Photographs", to_table(sizes, ("part", "photographs")) + to_table(findings, ("found",))),
        ]
        title = f"{self.model}, version {version}, on the test part"
        page = render_page(title, test.evaluation, test.answers, dataset.rule, dataset.limits, sections)
        self._write(REPORT_FILE, page)

    def _write(self, name: str, value: object) -> None:
        text = value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False) + "\n"
        try:
            (self.folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"{self.folder / name} cannot be written: {error.strerror}") from error


def name_run(model: str, recipe: Recipe, dataset: Dataset, device: str, minutes: float | None = None) -> str:
    """Return the name of the run folder, `<model>-<digest>` of everything that shapes the result.

    `minutes` are the budget of the command, or None. What fits into it is no part of the name. The device counts only
    where the recipe trains on each. Else another machine can go on with a run.
    """
    check = dataset.check
    # Where a class is split by sequence, its file names decide who is learned from. A split folder says it itself.
    names = [one.file for one in check.photographs if one.label in check.sequences]
    names += sorted(f"{one.part}/{one.pixels_digest}" for one in check.photographs if one.part)
    place = device if recipe.every_device else None
    values = [model, recipe_values(recipe), recipe.num_folds, dataset.seed, place, check.digest, *names]
    values += [f"{path.parent.name}/{path.name}" for path in dataset.outliers]
    values += [] if minutes is None else [{"minutes": minutes}]
    return f"{model}-{digest_bytes(json.dumps(values, sort_keys=True).encode())[:8]}"


@contextmanager
def open_run(
    runs: Path, name: str, *, model: str, store: Path, device: str, again: bool = False, cluster: Cluster = ALONE
) -> Iterator[Run]:
    """Lock the run folder that a training goes on in, and unlock it at the end. Of a cluster, the chief locks it.

    The first folder of this name without a finished training is taken. A second one is called `<name>-2`. Without one,
    the last finished training is returned, or a new folder made with `again`. A training whose version is no longer in
    the store counts as not done. The lock ends with its process.

    Raises:
        TrainingError: Another training holds the folder, or it cannot be made, read or written.
    """
    number, last = 1, None
    while True:
        run = Run(runs / (name if number == 1 else f"{name}-{number}"), model, store, device, cluster=cluster)
        published = _read_published(run.folder)
        if published is not None and published.get("finished", True):
            last = replace(run, published=published) if _is_in(store, published) else last
            number += 1
            continue
        if last is not None and not again and not run.folder.exists():
            yield last
            return
        with _locked(run) if cluster.is_chief else nullcontext():
            if _read_published(run.folder) != published:
                continue  # another training finished it meanwhile
            yield run
            return


def _is_in(store: Path, published: dict[str, Any]) -> bool:
    model = published["model"]
    there = (*list_stored(store, model), *list_candidates(store, model))
    return published["version"] in {stored.version for stored in there}


def _read_published(folder: Path) -> dict[str, Any] | None:
    path = folder / _PUBLISHED_FILE
    try:
        published = dict(json.loads(path.read_bytes()))
        return {**published, "model": str(published["model"]), "version": int(published["version"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise TrainingError(f"{path} cannot be read, or is damaged. Remove the folder to train it anew.") from error


@contextmanager
def _locked(run: Run) -> Iterator[None]:
    run.make()
    try:
        file = (run.folder / _LOCK_FILE).open("a+b")
    except OSError as error:
        raise TrainingError(f"the run folder {run.folder} cannot be written: {error.strerror}") from error
    with file:
        if fcntl is not None:
            _take_lock(file.fileno(), run.folder)
        yield


def _take_lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        process = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
        raise TrainingError(
            f"Another training{f' (process {process})' if process.isdigit() else ''} is at work in {folder}. "
            "Wait until it ends, or stop it and give this command again. Another --seed is another training."
        ) from error
    except OSError:  # a file system without locks
        return
    with suppress(OSError):  # a full disk: the number is only for the message
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
