"""The simulation of many machines takes its numbers from the manifests, and counts every lost request once."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.reliability.balancer import Policy, Sent, count_sent, write_configuration
from benchmarks.reliability.manifests import BASE, Probe, read_drain_flags, read_readiness_probe
from benchmarks.reliability.slowed import slowed

PROBE = Probe("/readyz", period_s=2, timeout_s=3, failure_threshold=4)


def edit(folder: Path, file: str, old: str, new: str) -> Path:
    """A copy of the manifests with another text in one file."""
    base = shutil.copytree(BASE, folder / "base")
    text = (base / file).read_text(encoding="utf-8")
    assert old in text
    (base / file).write_text(text.replace(old, new), encoding="utf-8")
    return base


def test_the_probe_is_that_of_the_manifest(tmp_path: Path) -> None:
    old = "periodSeconds: 1\n            timeoutSeconds: 2\n            failureThreshold: 1\n"
    changed = "periodSeconds: 7\n            timeoutSeconds: 4\n"
    probe = read_readiness_probe(edit(tmp_path, "deployment.yaml", old, changed))
    assert probe == Probe("/readyz", period_s=7, timeout_s=4, failure_threshold=3)  # 3 is the default of Kubernetes


def test_replicas_drain_as_the_config_map_says(tmp_path: Path) -> None:
    base = edit(tmp_path, "kustomization.yaml", "DRAIN_DELAY_S=5", "DRAIN_DELAY_S=8")
    assert read_drain_flags(base) == ["--drain-delay-s", "8", "--drain-timeout-s", "25"]


def test_the_balancer_checks_as_the_probe_does(tmp_path: Path) -> None:
    text = write_configuration(tmp_path, 80, [81, 82], PROBE, Policy())
    assert "option httpchk GET /readyz\n  timeout check 3s\n" in text
    assert "default-server check inter 2000ms fall 4 rise 1" in text
    assert text.endswith("server pod0 127.0.0.1:81\n  server pod1 127.0.0.1:82\n")
    assert PROBE.verdict_s == 2 * 4 + 3


@pytest.mark.parametrize("connects_again", [False, True])
def test_the_balancer_tries_again_only_where_wanted(tmp_path: Path, connects_again: bool) -> None:
    text = write_configuration(tmp_path, 80, [81], PROBE, Policy(connects_again=connects_again))
    assert ("redispatch" in text, "retries 0" in text) == (connects_again, not connects_again)
    assert "retry-on" not in text  # which would send a request twice


def test_each_lost_request_is_counted_once() -> None:
    answered = {"hrsp_1xx": "", "hrsp_2xx": "429", "hrsp_3xx": "0", "hrsp_4xx": "4", "hrsp_5xx": "0", "hrsp_other": "0"}
    row = {**answered, "stot": "572", "econ": "65", "wredis": "2"}
    assert count_sent(row) == Sent(answered=433, unanswered=72, refused=65)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_slowed_process_runs_in_its_slots_alone() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            with slowed([[process.pid]], slot_s=0.005, num_slots=10):
                states = [state_of(process.pid) for _ in range(100)]
            assert 20 < states.count("T") < 100
            assert "T" not in [state_of(process.pid) for _ in range(20)]
        finally:
            process.kill()


def state_of(pid: int) -> str:
    """The state of a process after 3 ms. It is T for a stopped one."""
    time.sleep(0.003)
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]
