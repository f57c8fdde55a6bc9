"""The compose file, without a container engine."""

import re
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

from service.settings import ServeSettings
from service.workers.count import LIGHT_WORKER_BYTES, TENSORFLOW_WORKER_BYTES, count_workers

SERVICES = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


@pytest.fixture(params=sorted(SERVICES))
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    service = SERVICES[request.param]
    assert isinstance(service, dict)
    return service


@pytest.fixture(params=["flowers", "cpu"])
def serving(request: pytest.FixtureRequest) -> dict[str, Any]:
    service = SERVICES[request.param]
    assert isinstance(service, dict)
    return service


def test_no_process_in_a_container_gains_rights(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", ["flowers", "cpu", "train", "train-gpu"])
def test_a_missing_model_store_is_an_error(name: str) -> None:
    (mount,) = [volume for volume in SERVICES[name]["volumes"] if isinstance(volume, dict)]
    assert (mount["source"], mount["bind"]) == ("./model_store", {"create_host_path": False})


def test_a_container_writes_to_its_mounts_alone(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["tmpfs"]


def test_a_container_has_limits_of_memory_processes_and_logs(service: dict[str, Any]) -> None:
    limits = service["deploy"]["resources"]["limits"]
    assert limits["memory"].endswith("g")
    assert service["pids_limit"] == limits["pids"] == 2048
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}


@pytest.mark.parametrize(
    ("name", "worker_bytes", "num_workers"), [("cpu", LIGHT_WORKER_BYTES, 16), ("flowers", TENSORFLOW_WORKER_BYTES, 2)]
)
def test_a_container_carries_the_stated_workers(name: str, worker_bytes: int, num_workers: int) -> None:
    memory = SERVICES[name]["deploy"]["resources"]["limits"]["memory"]
    left_bytes = int(memory.removesuffix("g")) * 1024**3 - 64 * 1024**2  # the supervisor has taken some
    assert count_workers(num_cores=64, memory_bytes=left_bytes, worker_bytes=worker_bytes) == num_workers


def test_only_this_machine_reaches_the_service(serving: dict[str, Any]) -> None:
    assert serving["ports"] == ["${FLOWERS_ADDRESS:-127.0.0.1}:${FLOWERS_PORT:-8000}:8000"]


def test_the_service_cannot_write_the_model_store(serving: dict[str, Any]) -> None:
    (mount,) = serving["volumes"]
    assert mount["read_only"] is True


def test_the_service_starts_again_and_has_time_to_drain(serving: dict[str, Any]) -> None:
    assert serving["restart"] == "unless-stopped"
    settings = ServeSettings()
    assert float(serving["stop_grace_period"].removesuffix("s")) > settings.drain_delay_s + settings.drain_timeout_s + 5


def test_every_setting_of_the_shell_reaches_the_service(serving: dict[str, Any]) -> None:
    fixed = {"model_store", "cache", "max_cache_bytes", "host", "port"}  # by the image and its mounts
    passed = set(serving["environment"])
    assert {name for name in passed if name.startswith("FLOWERS_")} == {
        f"FLOWERS_{setting.upper()}" for setting in ServeSettings.model_fields if setting not in fixed
    }
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in passed


def test_without_a_profile_the_gpu_serves() -> None:
    assert [name for name, service in SERVICES.items() if not service.get("profiles")] == ["flowers"]
    assert SERVICES["flowers"]["build"]["target"] == "gpu"


@pytest.mark.parametrize(("name", "num_gpus"), [("flowers", 1), ("cpu", 0), ("train", 0), ("train-gpu", 1)])
def test_a_container_takes_the_gpu_it_needs(name: str, num_gpus: int) -> None:
    devices = SERVICES[name]["deploy"]["resources"].get("reservations", {}).get("devices", [])
    assert [(device["driver"], device["count"]) for device in devices] == [("nvidia", 1)] * num_gpus


@pytest.mark.parametrize(("name", "device"), [("train", "cpu"), ("train-gpu", "gpu")])
def test_a_training_becomes_the_owner_and_keeps_its_runs(name: str, device: str) -> None:
    service = SERVICES[name]
    assert service["build"]["args"] == {"TRAIN_ON": device}
    assert (service["user"], service["cap_add"]) == ("0:0", ["SETUID", "SETGID"])
    dockerfile = (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    volumes = dict(volume.split(":") for volume in service["volumes"] if isinstance(volume, str))
    assert volumes.keys() == {"cache", "runs"}
    for name, path in volumes.items():
        assert f"FLOWERS_{name.upper()}={path}" in dockerfile.split()


@pytest.fixture(params=["prometheus", "grafana"])
def monitoring(request: pytest.FixtureRequest) -> dict[str, Any]:
    service = SERVICES[request.param]
    assert isinstance(service, dict)
    assert service["profiles"] == ["monitoring"]
    return service


def test_only_this_machine_reaches_the_monitoring() -> None:
    assert SERVICES["prometheus"]["ports"] == ["${PROMETHEUS_ADDRESS:-127.0.0.1}:${PROMETHEUS_PORT:-9090}:9090"]
    assert SERVICES["grafana"]["ports"] == ["${GRAFANA_ADDRESS:-127.0.0.1}:${GRAFANA_PORT:-3000}:3000"]


def test_images_of_others_have_a_fixed_version(monitoring: dict[str, Any]) -> None:
    assert re.fullmatch(r"(prom/prometheus:v|grafana/grafana:)\d+\.\d+\.\d+", monitoring["image"])


def test_the_monitoring_reads_files_that_exist(monitoring: dict[str, Any]) -> None:
    mounts = [volume for volume in monitoring["volumes"] if isinstance(volume, dict)]
    sources = [mount["source"] for mount in mounts if not mount["source"].startswith("$")]
    assert sources
    assert all((REPOSITORY / source).exists() for source in sources)
    assert all(mount["read_only"] and mount["bind"] == {"create_host_path": False} for mount in mounts)


def test_one_name_leads_to_the_service_that_runs() -> None:
    config = (REPOSITORY / "docker" / "prometheus" / "compose.yml").read_text(encoding="utf-8")
    (scraping,) = yaml.safe_load(config)["scrape_configs"]
    assert scraping["static_configs"] == [{"targets": ["flowers:8000"]}]
    assert SERVICES["cpu"]["networks"] == {"default": {"aliases": ["flowers"]}}


def test_the_key_of_prometheus_is_a_file_or_empty() -> None:
    config = (REPOSITORY / "docker" / "prometheus" / "compose.yml").read_text(encoding="utf-8")
    (scraping,) = yaml.safe_load(config)["scrape_configs"]
    targets = {
        volume["target"]: volume["source"] for volume in SERVICES["prometheus"]["volumes"] if isinstance(volume, dict)
    }
    assert targets[scraping["authorization"]["credentials_file"]] == "${PROMETHEUS_KEY_FILE:-/dev/null}"


def test_prometheus_keeps_what_its_alerts_need_and_not_everything() -> None:
    flags = dict(flag.removeprefix("--").split("=") for flag in SERVICES["prometheus"]["command"])
    alerts = (REPOSITORY / "docker" / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    assert set(re.findall(r"offset (\w+)", alerts)) == {"1w"}
    assert int(flags["storage.tsdb.retention.time"].removesuffix("d")) > 8
    assert flags["storage.tsdb.retention.size"].endswith("GB")
    assert f"prometheus:{flags['storage.tsdb.path']}" in SERVICES["prometheus"]["volumes"]


def test_grafana_has_no_account_to_log_in_with() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION"] == "true"
    assert environment["GF_AUTH_BASIC_ENABLED"] == "false"
    assert environment["GF_AUTH_DISABLE_LOGIN_FORM"] == "true"
    assert (environment["GF_AUTH_ANONYMOUS_ENABLED"], environment["GF_AUTH_ANONYMOUS_ORG_ROLE"]) == ("true", "Viewer")
    assert not [name for name in environment if "PASSWORD" in name]


def test_grafana_asks_its_vendor_for_nothing() -> None:
    environment = SERVICES["grafana"]["environment"]
    off = ("ANALYTICS_REPORTING", "ANALYTICS_CHECK_FOR_UPDATES", "ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
           "ANALYTICS_FEEDBACK_LINKS", "NEWS_NEWS_FEED", "SNAPSHOTS_EXTERNAL", "PLUGINS_PREINSTALL_AUTO_UPDATE",
           "PLUGINS_PLUGIN_ADMIN")  # fmt: skip
    found = {name.removeprefix("GF_").removesuffix("_ENABLED"): value for name, value in environment.items()}
    assert [name for name in off if found[name] != "false"] == []
    disabled = ("PLUGINS_PREINSTALL_DISABLED", "PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED", "SECURITY_DISABLE_GRAVATAR")
    assert [name for name in disabled if found[name] != "true"] == []
