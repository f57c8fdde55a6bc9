"""Many machines in small: replicas behind HAProxy, whose health check is the readiness probe of the manifests.

It never tries again. One replica after another is replaced as a rollout does, one is frozen, one is killed, and one is
ten times slower. Then the throughput of several replicas is compared with that of one.
"""

import os
import signal
import statistics
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.reliability.balancer import SERVER_TIMEOUT_S, Balancer, Policy, balancer
from benchmarks.reliability.manifests import read_drain_flags, read_readiness_probe
from benchmarks.reliability.replica import (
    Replica,
    Result,
    ask,
    ask_disturbed,
    capacity,
    cores_apart,
    replica,
    status_of,
    store_of_its_own,
    wait_for,
    with_children,
)
from benchmarks.reliability.slowed import slowed
from service.bench.generator import Load
from service.bench.summary import Summary

NUM_REPLICAS = 3
SHARE = 0.5  # of the capacity of all
NUM_ROUNDS = 3
POLICIES = {
    "leastconn": Policy(),
    "random": Policy(balance="random(1)"),
    "leastconn, a failed connection marks down": Policy(marks_down=True),
    "leastconn, connects again elsewhere": Policy(connects_again=True),
}
PROBE = read_readiness_probe()
LATE_S = 0.5  # of HAProxy and of this program


@dataclass
class Pods:
    """Running replicas by the names of their servers, and the server that is free for the next one."""

    by_server: dict[str, Replica]
    spare: str

    @property
    def running(self) -> list[str]:
        """Servers in use."""
        return [server for server in self.by_server if server != self.spare]

    @property
    def ports(self) -> list[int]:
        """Ports of all servers."""
        return [pod.port for pod in self.by_server.values()]


@contextmanager
def started(num_replicas: int, engine: str, *cores: Collection[int]) -> Iterator[tuple[Path, list[Replica]]]:
    """Start replicas of one process each, on all cores or each on its own."""
    flags = ["--engine", engine, "--workers", "1", "--engine-threads", "1", "--decode-threads", "1"]
    with ExitStack() as stack:
        store = stack.enter_context(store_of_its_own())
        places = cores or [()] * num_replicas
        pods = [stack.enter_context(replica(store, *flags, *read_drain_flags(), cores=place)) for place in places]
        yield store.parent, pods


def measure(scale: float, engine: str) -> Result:
    """Disturb three replicas at half of their capacity. Then measure how the throughput grows with their number."""
    result = Result(figures={"load_average_before": round(os.getloadavg()[0], 1)})
    with started(NUM_REPLICAS + 1, engine) as (folder, replicas):
        pods = Pods({f"pod{number}": pod for number, pod in enumerate(replicas)}, f"pod{NUM_REPLICAS}")
        pods.by_server[pods.spare].stop()
        with balancer(folder, pods.ports, PROBE) as running:
            rate = SHARE * capacity(running.url, 10 * scale)
        result.figures |= {"rate": round(rate, 1), "replicas": NUM_REPLICAS, "probe": asdict(PROBE)}
        _roll_out(folder, pods, rate, scale, result)
        for name in ("leastconn", "random"):
            _freeze(folder, pods, rate, name, result)
        for name in POLICIES:
            _kill(folder, pods, rate, name, result)
        _slow_down(folder, pods, rate, scale, result)
    _scale_up(scale, engine, result)
    return result


def _roll_out(folder: Path, pods: Pods, rate: float, scale: float, result: Result) -> None:
    """Replace each replica. The new one is ready before the old one gets SIGTERM, as with `maxSurge: 1`."""
    exit_codes: list[int] = []

    def replace_all() -> None:
        for server in pods.running:
            pods.by_server[pods.spare].start()
            exit_codes.append(pods.by_server[server].stop())
            pods.spare = server

    with balancer(folder, pods.ports, PROBE) as running:
        rolled = ask_disturbed(running.url, rate, max(30, 40 * scale), replace_all)
        result.figures["rolled"] = _figures(running, rolled)
    result.at_most(0, "failed requests while each replica is replaced", rolled.num_errors)
    result.at_least(NUM_REPLICAS, "replaced replicas that ended with 0", exit_codes.count(0))


