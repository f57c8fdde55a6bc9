"""No command makes a connection or leaves a file that is not documented. Each runs under strace, without a network."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode
from support.serving import Served

IS_CI = os.environ.get("CI") == "true"
UNSHARE = ("unshare", "--map-root-user", "--net")
STRACE = ("strace", "--seccomp-bpf", "-f", "-qq", "-y", "-e",
          "trace=connect,sendto,sendmsg,sendmmsg,openat,?open,?creat,?rename,renameat,renameat2")  # fmt: skip
# A new namespace's loopback is down: SIOCSIFFLAGS with IFF_UP. The namespace lives until standard input ends.
HOLD_NAMESPACE = """
import fcntl, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH22x", b"lo", 1))
print("ready", flush=True)
sys.stdin.read()
"""
ADDRESS = re.compile(r'sa_family=AF_INET6?, .*?htons\((\d+)\).*?"([^"]+)"')
NAME_SERVICE = re.compile(r'sa_family=AF_UNIX, sun_path=@?"([^"]*(?:nscd|resolve|avahi|mdns)[^"]*)"')
CREATED = re.compile(r'open(?:at)?\(.*"([^"]+)", [^"]*O_CREAT|creat\("([^"]+)"|rename.*"([^"]+)"[^"]*$')


@dataclass(frozen=True)
class Traces:
    """What a command did: `asked` are addresses `host:port` and name services, `left` files and empty folders."""

    asked: set[str]
    left: set[str]


class OfflineMachine:
    """A user's machine without a network: a new home, nothing in the environment, a copy of the shipped store."""

    def __init__(self, folder: Path, namespace: int) -> None:
        self.home, self.temporary, self.work = folder / "home", folder / "tmp", folder / "work"
        for place in (self.home, self.temporary, self.work):
            place.mkdir()
        (self.home / ".keras").mkdir()
        (self.home / ".keras" / "keras.json").write_text('{"backend": "jax"}', encoding="utf-8")  # is not for us
        shutil.copytree(REPOSITORY / "model_store", self.work / "model_store")
        self.trace = folder / "trace"
        self._namespace = namespace
        self._before = self._leaves()

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        """`flowers ARGUMENTS` as a process; its log is read from standard error."""
        enter = ("nsenter", f"--target={self._namespace}", "--user", "--preserve-credentials", "--net")
        command = (*enter, *STRACE, "-o", str(self.trace), sys.executable, "-m", "service", *arguments)
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY),
            "HOME": str(self.home), "TMPDIR": str(self.temporary),
        }  # fmt: skip
        return subprocess.Popen(
            command, cwd=self.work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def run(self, *arguments: str) -> Traces:
        """The traces of a command that must end well."""
        process = self.start(*arguments)
        _, error = process.communicate()
        assert process.returncode == 0, error
        return self.traces()

    def traces(self) -> Traces:
        """Those of the last command; what an earlier one left does not count."""
        lines = self.trace.read_text(encoding="utf-8", errors="replace").splitlines()
        asked = {f"{host}:{port}" for line in lines for port, host in ADDRESS.findall(line)}
        asked |= {path for line in lines for path in NAME_SERVICE.findall(line)}
        leaves = self._leaves()
        left = {str(path) for path in leaves - self._before} | set(filter(self._is_left_elsewhere, lines))
        self._before = leaves
        return Traces(asked, {path.replace(str(self.home), "~").removeprefix(f"{self.work}/") for path in left})

    def _leaves(self) -> set[Path]:
        found = {path for place in (self.home, self.temporary, self.work) for path in place.rglob("*")}
        return found - {path.parent for path in found}

    def _is_left_elsewhere(self, line: str) -> bool:
        """Whether the line creates a file outside of this machine's folders, and it is still there."""
        created = CREATED.search(line)
        if created is None or " = -1 " in line or "__pycache__" in line:
            return False
        path = self.work / next(filter(None, created.groups()))
        return path.is_file() and self.work.parent not in path.parents


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[OfflineMachine]:
    """Skipped aloud where there is no strace or no namespace to be had; a failure where CI=true."""
    here = shutil.which("strace") and shutil.which("nsenter") and shutil.which("unshare")
    if not here or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0:
        reason = "no strace, or no right to a network namespace: apt-get install strace, and run as root"
        if IS_CI:
            pytest.fail(reason)
        pytest.skip(reason)
    with subprocess.Popen(
        [*UNSHARE, sys.executable, "-c", HOLD_NAMESPACE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        yield OfflineMachine(tmp_path, holder.pid)
        holder.kill()


def draw(folder: Path) -> tuple[str, str]:
    """A JPEG, which is decoded on a thread, and an AVIF, which is decoded in a process of its own."""
    photograph = draw_photograph(2, seed=300)
    (folder / "1.jpg").write_bytes(encode(photograph))
    (folder / "1.avif").write_bytes(encode(photograph, "AVIF"))
    return str(folder / "1.jpg"), str(folder / "1.avif")


@pytest.mark.parametrize(
    ("command", "left"),
    [
        ("--help", set()),
        ("--version", set()),
        ("doctor", set()),
        ("models list", set()),
        ("models show", set()),
        ("models verify", set()),
        ("models use 9", {"model_store/flowers/PINNED"}),
    ],
)
def test_looking_at_the_store_asks_nobody_and_leaves_nothing(
    machine: OfflineMachine, command: str, left: set[str]
) -> None:
    assert machine.run(*command.split()) == Traces(set(), left)


def test_a_prediction_asks_nobody_and_leaves_nothing(machine: OfflineMachine, tmp_path: Path) -> None:
    assert machine.run("predict", *draw(tmp_path)) == Traces(set(), set())


def test_serving_asks_nobody_and_leaves_nothing(machine: OfflineMachine, tmp_path: Path) -> None:
    with machine.start("serve", "--port", "0", "--log-format", "json", "--drain-delay-s", "0") as process:
        service = Served(process)
        service.wait_for("model loaded")
        of_service, machine.trace = machine.trace, tmp_path / "trace of the clients"
        pid = int(of_service.read_text(encoding="utf-8").split()[0])  # strace itself takes no signals
        try:
            here = {service.url.removeprefix("http://")}
            assert machine.run("predict", *draw(tmp_path), "--url", service.url) == Traces(here, set())
            load = ("--connections", "1", "--duration-s", "0.3", "--warm-up-s", "0")
            assert machine.run("bench", service.url, *load) == Traces(here, set())
            os.kill(pid, signal.SIGTERM)
            process.communicate()
            assert process.returncode == 0
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            raise
    machine.trace = of_service
    assert machine.traces() == Traces(set(), set())


@pytest.mark.ray
def test_scoring_with_ray_asks_only_its_machine_and_cloud(machine: OfflineMachine, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    draw(tmp_path / "photos")
    traces = machine.run("predict", "--ray", "--output", "scores", str(tmp_path / "photos"))
    cloud = "169.254.169.254:80"  # Ray's head asks it, and a name server for that of Google, with statistics off, too
    others = {address for address in traces.asked if "127.0.0.1:" not in address}
    assert {address for address in others if not address.endswith((":53", "/nscd/socket"))} <= {cloud}
    left = {path for path in traces.left if '"/proc/' not in path}
    assert left == {"scores/_manifest.json", "scores/part-000000.parquet", "~/.ray/auth_token"}


@pytest.mark.quiet
def test_training_asks_nobody_and_leaves_only_documented_files(machine: OfflineMachine, drawn_folder: Path) -> None:
    quick = ("--epochs", "1", "--teacher", "none", "--batch-size", "32", "--seed", "2", "--device", "cpu")
    trained = machine.run("train", str(drawn_folder), "--name", "drawn", *quick)
    assert trained.asked == set()
    assert_listed(trained.left, "flowers train")
    assert {path.split("/")[0] for path in trained.left} == {"~", "model_store", "runs"}

    flags = ("--model", "drawn", "--engine", "savedmodel", "--device", "cpu", "--report", "report.html")
    evaluated = machine.run("evaluate", str(drawn_folder), *flags)
    assert evaluated == Traces(set(), {"report.html"})


@pytest.mark.quiet
def test_a_savedmodel_asks_nobody_and_leaves_only_documented_files(machine: OfflineMachine, tmp_path: Path) -> None:
    predicted = machine.run("predict", *draw(tmp_path), "--engine", "savedmodel", "--device", "cpu")
    assert predicted.asked == set()
    assert predicted.left
    assert_listed(predicted.left, "a SavedModel")


def assert_listed(left: set[str], by: str) -> None:
    """Each path lies below one that SECURITY.md gives in a row for this command."""
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8"), re.M)
    folders = tuple(path for path, writers in rows if by in writers)
    assert not {path for path in left if not path.startswith(folders)}, f"SECURITY.md lists {folders}"
