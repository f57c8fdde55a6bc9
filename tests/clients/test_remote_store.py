"""A replica on a bucket: real HTTP to moto's server, which simulates S3, through a proxy that cuts and slows."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from conftest import REPOSITORY
from support.drawing import draw_photograph, encode
from support.processes import wait_until
from support.programs import find_free_port, listening, require_environment
from support.serving import Served, served
from support.tcp_proxy import TcpProxy, proxied

pytestmark = pytest.mark.clients

PHOTO = encode(draw_photograph(3, seed=300))
SECRET = "a-secret-key-that-nobody-may-see"
SIGNED = {"Authorization": "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-east-1/s3/aws4_request"}  # as moto asks
VERSION = max((REPOSITORY / "model_store" / "flowers").glob("[0-9]*"), key=lambda path: int(path.name))
NEWEST = int(VERSION.name)


@dataclass
class Bucket:
    """A bucket on moto, filled directly and read through the proxy."""

    moto: str
    name: str
    proxy: TcpProxy
    python: str

    def put(self, path: str, content: bytes) -> None:
        url = f"{self.moto}/{self.name}/models/flowers/{path}"
        httpx.put(url, content=content, headers=SIGNED, timeout=60).raise_for_status()

    def delete(self, path: str) -> None:
        httpx.delete(f"{self.moto}/{self.name}/models/flowers/{path}", headers=SIGNED).raise_for_status()

    def publish(self, version: int, **replaced: bytes) -> None:
        """Upload the shipped version under a number. SHA256SUMS comes last, as the guide says."""
        files = sorted((path for path in VERSION.rglob("*") if path.is_file()), key=lambda path: "SUMS" in path.name)
        for file in files:
            content = replaced.get(file.stem, file.read_bytes())
            self.put(f"{version}/{file.relative_to(VERSION).as_posix()}", content)

    def serve(self, *flags: str) -> AbstractContextManager[Served]:
        quick = ("--reload-interval-s", "0.3", "--engine", "onnxruntime", "--drain-delay-s", "0", *flags)
        return served(f"s3://{self.name}/models", *quick, python=self.python)


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    python = require_environment("moto")
    port = find_free_port()
    log = tmp_path_factory.mktemp("moto") / "log"
    with listening([python, "-m", "moto.server", "-p", str(port)], port, log):
        yield port


@pytest.fixture
def bucket(
    moto: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Bucket]:
    name = f"garden-{abs(hash(request.node.name))}"
    url = f"http://127.0.0.1:{moto}"
    httpx.put(f"{url}/{name}").raise_for_status()
    with proxied(moto) as proxy:
        for variable, value in {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}",
            "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "FLOWERS_CACHE": str(tmp_path / "cache"),
            "PYTHONPATH": str(REPOSITORY),
        }.items():
            monkeypatch.setenv(variable, value)
        yield Bucket(url, name, proxy, require_environment("remote"))


def predict(service: Served) -> int:
    answer = httpx.post(f"{service.url}/predict", content=PHOTO, timeout=10)
    answer.raise_for_status()
    version = answer.json()["model"]["version"]
    assert isinstance(version, int)
    return version


def loaded(service: Served) -> int:
    version = service.wait_for("model loaded")["version"]
    assert isinstance(version, int)
    return version


def stop(service: Served) -> None:
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(20) == 0


def test_two_workers_share_one_pull(bucket: Bucket) -> None:
    bucket.publish(NEWEST)
    with bucket.serve("--workers", "2") as service:
        assert loaded(service) == NEWEST
        wait_until(lambda: "flowers_workers_ready 2" in httpx.get(f"{service.url}/metrics").text)
        assert {predict(service) for _ in range(4)} == {NEWEST}
        listed = httpx.get(f"{service.url}/models/flowers").text
        assert bucket.name not in listed
        stop(service)
    weights = f"GET /{bucket.name}/models/flowers/{NEWEST}/saved_model.pb".encode()
    assert bytes(bucket.proxy.sent).count(weights) == 1
    assert b"AKIDEXAMPLE" in bucket.proxy.sent, "the credentials are those of the environment"


def test_a_cut_network_leaves_the_live_version(bucket: Bucket) -> None:
    bucket.publish(NEWEST)
    with bucket.serve() as service:
        assert loaded(service) == NEWEST
        bucket.proxy.cut_after = 1_000_000
        bucket.publish(NEWEST + 1)
        bucket.proxy.drop_all()
        service.wait_for("remote store unavailable")
        assert predict(service) == NEWEST
        bucket.proxy.cut_after = None
        assert service.wait_for("version pulled")["version"] == NEWEST + 1
        assert loaded(service) == NEWEST + 1
        assert predict(service) == NEWEST + 1
        stop(service)


def test_a_corrupt_object_is_never_served(bucket: Bucket) -> None:
    bucket.publish(NEWEST)
    with bucket.serve() as service:
        assert loaded(service) == NEWEST
        bucket.publish(NEWEST + 1, saved_model=b"malicious")
        assert "saved_model.pb" in service.wait_for("version not pulled")["reason"]
        assert predict(service) == NEWEST
        bucket.put(f"{NEWEST + 1}/saved_model.pb", (VERSION / "saved_model.pb").read_bytes())
        assert loaded(service) == NEWEST + 1
        stop(service)


def test_a_slow_store_slows_no_answer(bucket: Bucket) -> None:
    bucket.publish(NEWEST)
    with bucket.serve() as service:
        assert loaded(service) == NEWEST
        bucket.proxy.bytes_per_s = 200_000
        bucket.publish(NEWEST + 1)
        draft = Path(os.environ["FLOWERS_CACHE"])
        wait_until(lambda: any(draft.glob(f"stores/*/flowers/.pulling-{NEWEST + 1}/*/*.onnx")))
        began = time.monotonic()
        assert {predict(service) for _ in range(5)} == {NEWEST}
        assert httpx.get(f"{service.url}/readyz").status_code == 200
        assert time.monotonic() - began < 5
        stop(service)  # a pull delays no end


def test_a_start_without_network_serves_the_cache(bucket: Bucket) -> None:
    bucket.publish(NEWEST)
    with bucket.serve() as service:
        assert loaded(service) == NEWEST
        stop(service)
    bucket.proxy.is_down = True
    with bucket.serve("--workers", "2") as service:
        assert loaded(service) == NEWEST
        service.wait_for("remote store unavailable")
        assert predict(service) == NEWEST
        stop(service)


def test_a_pin_in_the_bucket_rolls_back(bucket: Bucket) -> None:
    bucket.publish(NEWEST)
    bucket.publish(NEWEST + 1)
    with bucket.serve() as service:
        assert loaded(service) == NEWEST + 1
        bucket.put("PINNED", f"{NEWEST}\n".encode())
        assert loaded(service) == NEWEST
        bucket.delete("PINNED")
        assert loaded(service) == NEWEST + 1
        stop(service)


def test_no_secret_is_shown(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.publish(NEWEST)
    bucket.proxy.is_down = True
    shown = []
    with bucket.serve() as service:
        service.wait_for("remote store unavailable")
        shown += [httpx.get(f"{service.url}{path}").text for path in ("/readyz", "/models", "/models/flowers")]
        bucket.proxy.is_down = False
        assert loaded(service) == NEWEST
        shown += [httpx.get(f"{service.url}{path}").text for path in ("/metrics", "/models/flowers")]
        stop(service)
        shown += service.lines
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    commands: list[list[str]] = [["models", "list"], ["doctor", "--json"]]
    for command in commands:
        shown += run(bucket, *command)
    assert not [text for text in shown if SECRET in text or "Signature" in text or "AKIDEXAMPLE" in text]
    assert SECRET.encode() not in bucket.proxy.sent


def test_a_bucket_that_is_not_there_is_told(bucket: Bucket) -> None:
    with served("s3://garden-of-nobody/models", "--reload-interval-s", "0.3", python=bucket.python) as service:
        assert "no version of flowers" in service.wait_for("remote store unavailable")["reason"]
        wait_until(lambda: "The remote store has none" in httpx.get(f"{service.url}/readyz").text)
        assert "garden-of-nobody" not in httpx.get(f"{service.url}/readyz").text
        stop(service)


def run(bucket: Bucket, *command: str) -> list[str]:
    words = [bucket.python, "-m", "service", *command, "--model-store", f"s3://{bucket.name}/models"]
    process = subprocess.run(words, capture_output=True, text=True, check=False, timeout=100)
    assert "NoCredentialsError" in process.stdout + process.stderr
    return [process.stdout, process.stderr]
