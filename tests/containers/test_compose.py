"""`docker compose up`, for real, on the CPU."""

import json
import os
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import REPOSITORY
from containers.conftest import PHOTO, Compose, Stack, predict, run
from support.drawing import draw_folder, draw_photograph, encode

from service.settings import ServeSettings

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]  # the first one builds the image


def configured(*profiles: str) -> dict[str, Any]:
    flags = [flag for profile in profiles for flag in ("--profile", profile)]
    services = json.loads(run("docker", "compose", *flags, "config", "--format", "json", cwd=REPOSITORY))["services"]
    assert isinstance(services, dict)
    return services


def test_hadolint_finds_nothing_odd_in_the_dockerfile() -> None:
    run("hadolint", str(REPOSITORY / "docker" / "Dockerfile"))


def test_up_without_a_profile_serves_on_the_gpu(engine: None) -> None:
    (name,) = configured()
    service = configured()[name]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert service["build"]["target"] == "gpu"


def test_the_error_without_nvidia_runtime_is_documented(compose: Compose) -> None:
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine may have the NVIDIA runtime")
    command = ["docker", "run", "--rm", "--gpus", "all", "flowers:cpu", "doctor"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    error = "could not select device driver"
    assert error in process.stderr
    assert error in (REPOSITORY / "docs" / "guides" / "deploy.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["flowers", "cpu"])
def test_every_service_is_shut_in_with_time_to_drain(engine: None, name: str) -> None:
    service = configured("cpu")[name]
    settings = ServeSettings()
    assert service["stop_grace_period"] == "45s"
    assert settings.drain_delay_s + settings.drain_timeout_s < 45
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["restart"] == "unless-stopped"
    assert [port["host_ip"] for port in service["ports"]] == ["127.0.0.1"]
    (store,) = service["volumes"]
    assert store["read_only"]


@pytest.mark.parametrize("name", ["flowers", "cpu", "train", "train-gpu", "prometheus", "grafana"])
def test_every_service_has_limits_of_memory_processes_and_logs(engine: None, name: str) -> None:
    service = configured("cpu", "train", "monitoring")[name]
    assert int(service["deploy"]["resources"]["limits"]["memory"]) > 0
    assert service["pids_limit"] == 2048
    options = service["logging"]["options"]
    assert (options["max-size"], options["max-file"]) == ("10m", "5")


@pytest.mark.parametrize("flags", [("--port", "9000"), ("--host", "127.0.0.1"), ("--host", "::", "--port=9001")])
def test_the_health_check_asks_where_the_service_listens(cpu_image: str, flags: tuple[str, ...]) -> None:
    container = run("docker", "run", "--detach", "--network", "none", cpu_image, "serve", *flags).strip()
    try:
        for _ in range(60):
            (state,) = json.loads(run("docker", "inspect", container))
            if state["State"]["Health"]["Status"] == "healthy" or not state["State"]["Running"]:
                break
            time.sleep(0.5)
        assert state["State"]["Health"]["Status"] == "healthy", state["State"]
    finally:
        run("docker", "rm", "--force", container)


@pytest.mark.parametrize("name", ["flowers", "cpu"])
def test_settings_of_the_shell_reach_the_service(engine: None, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixed = {"model_store", "cache", "max_cache_bytes", "host", "port"}  # by the image and its mounts
    settings = [f"FLOWERS_{setting.upper()}" for setting in ServeSettings.model_fields if setting not in fixed]
    settings.append("OTEL_EXPORTER_OTLP_ENDPOINT")
    for setting in settings:
        monkeypatch.setenv(setting, "7")
    passed = configured("cpu")[name]["environment"]
    assert {setting: value for setting, value in passed.items() if value is not None} == dict.fromkeys(settings, "7")


def test_a_photograph_is_answered_through_the_published_port(stack: Stack) -> None:
    response = predict(stack.published_url)
    assert response.status_code == 200
    assert sum(row["probability"] for row in response.json()["predictions"]) == pytest.approx(1, abs=1e-5)


def test_a_large_image_is_decoded_in_another_process(stack: Stack) -> None:
    photo = encode(draw_photograph(0, seed=1, size=(2400, 1800)), "PNG", compress_level=1)
    response = httpx.post(f"{stack.direct_url}/predict", content=photo, timeout=60)
    assert response.status_code == 200, response.text
    assert "decode_process" in run("docker", "top", stack.container)


def test_it_runs_without_rights_on_a_read_only_root(stack: Stack) -> None:
    assert run("docker", "exec", stack.container, "id", "-u").strip() == "10001"
    for path in ("/written", "/srv/model_store/written", "/opt/flowers/written"):
        write = ["docker", "exec", stack.container, "python", "-c", f"open({path!r}, 'w')"]
        process = subprocess.run(write, capture_output=True, text=True, check=False)
        assert "Read-only file system" in process.stderr, path


def test_the_memory_limit_is_set_and_holds_under_load(stack: Stack) -> None:
    limit = 6 * 1024**3
    assert stack.inspect()["HostConfig"]["Memory"] == limit
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: predict(stack.direct_url).status_code, range(200)))
    assert answers == [200] * 200
    peak = "cd /sys/fs/cgroup && cat memory.peak || cat memory/memory.max_usage_in_bytes"  # cgroup v2, v1
    assert 0 < int(run("docker", "exec", stack.container, "sh", "-c", peak)) < limit
    assert not stack.inspect()["State"]["OOMKilled"]


def test_the_cpu_image_is_light(cpu_image: str) -> None:
    find = "import importlib.util as u, sys; sys.exit(any(map(u.find_spec, ['tensorflow', 'keras', 'onnx'])))"
    run("docker", "run", "--rm", "--entrypoint", "python", cpu_image, "-c", find)
    base, image = (
        int(run("docker", "image", "inspect", "--format", "{{.Size}}", name))
        for name in ("python:3.11-slim-bookworm", cpu_image)
    )
    assert image - base < 260e6


def test_a_container_counts_the_cores_that_it_may_use(cpu_image: str) -> None:
    doctor = ("docker", "run", "--rm", "--cpus", "0.9", cpu_image, "doctor", "--json")
    assert json.loads(run(*doctor))["cpu"]["cores"] == 1


def test_it_needs_no_network(cpu_image: str) -> None:
    container = run(
        "docker", "run", "--detach", "--network", "none", "--read-only", "--tmpfs", "/tmp", cpu_image
    ).strip()
    ask = (
        "import sys, time, urllib.request as u\n"
        "r = u.Request('http://127.0.0.1:8000/predict', sys.stdin.buffer.read(), {'Content-Type': 'image/jpeg'})\n"
        "for _ in range(240):\n"
        "    try: print(u.urlopen(r).status); break\n"
        "    except OSError: time.sleep(0.5)\n"
    )
    try:
        asked = subprocess.run(
            ["docker", "exec", "-i", container, "python", "-c", ask], input=PHOTO, capture_output=True, check=False
        )
        assert asked.stdout.decode().strip() == "200", asked.stderr
    finally:
        run("docker", "rm", "--force", container)


def test_a_stop_under_load_loses_no_accepted_request(stack: Stack) -> None:
    url = stack.direct_url
    statuses: list[int] = []
    lost: list[str] = []
    stopped = threading.Event()
    signalled_at = float("inf")

    def ask() -> None:
        while not stopped.is_set():
            try:
                statuses.append(predict(url).status_code)
            except (httpx.ConnectError, httpx.ConnectTimeout):
                return  # never accepted: the listening socket is gone
            except httpx.HTTPError as error:
                # When the listening socket closes, after the delay, the kernel resets what nobody has accepted yet.
                is_at_the_end = time.monotonic() - signalled_at > ServeSettings().drain_delay_s
                if not (is_at_the_end and isinstance(error, httpx.ReadError | httpx.WriteError)):
                    lost.append(repr(error))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    while len(statuses) < 30:
        time.sleep(0.01)
    signalled_at = time.monotonic()
    run("docker", "stop", "--time", "45", stack.container)
    stopped.set()
    for thread in threads:
        thread.join()

    assert stack.inspect()["State"]["ExitCode"] == 0
    assert lost == []
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) > 30


