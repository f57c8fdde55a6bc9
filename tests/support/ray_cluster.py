"""A Ray cluster of several nodes on 127.0.0.1, and `flowers predict --ray` on it as a process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from conftest import REPOSITORY

from service.libraries import keep_ray_quiet

_PLACE, _ATTEMPTS = {"node_ip_address": "127.0.0.1"}, 3


class Nodes:
    """The head, which scores nothing, and workers of one core each."""

    def __init__(self) -> None:
        keep_ray_quiet("")  # before it is imported
        from ray.cluster_utils import Cluster

        head = {"num_cpus": 0, "include_dashboard": False, **_PLACE}
        self.cluster = _start(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.workers: list[Any] = []
        self.address = str(self.cluster.address)

    def add(self) -> None:
        """Start one more worker."""
        self.workers.append(_start(lambda: self.cluster.add_node(num_cpus=1, **_PLACE)))

    def kill_one(self) -> int:
        """SIGKILL a worker with all processes below it; their number. None of them can say a word."""
        node = self.workers.pop()
        raylet = node.all_processes["raylet"][0].process.pid
        family = [raylet, *_find_below(raylet)]
        for pid in family:
            os.kill(pid, signal.SIGKILL)
        self.cluster.worker_nodes.discard(node)
        return len(family)


@contextmanager
def ray_cluster() -> Iterator[Nodes]:
    """A cluster with two workers. All its processes end with the block."""
    nodes = Nodes()
    try:
        nodes.add()
        nodes.add()
        yield nodes
    finally:
        nodes.cluster.shutdown()


@contextmanager
def scoring(output: Path, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """`flowers predict --ray` as a process, killed at the end of the block if it still runs."""
    command = [sys.executable, "-m", "service", "predict", "--ray", "--format", "json", "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "FLOWERS_MODEL_STORE": str(REPOSITORY / "model_store")}
    with subprocess.Popen(
        [*command, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_parts(output: Path, num_parts: int, process: "subprocess.Popen[str]") -> None:
    """Wait until so many files of scores are there."""
    while len(list(output.glob("part-*.parquet"))) < num_parts:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def _start(start: Callable[[], Any]) -> Any:
    """What `start` returns. Ray gives the agents of a node 15 s, which a busy machine may not keep at once."""
    for _ in range(_ATTEMPTS - 1):
        with suppress(Exception):
            return start()
    return start()


def _find_below(pid: int) -> list[int]:
    """The processes below this one, children first."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [found for child in map(int, children) for found in (child, *_find_below(child))]
