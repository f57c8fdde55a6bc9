"""Predictions beside a client that explains one photograph after another without a pause."""

import statistics

from benchmarks.reliability.neighbours import Beside
from benchmarks.reliability.replica import Result, ask, capacity, cores_apart, p99_ms, replica, store_of_its_own
from service.bench.connection import parse_target
from service.bench.generator import Load
from service.bench.photographs import draw_flower

NUM_ROUNDS = 5
SHARE = 0.3  # of the capacity


def measure(scale: float, engine: str) -> Result:
    """Measure in rounds with each kind of load: alone, then beside the explanations.

    The ratio of a kind of load is the median of its rounds.
    """
    result = Result()
    with (
        cores_apart() as cores,
        store_of_its_own() as store,
        replica(store, "--engine", engine, cores=cores) as service,
    ):
        explain = parse_target(service.url, "/explain").post(draw_flower(), "image/jpeg", ("Accept: application/json",))
        full = capacity(service.url, 10 * scale)
        duration_s = 10 * scale
        loads = {
            f"{SHARE:.0%} of the capacity": Load(connections=64, rate=SHARE * full, duration_s=duration_s),
            "one connection without a pause": Load(connections=1, duration_s=duration_s),
        }
        num_errors, num_failed = 0, 0
        figures = {}
        for name, load in loads.items():
            rounds, ratios = [], []
            for _ in range(NUM_ROUNDS):
                alone = ask(service.url, load)
                client = Beside(service.url, [explain], 1, is_endless=True)
                beside = ask(service.url, load)
                answers = client.stop()
                num_errors += alone.num_errors + beside.num_errors
                num_failed += sum(status != 200 for _, status, _ in answers)
                ratios.append(p99_ms(beside) / p99_ms(alone))
                rounds.append(
                    {
                        "alone_ms": alone.latency_ms,
                        "beside_ms": beside.latency_ms,
                        "explanations_s": [round(seconds, 2) for *_, seconds in answers],
                    }
                )
            figures[name] = {"rate": load.rate, "ratios": ratios, "rounds": rounds}
            result.at_most(1.5, f"p99 beside explanations / p99 alone, {name}", statistics.median(ratios))
        client = Beside(service.url, [explain], 1, is_endless=False)
        result.figures = {"capacity": full, "loads": figures, "explanation_without_predictions_s": client.join()[0][2]}
        result.at_most(0, "predictions that failed or were wrong", num_errors)
        result.at_most(0, "explanations that failed", num_failed)
    return result
