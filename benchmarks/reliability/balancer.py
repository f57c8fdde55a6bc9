"""HAProxy in front of replicas. Its health check is the readiness probe of the manifests."""

import csv
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.reliability.manifests import Probe
from benchmarks.reliability.replica import status_of, wait_for

SERVER_TIMEOUT_S = 12  # more than `request_timeout_s`, which the service answers itself

_CONFIGURATION = """
global
  stats socket {folder}/stats level admin
defaults
  mode http
  timeout connect 1s
  timeout client 30s
  timeout server {server_timeout}s
  {retries}
frontend flowers
  bind 127.0.0.1:{port}
  default_backend replicas
backend replicas
  balance {balance}
  option httpchk GET {path}
  timeout check {timeout:g}s
  default-server check inter {period_ms:.0f}ms fall {fall} rise 1 {observe}
"""


@dataclass(frozen=True)
class Policy:
    """What a balancer does beside its health checks. By default it never tries again, and its checks are all it knows.

    Attributes:
        balance: HAProxy's word. `random(1)` picks as kube-proxy does.
        marks_down: A server whose connection fails is out at once, until a health check succeeds.
        connects_again: Where no connection could be made, another server is tried. No request is sent twice.
    """

    balance: str = "leastconn"
    marks_down: bool = False
    connects_again: bool = False


@dataclass(frozen=True)
class Sent:
    """Requests that were meant for a server.

    Attributes:
        answered: Requests with a status of the server.
        unanswered: Requests that were in flight when the server ended, or when they timed out.
        refused: Requests without a connection.
    """

    answered: int
    unanswered: int
    refused: int


def write_configuration(folder: Path, port: int, ports: Sequence[int], probe: Probe, policy: Policy) -> str:
    """Return HAProxy's configuration. The servers are `pod0`, `pod1` and so on, in the order of their ports."""
    head = _CONFIGURATION.format(
        folder=folder,
        port=port,
        path=probe.path,
        timeout=probe.timeout_s,
        period_ms=probe.period_s * 1000,
        fall=probe.failure_threshold,
        balance=policy.balance,
        server_timeout=SERVER_TIMEOUT_S,
        retries="retries 3\n  option redispatch 1" if policy.connects_again else "retries 0",
        observe="observe layer4 error-limit 1 on-error mark-down" if policy.marks_down else "",
    )
    return head + "".join(f"  server pod{number} 127.0.0.1:{own}\n" for number, own in enumerate(ports))


def count_sent(row: Mapping[str, str]) -> Sent:
    """Count the requests of a server by the columns of `show stat`, once none of them is open.

    A server on which a request was in flight may end. Then HAProxy closes a client's used connection in silence, and
    counts no error. So these requests are what is left of all.

    Source: HAProxy's management guide, section 9.1.
    """
    answered = sum(int(row[f"hrsp_{kind}"] or 0) for kind in ("1xx", "2xx", "3xx", "4xx", "5xx", "other"))
    refused, elsewhere = int(row["econ"]), int(row["wredis"])
    return Sent(answered, int(row["stot"]) - answered - refused - elsewhere, refused)


class Balancer:
    """Running HAProxy."""

    def __init__(self, folder: Path, url: str, process: "subprocess.Popen[bytes]") -> None:
        self._folder = folder
        self.url = url
        self.process = process

    def command(self, text: str) -> str:
        """Send a command to the stats socket, and return the answer."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self._folder / "stats"))
            client.sendall(text.encode() + b"\n")
            return b"".join(iter(lambda: client.recv(65536), b"")).decode()

    def servers(self) -> dict[str, dict[str, str]]:
        """Return the columns of each server, such as `status` and `stot`."""
        lines = self.command("show stat").removeprefix("# ").splitlines()
        rows = csv.DictReader(line for line in lines if line)
        return {row["svname"]: row for row in rows if row["svname"].startswith("pod")}

    def is_up(self, server: str) -> bool:
        """Return whether a server gets requests."""
        return self.servers()[server]["status"].startswith("UP")

    def use(self, num_servers: int) -> None:
        """Send requests to the first servers alone."""
        for number, server in enumerate(self.servers()):
            self.command(f"set server replicas/{server} state {'ready' if number < num_servers else 'maint'}")
        wait_for(lambda: sum(map(self.is_up, self.servers())) == num_servers, f"{num_servers} servers are up")

    def sent(self) -> dict[str, Sent]:
        """Return the requests of each server since the start."""
        return {server: count_sent(row) for server, row in self.servers().items()}

    def have_answered(self, path: str) -> bool:
        """Return whether each server's first health check has ended and one server answers `path`."""
        states = {row["check_status"].removeprefix("* ") for row in self.servers().values()}
        return not states & {"", "INI"} and status_of(self.url + path) == 200


@contextmanager
def run_haproxy(folder: Path, configuration: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run HAProxy on a configuration until the end of the block."""
    if not (program := shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")):
        raise SystemExit("HAProxy is missing. The simulation needs it. Install Debian's package haproxy.")
    file = folder / "haproxy.cfg"
    file.write_text(configuration, encoding="utf-8")
    process = subprocess.Popen([program, "-q", "-f", str(file)])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def balancer(folder: Path, ports: Sequence[int], probe: Probe, policy: Policy | None = None) -> Iterator[Balancer]:
    """Run HAProxy in front of these ports. Its first health checks have ended."""
    port = free_port()
    configuration = write_configuration(folder, port, ports, probe, policy or Policy())
    (folder / "stats").unlink(missing_ok=True)  # of an earlier one
    with run_haproxy(folder, configuration) as process:
        running = Balancer(folder, f"http://127.0.0.1:{port}", process)
        wait_for((folder / "stats").is_socket, "HAProxy has its socket")
        wait_for(lambda: running.have_answered(probe.path), "HAProxy knows its servers")
        yield running


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
