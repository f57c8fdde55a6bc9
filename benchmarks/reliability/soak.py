"""A hundred thousand predictions. Memory, file descriptors and threads stay."""

import time

from benchmarks.reliability.replica import Result, ask, replica, store_of_its_own
from service.bench.generator import Load

NUM_PREDICTIONS = 100_000
CHUNK_S = 10.0


def measure(scale: float, engine: str) -> Result:
    """Ask on eight connections without a pause. The state after the first tenth is the warm one."""
    result = Result()
    with store_of_its_own() as store, replica(store, "--engine", engine) as service:
        held = []
        num_errors = num_answers = 0
        while num_answers < NUM_PREDICTIONS * scale:
            summary = ask(service.url, Load(connections=8, warm_up_s=0, duration_s=min(CHUNK_S, 30 * scale)))
            num_errors += summary.num_errors
            num_answers += summary.num_answers
            time.sleep(0.5)  # until it has noticed that our connections are closed
            held.append(
                {
                    "answers": num_answers,
                    "resident_mb": round(service.resident_mb(), 1),
                    "files": service.num_files(),
                    "threads": service.num_threads(),
                }
            )
        warm = next(state for state in held if state["answers"] >= NUM_PREDICTIONS * scale / 10)
        result.figures = {"held": held}
        result.at_most(0, "failed or wrong answers", num_errors)
        result.at_most(20, "MB more than when warm", held[-1]["resident_mb"] - warm["resident_mb"])
        result.at_most(0, "file descriptors more", held[-1]["files"] - warm["files"])
        result.at_most(0, "threads more", held[-1]["threads"] - warm["threads"])
    return result
