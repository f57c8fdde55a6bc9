"""Losses of a training by one, two and three processes, and its end after a kill.

    python benchmarks/distributed.py FOLDER

The processes are on this machine and speak over loopback. Each trains AlexNet v2 with batch normalisation on the same
photographs, with the same global batch and without dropout. The losses of several processes are compared with those of
one. Then a process of two is killed in the middle of an epoch, in a training with dropout. Both are started again. The
end is compared with that of a training that was not killed. The results go to `benchmarks/results/distributed.json`.

The cores are shared. So the seconds say what the exchange of gradients costs, and not what more machines gain.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import service  # noqa: F401 - before Keras, whose files it keeps in the cache folder

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from machine import RESULTS, describe_machine

from service.data.batches import load_full_images
from service.data.dataset import open_dataset
from service.data.folder import read_folder
from service.data.views import Views
from service.imaging.limits import ImageLimits
from service.training.alexnet import build_learning
from service.training.augment import training_view
from service.training.checkpoint import load_checkpoint
from service.training.distributed import open_cluster
from service.training.fit import fit
from service.training.observer import Observer
from service.training.recipe import AlexNetRecipe, Augmentation
from service.training.schedule import Schedule
from service.training.targets import LabelTargets

NUM_PHOTOGRAPHS, NUM_EPOCHS, BATCH_SIZE, KILLED_AT = 192, 3, 48, (1, 2)


class _Speaker(Observer):
    """Says each step, and waits where it is to be killed."""

    def __init__(self, *, waits: bool) -> None:
        self._waits = waits

    def step(self, epoch: int, step: int, *_: float) -> None:
        if self._waits and (epoch, step) == KILLED_AT:
            print("waiting", flush=True)
            sys.stdin.read()


def train(folder: Path, checkpoint: Path, dropout: float, *, waits: bool) -> None:
    """Train as one process of the cluster that TF_CONFIG describes."""
    schedule = Schedule(NUM_EPOCHS, BATCH_SIZE, learning_rate=2e-4, weight_decay=0.05)
    augmentation = Augmentation(min_area=0.5)
    recipe = AlexNetRecipe(
        "distributed", "alexnet_v2", schedule, batch_norm=True, dropout=dropout, augmentation=augmentation,
        precision="float32",
    )  # fmt: skip
    cluster = open_cluster(os.environ.get("TF_CONFIG"), recipe, device="cpu")
    dataset = open_dataset(read_folder(folder), 0, ImageLimits())
    listed = dataset.split.photographs["train"]
    chosen = [listed[index] for index in np.linspace(0, len(listed) - 1, NUM_PHOTOGRAPHS).astype(int)]
    photographs = load_full_images(chosen, dataset.class_names, dataset.rule, dataset.limits)
    views = Views(photographs.images, training_view(augmentation, dataset.rule), 0)
    targets = LabelTargets(photographs.class_indices, len(dataset.class_names))
    keras.utils.set_random_seed(0)
    with keras.device("cpu:0"):
        _, learning = build_learning(recipe, len(dataset.class_names), 0)
        fit(learning, views, targets, schedule, checkpoint, _Speaker(waits=waits), cluster=cluster)


def start(arguments: list[str], num_processes: int) -> list[subprocess.Popen[str]]:
    """Start the processes of one training with this script's arguments."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(num_processes)]
    addresses = [f"127.0.0.1:{server.getsockname()[1]}" for server in servers]
    for server in servers:
        server.close()
    started = []
    for index in range(num_processes):
        tf_config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment, pipe = {**os.environ, "TF_CONFIG": json.dumps(tf_config)}, subprocess.PIPE
        command = [sys.executable, __file__, *arguments]
        started.append(subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True))
    return started


def finish(arguments: list[str], num_processes: int) -> None:
    """Train to the end. Raise `SystemExit` if a process fails."""
    processes = start(arguments, num_processes)
    for process in processes:
        process.communicate()
    if codes := [process.returncode for process in processes if process.returncode]:
        raise SystemExit(f"{len(codes)} of {num_processes} processes failed.")


def read(checkpoint: Path) -> Any:
    """Return the checkpoint of a training that this script has made."""
    loaded = load_checkpoint(checkpoint)
    assert loaded is not None
    return loaded


def write(results: dict[str, Any]) -> None:
    """Write what is measured so far, as the whole takes long."""
    (RESULTS / "distributed.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def compare(folder: Path, scratch: Path) -> dict[str, Any]:
    """Return the losses for each number of processes, and what a kill changes."""
    results: dict[str, Any] = {
        "machine": describe_machine(), "num_photographs": NUM_PHOTOGRAPHS, "epochs": NUM_EPOCHS,
        "batch_size": BATCH_SIZE, "processes": {},
    }  # fmt: skip
    for number in (1, 2, 3):
        checkpoint = scratch / f"{number}.npz"
        finish([str(folder), "--checkpoint", str(checkpoint)], number)
        rows = [asdict(row) for row in read(checkpoint).history]
        results["processes"][number] = {name: [row[name] for row in rows] for name in ("loss", "accuracy", "seconds")}
        one, found = (np.array(results["processes"][count]["loss"]) for count in (1, number))
        results["processes"][number]["largest_difference"] = float(np.abs(found - one).max())
        write(results)
    whole, killed = ([str(folder), "--checkpoint", str(scratch / f"{name}.npz"), "--dropout", "0.2"]
                     for name in ("whole", "killed"))  # fmt: skip
    finish(whole, 2)
    processes = start([*killed, "--waits"], 2)
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    processes[1].kill()
    for process in processes:
        process.communicate()
    results["killed"] = {
        "epochs_kept": read(scratch / "killed.npz").num_done,
        "survivor_exit_code": processes[0].returncode,
    }
    finish(killed, 2)
    states = [[*found.state, *found.best] for found in (read(scratch / "whole.npz"), read(scratch / "killed.npz"))]
    results["killed"]["same_end"] = all(np.array_equal(*pair) for pair in zip(*states, strict=True))
    return results


def main() -> None:
    """Compare, or train as one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="train as one process, and write this file")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--waits", action="store_true", help="wait in the middle of an epoch")
    arguments = parser.parse_args()
    if arguments.checkpoint:
        train(arguments.folder, arguments.checkpoint, arguments.dropout, waits=arguments.waits)
        return
    with tempfile.TemporaryDirectory() as scratch:
        results = compare(arguments.folder, Path(scratch))
    write(results)
    print(json.dumps(results["killed"]))


if __name__ == "__main__":
    main()