def _freeze(folder: Path, pods: Pods, rate: float, policy: str, result: Result) -> None:
    """Freeze a replica until all that it holds has timed out. Then it is killed and started, as the kubelet does."""
    server = pods.running[0]
    pod, noticed_s = pods.by_server[server], list[float]()

    def freeze(running: Balancer) -> None:
        pod.freeze(signal.SIGSTOP)
        noticed_s.append(wait_for(lambda: not running.is_up(server), "the frozen one is out"))
        time.sleep(SERVER_TIMEOUT_S + 1)
        pod.process.kill()
        pod.process.wait()
        pod.start()

    with balancer(folder, pods.ports, PROBE, POLICIES[policy]) as running:
        frozen = ask_disturbed(running.url, rate, SERVER_TIMEOUT_S + 12, lambda: freeze(running))
        held = running.sent()[server].unanswered
        result.figures[f"frozen, {policy}"] = {**_figures(running, frozen), "noticed_s": round(noticed_s[0], 2)}
    result.at_most(PROBE.verdict_s + LATE_S, f"seconds until a frozen one gets nothing ({policy})", noticed_s[0])
    result.at_most(0, f"failed requests that were not for a frozen one ({policy})", frozen.num_errors - held)


def _kill(folder: Path, pods: Pods, rate: float, policy: str, result: Result) -> None:
    """Kill a replica, and start it again once the balancer has noticed."""
    server = pods.running[0]
    pod = pods.by_server[server]

    def kill(running: Balancer) -> None:
        pod.process.kill()
        pod.process.wait()
        wait_for(lambda: not running.is_up(server), "the killed one is out")
        pod.start()

    with balancer(folder, pods.ports, PROBE, POLICIES[policy]) as running:
        killed = ask_disturbed(running.url, rate, 12, lambda: kill(running))
        sent = running.sent()[server]
        result.figures[f"killed, {policy}"] = _figures(running, killed)
    of_others = killed.num_errors - sent.unanswered - sent.refused
    result.at_most(0, f"failed requests that were not for a killed one ({policy})", of_others)
    checks_s = PROBE.period_s * PROBE.failure_threshold + LATE_S
    bound = 0 if POLICIES[policy].connects_again else 3 if POLICIES[policy].marks_down else rate * checks_s
    result.at_most(bound, f"requests that a killed one refused ({policy})", sent.refused)


def _slow_down(folder: Path, pods: Pods, rate: float, scale: float, result: Result) -> None:
    """Let a replica run for a tenth of the time. It must stay in use, and get less."""
    server, duration_s = pods.running[0], max(10, 20 * scale)
    pod = pods.by_server[server]
    group = with_children(pod.process.pid)
    alone = capacity(pod.url, 3)
    with slowed([group], slot_s=0.002, num_slots=10):
        slow_alone = capacity(pod.url, 3)
    readyz_s: list[float] = []

    def ask_readyz() -> None:
        ends_at = time.monotonic() + duration_s - 3
        while time.monotonic() < ends_at:
            begun = time.monotonic()
            status_of(f"{pod.url}{PROBE.path}")
            readyz_s.append(time.monotonic() - begun)
            time.sleep(0.1)

    with balancer(folder, pods.ports, PROBE) as running, slowed([group], slot_s=0.002, num_slots=10):
        before = running.servers()[server]
        slow = ask_disturbed(running.url, rate, duration_s, ask_readyz)
        after, sent = running.servers()[server], running.sent()
        result.figures["slow"] = {
            **_figures(running, slow),
            "share_of_speed": round(slow_alone / alone, 3),
            "slowest_readyz_s": round(max(readyz_s), 3),
        }
    part = sent[server].answered * NUM_REPLICAS / sum(one.answered for one in sent.values())
    result.at_most(0, "failed requests beside a slow one", slow.num_errors)
    result.at_most(0, "times that a slow one was taken out", int(after["chkdown"]) - int(before["chkdown"]))
    result.at_least(0.01, "requests that a slow one got, as a share of a fair part", part)
    result.at_most(0.5, "and at most", part)