@pytest.mark.slow
def test_a_training_publishes_as_the_owner_of_the_store(stack: Stack, tmp_path: Path) -> None:
    compose, owner = stack.compose, 4321
    shipped = predict(stack.direct_url).json()["model"]["version"]
    photos = draw_folder(tmp_path / "photos", photographs_per_class=20)
    for path in (tmp_path, photos, *photos.rglob("*")):
        path.chmod(0o755)
    for path in (compose.folder / "model_store", *(compose.folder / "model_store").rglob("*")):
        os.chown(path, owner, owner)
    run("docker", "build", "-f", str(REPOSITORY / "docker" / "Dockerfile"), "--target", "train", "-t", "flowers:train",
        str(REPOSITORY))  # fmt: skip

    quick = ("--name", "flowers", "--epochs", "1", "--teacher", "none", "--take")
    compose("--profile", "train", "run", "--rm", "-v", f"{photos}:/photos:ro", "train", "train", "/photos", *quick)

    version = compose.folder / "model_store" / "flowers" / str(shipped + 1)
    owners = {(path.stat().st_uid, path.stat().st_gid) for path in (version, *version.rglob("*"))}
    assert owners == {(owner, owner)}
    for _ in range(600):
        (model,) = httpx.get(f"{stack.direct_url}/models").json()["models"]
        if model["live_version"] == shipped + 1:
            break
        time.sleep(0.1)
    assert predict(stack.direct_url).json()["model"]["version"] == shipped + 1
    assert stack.inspect()["RestartCount"] == 0
