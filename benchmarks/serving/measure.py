"""Time to one server's first right answer, its figures under load and its memory."""

import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.environments import prepare
from benchmarks.serving.photographs import UNREADABLE, WRONG, Photograph, questions_for
from benchmarks.serving.processes import MarkedProcess, Memory
from benchmarks.serving.servers import Model, Server, environment_of
from service.bench.connection import Target
from service.bench.generator import Load, Question, ask_once, load_target, run
from service.bench.summary import summarise

_MOST_ERRORS = 0.01
_POLL_S = 0.02
_LARGE_TAKES_LONGER = 2  # a dozen answers a second are too few to count in a short time


@dataclass(frozen=True)
class Stage:
    """Load of so many connections with photographs that are "small", "profiles" or "large" (12 megapixels)."""

    size: str
    connections: int


@dataclass(frozen=True)
class Timing:
    """Durations in seconds."""

    warm_up_s: float = 0.5
    duration_s: float = 2.0
    timeout_s: float = 30.0
    start_timeout_s: float = 60.0


class ServerFailed(Exception):
    """Server that did not start, or never answered rightly, with the end of its log."""


def python_of(server: Server) -> str:
    """Return the interpreter of a server. Its environment is installed first, if need be."""
    return sys.executable if server.environment is None else str(prepare(server.environment))


def measure(
    server: Server,
    model: Model,
    photographs: Mapping[str, Sequence[Photograph]],
    stages: Sequence[Stage],
    timing: Timing,
) -> dict[str, Any]:
    """Start a server, load it stage after stage, and stop it.

    Returns:
        "cold_start_s", "memory" (the most after any stage) and "cells". A cell is a stage's summary with
        "wrong_answers" and "counts", which is False when an answer was wrong or more than 1 % were errors.

    Raises:
        ServerFailed: There was never a right answer. Nothing is left running.
    """
    with tempfile.TemporaryDirectory(prefix="serving-") as scratch, Path(scratch, "log").open("w+b") as log:
        port = _free_port()
        command = server.command(python_of(server), port, model)
        process = MarkedProcess(command, server.folder, environment_of(server, port, model, Path(scratch)), log)
        target = Target("127.0.0.1", port, server.path)
        try:
            questions = {
                size: questions_for(server, target, some, model.class_names) for size, some in photographs.items()
            }
            cold_start_s = _wait_for_answer(process, target, questions["small"][0], timing, Path(scratch, "log"))
            cells, memories = [], []
            for stage in stages:
                cells.append(_load(target, questions[stage.size], stage, timing))
                memories.append(process.memory())
        finally:
            process.stop()
    return {"cold_start_s": round(cold_start_s, 2), "memory": asdict(_most(memories)), "cells": cells}


def _load(target: Target, questions: Sequence[Question], stage: Stage, timing: Timing) -> dict[str, Any]:
    duration_s = timing.duration_s * (_LARGE_TAKES_LONGER if stage.size == "large" else 1)
    load = Load(stage.connections, None, timing.warm_up_s, duration_s, timing.timeout_s)
    summary = summarise(load, run(load_target(target, questions, load)))
    wrong = summary.errors.get(WRONG, 0) + summary.errors.get(UNREADABLE, 0)
    counts = does_count(summary.num_answers, summary.num_errors, wrong)
    return {"size": stage.size, **summary.to_json(), "wrong_answers": wrong, "counts": counts}


def does_count(num_right: int, num_errors: int, num_wrong: int) -> bool:
    """Return whether a server's figures count. No answer was wrong, and few were errors."""
    return num_right > 0 and num_wrong == 0 and num_errors <= _MOST_ERRORS * num_right


def _wait_for_answer(process: MarkedProcess, target: Target, question: Question, timing: Timing, log: Path) -> float:
    """Return the seconds from the start of the process to its first right answer."""
    error = "no answer"
    while time.perf_counter() - process.started_at < timing.start_timeout_s:
        response = run(ask_once(target, question.request, timing.timeout_s))
        error = response.failure or question.find_error(response)
        if not error:
            return time.perf_counter() - process.started_at
        if process.has_ended:
            error = "it ended"
            break
        time.sleep(_POLL_S)
    last_lines = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise ServerFailed(f"no right answer within {timing.start_timeout_s:g} s ({error}); its log ends:\n{last_lines}")


def _most(memories: Sequence[Memory]) -> Memory:
    return max(memories, key=lambda memory: memory.pss_mb, default=Memory(0, 0.0, 0.0))


def _free_port() -> int:
    """Return a free port with two free ones behind it."""
    while True:
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port: int = first.getsockname()[1]
            try:
                for following in (port + 1, port + 2):
                    with socket.socket() as other:
                        other.bind(("127.0.0.1", following))
            except OSError:
                continue
        return port