def _scale_up(scale: float, engine: str, result: Result) -> None:
    """Measure one, two and four replicas of a tenth of a core each, and replicas of a core each."""
    seconds = max(3.0, 8 * scale)
    with cores_apart() as cores, started(4, engine, *[cores] * 4) as (folder, pods):
        groups = [with_children(pod.process.pid) for pod in pods]
        with balancer(folder, [pod.port for pod in pods], PROBE) as running:
            result.figures["load of one core"] = _load_one(running, pods[0], seconds)
            with slowed(groups, slot_s=0.010, num_slots=10):
                shared = _compare(running, (1, 2, 4), seconds)
    places = [{core} for core in sorted(os.sched_getaffinity(0))[:4]]
    with (
        started(len(places), engine, *places) as (folder, pods),
        balancer(folder, [pod.port for pod in pods], PROBE) as running,
    ):
        owned = _compare(running, [number for number in (1, 2, 4) if number <= len(places)], seconds)
    result.figures["a tenth of a core each"], result.figures["a core each"] = shared, owned
    for number in (2, 4):
        result.at_least(0.9, f"throughput of {number} to {number} times that of one", shared[number]["efficiency"])


def _compare(running: Balancer, numbers: Collection[int], seconds: float) -> dict[int, dict[str, Any]]:
    """Measure each number of replicas in turn, in several rounds."""
    answers: dict[int, list[float]] = {number: [] for number in numbers}
    client_ms: dict[int, list[float]] = {number: [] for number in numbers}
    for _ in range(NUM_ROUNDS):
        for number in numbers:
            running.use(number)
            cpu_before = _cpu_s(running.process.pid)
            summary = ask(running.url, Load(connections=12 * number, warm_up_s=1, duration_s=seconds))
            balancer_ms = (_cpu_s(running.process.pid) - cpu_before) * 1000 / summary.num_answers
            answers[number].append(summary.answers_per_s)
            client_ms[number].append((summary.client_cpu_ms_per_request or 0) + balancer_ms)
    one = statistics.median(answers[1])
    return {
        number: {
            "answers_per_s": round(statistics.median(several), 1),
            "all_rounds": several,
            "efficiency": round(statistics.median(several) / number / one, 3),
            "client_and_balancer_ms_per_request": round(statistics.median(client_ms[number]), 3),
        }
        for number, several in answers.items()
    }


def _load_one(running: Balancer, pod: Replica, seconds: float) -> dict[str, dict[str, float]]:
    """Measure processor time and queue of one replica at shares of its capacity."""
    running.use(1)
    most = capacity(running.url, seconds)
    figures = {}
    for share in (0.3, 0.6, 0.9, 1.5):
        queue: list[float] = []
        cpu_before = _cpu_s(pod.process.pid)

        def look(queue: list[float] = queue) -> None:
            for _ in range(int((seconds - 2) / 0.2)):
                queue.append(pod.metric("flowers_queue_images"))
                time.sleep(0.2)

        summary = ask_disturbed(running.url, share * most, seconds, look)
        figures[f"{share:.0%}"] = {
            "cpu_cores": round((_cpu_s(pod.process.pid) - cpu_before) / (seconds + 1), 3),
            "queue_images": round(statistics.mean(queue), 2),
            "answers_per_s": summary.answers_per_s,
        }
    return figures


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _figures(running: Balancer, summary: Summary) -> dict[str, Any]:
    return {**summary.to_json(), "sent": {server: asdict(sent) for server, sent in running.sent().items()}}
