"""One process of a small training by a cluster: `TF_CONFIG=... python clusters.py CHECKPOINT DROPOUT [WAITS_AT]`."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import keras
from support.drawing import CLASS_NAMES
from support.fitting import RECIPE, SCHEDULE, SEED, fit_small, tiny_network
from support.programs import find_free_port

from service.training.distributed import ALONE, Cluster, open_cluster
from service.training.fit import Fitted
from service.training.observer import Observer
from service.training.trained_network import on_pixels

TESTS = Path(__file__).parents[1]
SHARED = replace(SCHEDULE, batch_size=4)


def fit_shared(
    checkpoint: Path, dropout: float, observer: Observer | None = None, cluster: Cluster = ALONE
) -> tuple[keras.Model, Fitted]:
    """Train the tiny network, with batch normalisation, together with the other processes of the cluster."""
    keras.utils.set_random_seed(SEED)
    network = on_pixels(tiny_network(len(CLASS_NAMES), batch_norm=True, dropout=dropout), 1 / 255, 0.0)
    return network, fit_small(network, checkpoint, SHARED, observer=observer, cluster=cluster)


def start_cluster(checkpoints: Sequence[Path], dropout: float, *waits_at: str) -> list[subprocess.Popen[str]]:
    """Start one process for each checkpoint. `waits_at` is an epoch in whose middle they wait to be killed."""
    addresses = [f"127.0.0.1:{find_free_port()}" for _ in checkpoints]
    processes = []
    for index, checkpoint in enumerate(checkpoints):
        tf_config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        variables = {"TF_CONFIG": json.dumps(tf_config), "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"}
        command = [sys.executable, __file__, str(checkpoint), str(dropout), *waits_at]
        environment, pipe = {**os.environ, **variables}, subprocess.PIPE
        processes.append(subprocess.Popen(command, text=True, env=environment, stdin=pipe, stdout=pipe, stderr=pipe))
    return processes


class _Waiting(Observer):
    """Says aloud when an epoch is half done, and then waits."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def step(self, epoch: int, step: int, *_: float) -> None:
        if (epoch, step) == (self._epoch, 1):
            print("half", flush=True)
            sys.stdin.read()


if __name__ == "__main__":
    observer = _Waiting(int(sys.argv[3])) if len(sys.argv) > 3 else None
    cluster = open_cluster(os.environ["TF_CONFIG"], RECIPE, device="cpu")
    network, _ = fit_shared(Path(sys.argv[1]), float(sys.argv[2]), observer, cluster)
    print(json.dumps([weight.tolist() for weight in network.get_weights()]))
