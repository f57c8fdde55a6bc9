"""Two replicas behind HAProxy. They are restarted in turn, then one is frozen and one killed."""

import signal
import time

from benchmarks.reliability.balancer import free_port, run_haproxy
from benchmarks.reliability.replica import (
    Result,
    ask_disturbed,
    capacity,
    replica,
    status_of,
    store_of_its_own,
    wait_for,
)

NUM_RESTARTS = 6
NUM_REQUESTS = 10_000
SHARE = 0.6  # of the capacity of both

# It follows /readyz, four times a second and without a second chance, as the Kubernetes manifests do. Nothing is sent
# twice but what could not be connected: a request that has reached a replica is that replica's to answer.
CONFIGURATION = """
defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server 12s
  option redispatch 1
  retries 3
frontend flowers
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  balance leastconn
  option httpchk GET /readyz
  default-server check inter 250ms fall 1 rise 1
  timeout check 1s
  server first 127.0.0.1:{first}
  server second 127.0.0.1:{second}
"""


def measure(scale: float, engine: str) -> Result:
    """Restart, freeze and kill at 60 % of the capacity of both."""
    result, port = Result(), free_port()
    with (
        store_of_its_own() as store,
        replica(store, "--engine", engine, "--drain-delay-s", "2") as first,
        replica(store, "--engine", engine, "--drain-delay-s", "2") as second,
        run_haproxy(store.parent, CONFIGURATION.format(port=port, first=first.port, second=second.port)),
    ):
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: status_of(f"{url}/readyz") == 200, "HAProxy answers")
        rate = SHARE * capacity(url, 10 * scale)
        num_restarts = max(2, round(NUM_RESTARTS * scale))
        exit_codes: list[int] = []
        idle_stop_s: list[float] = []

        def restart() -> None:
            for number in range(num_restarts):
                stopped = (first, second)[number % 2]
                begun = time.monotonic()
                exit_codes.append(stopped.stop())
                idle_stop_s.append(time.monotonic() - begun - 2)
                stopped.start()
                time.sleep(1)  # until HAProxy has seen it

        duration_s = max(NUM_REQUESTS * scale / rate * 1.05, num_restarts * 8)
        rolled = ask_disturbed(url, rate, duration_s, restart)

        def freeze() -> None:
            first.freeze(signal.SIGSTOP)
            time.sleep(5)
            first.freeze(signal.SIGCONT)

        frozen = ask_disturbed(url, rate, 20, freeze)

        def kill() -> None:
            second.process.kill()
            second.process.wait()
            time.sleep(3)
            second.start()

        killed = ask_disturbed(url, rate, 15, kill)
        result.figures = {
            "rate": rate,
            "restarts": rolled.to_json(),
            "stop_s_beyond_delay": [round(seconds, 2) for seconds in idle_stop_s],
            "frozen": frozen.to_json(),
            "killed": killed.to_json(),
        }
        result.at_least(NUM_REQUESTS * scale, "requests during restarts", rolled.num_answers)
        result.at_least(num_restarts, "restarts that ended with 0", exit_codes.count(0))
        result.at_most(0, f"failed requests in {num_restarts} restarts", rolled.num_errors)
        result.at_most(2, "seconds of a stop beyond its delay", max(idle_stop_s))
        # What one replica had taken in, and what was sent to it before the next check failed: at most a second's share.
        result.at_most(0.6 * rate * 1.25, "requests lost with a frozen replica", frozen.num_errors)
        result.at_most(0.6 * rate * 0.25 + 16, "requests lost with a killed replica", killed.num_errors)
    return result
