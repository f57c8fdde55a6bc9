"""Scores of many photographs by actors of a Ray cluster. A part's scores are written when it is done."""

import logging
import math
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
import ray.data

from service.errors import ScoringError
from service.machine import count_cores
from service.scoring.actor import Job, PartScorer, pack_part
from service.scoring.parts import Part, PartResult

_TEMPORARY = Path("/tmp")  # noqa: S108 - sockets below a longer path would be too long
_ANSWER_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class ActorSize:
    """Share of a node that an actor reserves: a number of cores, and of GPUs, which may be 0."""

    num_cpus: int
    num_gpus: int


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster. An empty address starts one on this machine, and ends it after the block.

    Raises `ScoringError` if it does not start or answer.
    """
    temporary = None if address else tempfile.mkdtemp(prefix="flowers-", dir=_TEMPORARY)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        try:
            if address:
                _check_address(address)
                ray.init(address=address, **quiet)
            else:
                ray.init("local", num_cpus=count_cores(), include_dashboard=False, _temp_dir=temporary, **quiet)
        except Exception as error:  # there is no list of what it raises
            where = f"at {address} does not answer" if address else "did not start on this machine"
            raise ScoringError(
                f"Ray {where} ({_first_line(error)}). Look at it with `ray status`, or name another with --ray-address."
            ) from error
        yield
    finally:
        ray.shutdown()
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def size_actor(device: str, num_threads: int) -> ActorSize:
    """Choose the share of an actor in the connected cluster.

    On a CPU it is `num_threads` cores. 0 means one, since actors on all cores are as fast, and spread over any nodes.
    A GPU has the cores that come to each. With the device auto, a GPU is taken if the cluster has one.
    """
    resources = ray.cluster_resources()
    num_gpus = int(resources.get("GPU", 0))
    if device == "cpu" or (device == "auto" and not num_gpus):
        return ActorSize(num_threads or 1, 0)
    return ActorSize(num_threads or max(1, int(resources.get("CPU", 1)) // max(1, num_gpus)), 1)


def score_parts(parts: Sequence[Part], job: Job, size: ActorSize) -> Iterator[PartResult]:
    """Score parts on the connected cluster. Yield the result of each when its file is written, in no order.

    There are as many actors as the cluster has room for, and nodes that join get some. A part whose node is lost is
    scored again elsewhere. Raises `ScoringError` if the cluster or an actor fails, or if there is no room.
    """
    if not parts:
        return
    num_actors = min(len(parts), _count_places(size))
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    results = ray.data.from_items([pack_part(part) for part in parts], override_num_blocks=len(parts)).map(
        PartScorer,
        fn_constructor_args=(job,),
        num_cpus=size.num_cpus,
        num_gpus=size.num_gpus,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=len(parts), initial_size=num_actors),
    )
    try:
        for row in results.iter_rows():
            if failure := row.pop("failure"):
                raise ScoringError(failure)
            yield PartResult(**row)
    except ray.exceptions.RayError as error:
        raise ScoringError(
            f"The cluster failed ({_first_line(error)}). Mend that, and repeat the command. It resumes."
        ) from error


def _check_address(address: str) -> None:
    """Connect to an address once. Ray itself would wait for minutes. Raises `OSError` or `ValueError`."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), _ANSWER_TIMEOUT_S).close()


def _count_places(size: ActorSize) -> int:
    """Count the actors that all nodes have room for together. Raises `ScoringError` for none."""
    num_places = 0
    for node in ray.nodes():
        if node["Alive"]:
            resources = node["Resources"]
            num_here = math.floor(resources.get("CPU", 0) / size.num_cpus)
            num_places += min(num_here, int(resources.get("GPU", 0))) if size.num_gpus else num_here
    if not num_places:
        gpu = " and a GPU" if size.num_gpus else ""
        raise ScoringError(
            f"No node of the cluster has {size.num_cpus} cores{gpu} for an actor. Lower --engine-threads, or take "
            "--device cpu."
        )
    return num_places


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0][:200].rstrip(".")
