"""Training on a folder whose decoded photographs do not fit into memory.

    python benchmarks/large_folder.py large SCRATCH
    python benchmarks/large_folder.py speed FOLDER

`large` draws 50,000 photographs, which take 13 GB as decoded. `flowers train` trains a network on them for an epoch,
with the recipe `default` without its teacher. It is killed a minute after it has built the network. The same command
goes on, and gets Ctrl-C when the second network of the recipe has begun. So it publishes the first one. Measured is the
most memory that was resident, from `/proc`, ten times a second. SCRATCH needs 16 GB, and is deleted at the end. Where
it is there already, its folder `photographs` is taken.

`speed` trains epochs on the photographs of FOLDER, once from memory and once from the cache, in turns. `views` are the
same epochs without a network. `cold` are views whose photographs the page cache does not hold at first. On a busy
machine the ratios of processor time say more than those of the clock.

The results go to `benchmarks/results/large_folder.json`.
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import service  # noqa: F401 - before Keras, whose files it keeps in the cache folder

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from machine import RESULTS, describe_machine
from PIL import Image

from service.data.batches import epoch_batches
from service.data.cache import PixelCache
from service.data.dataset import Dataset, open_dataset
from service.data.folder import read_folder
from service.data.views import Views
from service.imaging.limits import ImageLimits
from service.training.alexnet import build_learning
from service.training.augment import training_view
from service.training.recipe import AlexNetRecipe, find_recipe

CLASS_NAMES = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
KINDS = ("VmRSS", "RssAnon", "RssFile")
SIZE = (320, 240)  # width and height, which become 341 and 256
NOISE = np.random.default_rng(0).integers(0, 40, (SIZE[1] + 100, SIZE[0] + 100, 3), np.uint8)


def draw(path: Path) -> None:
    """Draw coloured patches under a part of the noise. The name of the file is the seed."""
    random = np.random.default_rng(int(path.stem))
    coarse = Image.fromarray(random.integers(0, 200, (6, 8, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
    top, left = random.integers(0, 100, 2)
    Image.fromarray(np.asarray(coarse) // 2 + NOISE[top : top + SIZE[1], left : left + SIZE[0]]).save(path, quality=75)


def draw_folder(folder: Path, number: int) -> None:
    """Draw a folder of five classes with `number` photographs in all."""
    for label in CLASS_NAMES:
        (folder / label).mkdir(parents=True)
    for seed in range(number):
        draw(folder / CLASS_NAMES[seed % len(CLASS_NAMES)] / f"{seed:06d}.jpg")


class Session:
    """One run of a command. It gets a signal some seconds after it has printed a phrase."""

    def __init__(self, command: list[str], log: Path, phrase: str, seconds: float, signal_number: int) -> None:
        began, was_sent = time.monotonic(), False
        due: float | None = None
        self.peaks, self.signal = dict.fromkeys(KINDS, 0), signal.Signals(signal_number).name
        self.learning_peaks = dict(self.peaks)
        with log.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
            while process.poll() is None:
                self._look(process.pid)
                said = log.read_text()
                if "calibrating" not in said:
                    self.learning_peaks = dict(self.peaks)
                if due is None and phrase in said:
                    due = time.monotonic() + seconds
                if due is not None and not was_sent and time.monotonic() > due:
                    process.send_signal(signal_number)
                    was_sent = True
                time.sleep(0.1)
        self.code, self.minutes = process.returncode, (time.monotonic() - began) / 60

    def _look(self, process: int) -> None:
        try:
            lines = Path(f"/proc/{process}/status").read_text().splitlines()
        except OSError:
            return
        fields = {name: value for name, _, value in (line.partition(":") for line in lines)}
        for kind in KINDS:
            self.peaks[kind] = max(self.peaks[kind], int(fields.get(kind, "0 kB").split()[0]) * 1024)

    def to_dict(self) -> dict[str, Any]:
        """Return the figures of the session."""
        return {
            "signal": self.signal, "minutes": round(self.minutes, 1), "peak_bytes": self.peaks,
            "peak_bytes_until_the_epoch_ends": self.learning_peaks,
        }  # fmt: skip


def train_large(scratch: Path, number: int) -> dict[str, Any]:
    """Draw a large folder and train on it. Kill the training once, and end it once."""
    if not scratch.exists():
        draw_folder(scratch / "photographs", number)
    command = [
        sys.executable, "-P", "-m", "service", "train", str(scratch / "photographs"), "--name", "large", "--json",
        "--recipe", "default", "--teacher", "none", "--epochs", "1", "--device", "cpu",
        "--runs", str(scratch / "runs"), "--cache", str(scratch / "cache"), "--model-store", str(scratch / "store"),
    ]  # fmt: skip
    first, second = scratch / "first.txt", scratch / "second.txt"
    # In the background a shell ignores Ctrl-C for all that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sessions = [
        Session(command, first, "building the network", 60, signal.SIGKILL),
        Session(command, second, "A second one now learns", 20, signal.SIGINT),
    ]
    print(first.read_text(), second.read_text(), sep="\n")
    assert [session.code for session in sessions] == [-signal.SIGKILL, 0]
    files = list((scratch / "cache" / "decoded").iterdir())
    result = {
        "num_photographs": number,
        "decoded_bytes": sum(file.stat().st_size for file in files),
        "sessions": [session.to_dict() for session in sessions],
        "peak_bytes": max(session.peaks["VmRSS"] for session in sessions),
    }
    shutil.rmtree(scratch)
    return result


def compare_speed(folder: Path, rounds: int, num_batches: int) -> dict[str, Any]:
    """Return images per second from memory and from the cache, and their ratios within a round.

    A ratio of 1 means as fast from the cache as from memory, or as little processor time.
    """
    recipe = find_recipe("default", teacher="none")
    assert isinstance(recipe, AlexNetRecipe)
    with tempfile.TemporaryDirectory() as scratch:
        cache = PixelCache(Path(scratch), 10**12, memory_bytes=0)
        cached = open_dataset(read_folder(folder), 0, ImageLimits(), cache=cache)
        datasets = {"cache": cached, "memory": Dataset(cached.check, cached.split, cached.limits)}
        photographs = {name: dataset.full_images("train") for name, dataset in datasets.items()}
        (file,) = Path(scratch).glob("*.pixels")
        labels = np.eye(5, dtype=np.float32)[photographs["memory"].class_indices]
        view = training_view(recipe.augmentation, cached.rule)
        views = {name: Views(pixels.images, view, 0) for name, pixels in photographs.items()}
        _, network = build_learning(recipe, 5, 0)
        network.compile(recipe.schedule.make_optimizer(), keras.losses.CategoricalCrossentropy(from_logits=True))
        batch_size = recipe.schedule.batch_size

        rates: dict[str, list[float]] = {}
        seconds: dict[str, list[float]] = {}

        def measure(what: str, name: str, epoch: int, *, is_trained: bool) -> None:
            begun, computed, done = time.perf_counter(), time.process_time(), 0
            batches = epoch_batches(views[name], batch_size=batch_size, epoch=epoch)
            for batch in itertools.islice(batches, num_batches):
                if is_trained:
                    network.train_on_batch(batch.images, labels[batch.photographs])
                done += len(batch.images)
            rates.setdefault(what, []).append(done / (time.perf_counter() - begun))
            batches.close()  # type: ignore[attr-defined]
            seconds.setdefault(what, []).append((time.process_time() - computed) / done)

        measure("warm-up", "memory", 0, is_trained=True)
        measure("warm-up", "cache", 0, is_trained=True)
        for epoch in range(rounds):
            for name in ("memory", "cache") if epoch % 2 else ("cache", "memory"):
                measure(f"training from {name}", name, epoch, is_trained=True)
                measure(f"views from {name}", name, epoch, is_trained=False)
            with file.open("rb") as opened:
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            measure("views from cold cache", "cache", epoch, is_trained=False)
    pairs = {
        "training": ("training from cache", "training from memory"),
        "views": ("views from cache", "views from memory"),
        "cold views": ("views from cold cache", "views from memory"),
    }
    ratios = {
        name: [mine / theirs for mine, theirs in zip(rates[ours], rates[other], strict=True)]
        for name, (ours, other) in pairs.items()
    }
    work = {
        name: [theirs / mine for mine, theirs in zip(seconds[ours], seconds[other], strict=True)]
        for name, (ours, other) in pairs.items()
    }
    return {
        "num_photographs": num_batches * batch_size,
        "images_per_s": {name: describe(values) for name, values in rates.items() if name != "warm-up"},
        "ratios": {name: describe(values, 3) for name, values in ratios.items()},
        "ratios_of_processor_time": {name: describe(values, 3) for name, values in work.items()},
        "load_average": os.getloadavg()[0],
    }


def describe(values: list[float], digits: int = 1) -> dict[str, Any]:
    """Return median, least and most of some values."""
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    return {**{name: round(value, digits) for name, value in figures.items()}, "rounds": len(values)}


def main() -> None:
    """Measure, print and write one of the two results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("large", "speed"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photographs", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--batches", type=int, default=35, help="in a round of each; 35 are an epoch of flower_photos")
    asked = parser.parse_args()
    if asked.what == "large":
        result = train_large(asked.folder, asked.photographs)
    else:
        result = compare_speed(asked.folder, asked.rounds, asked.batches)
    print(json.dumps(result, indent=1))
    path = RESULTS / "large_folder.json"
    before = json.loads(path.read_bytes()) if path.exists() else {}
    after = {**before, asked.what: {"machine": describe_machine(), **result}}
    path.write_text(json.dumps(after, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
