"""The profile `monitoring`, with Debian's Prometheus in place of the vendor's image. Grafana's cannot be had here."""

import dataclasses
import json
from collections.abc import Iterator

import httpx
import pytest
from containers.conftest import Compose, run
from support.drawing import draw_photograph, encode
from support.programs import find_free_port
from support.prometheus import wait_for

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]

KEY = "a-key-of-32-characters-000000001"
PHOTO = encode(draw_photograph(3, seed=300))
# The user, the volume and the place of the program are those of the vendor's image. Debian's version is older.
STAND_IN = """
FROM python:3.11-slim-bookworm
RUN apt-get update && apt-get install --yes --no-install-recommends prometheus wget
RUN install -d -o 65534 -g 65534 /prometheus
USER 65534
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["/bin/prometheus"]
"""
OVERRIDE = "services: {prometheus: {image: flowers-test-prometheus, pull_policy: never}}\n"


@pytest.fixture(scope="module")
def monitored(compose: Compose, tmp_path_factory: pytest.TempPathFactory) -> Compose:
    """The compose file with the stand-in."""
    run("docker", "build", "-t", "flowers-test-prometheus", "-", input=STAND_IN)
    override = tmp_path_factory.mktemp("override") / "override.yml"
    override.write_text(OVERRIDE, encoding="utf-8")
    return dataclasses.replace(compose, override=override)


@pytest.fixture(scope="module", params=["without keys", "with keys"])
def prometheus(
    request: pytest.FixtureRequest, monitored: Compose, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """Prometheus beside the CPU service, which has keys or none. Both are healthy."""
    port = find_free_port()
    profiles = ("--profile", "cpu", "--profile", "monitoring")
    with pytest.MonkeyPatch.context() as patch, httpx.Client(base_url=f"http://127.0.0.1:{port}/api/v1") as client:
        patch.setenv("PROMETHEUS_PORT", str(port))
        if request.param == "with keys":
            folder = tmp_path_factory.mktemp("keys")
            (folder / "key").write_text(f"{KEY}\n", encoding="utf-8")
            for path in (folder / "key", folder, *folder.parents[:2]):
                path.chmod(0o755)
            patch.setenv("FLOWERS_API_KEYS", KEY)
            patch.setenv("PROMETHEUS_KEY_FILE", str(folder / "key"))
        monitored(*profiles, "up", "--no-build", "--detach", "--wait", "cpu", "prometheus")
        yield client
        monitored(*profiles, "rm", "--stop", "--force", "--volumes", "cpu", "prometheus")


def test_prometheus_of_the_stack_scrapes_the_service(monitored: Compose, prometheus: httpx.Client) -> None:
    url = f"http://127.0.0.1:{monitored.port}/predict"
    assert httpx.post(url, content=PHOTO, headers={"X-API-Key": KEY}, timeout=60).status_code == 200
    wait_for(prometheus, 'flowers_requests_total{route="/predict", status="200"}', 1)
    wait_for(prometheus, 'up{instance="flowers:8000"}', 1)
    wait_for(prometheus, "count(up)", 1)
    assert prometheus.get("alerts").json()["data"]["alerts"] == []


def test_prometheus_runs_without_rights_on_a_read_only_root(monitored: Compose, prometheus: httpx.Client) -> None:
    (state,) = json.loads(run("docker", "inspect", monitored.container("prometheus")))
    assert state["Config"]["User"] == "65534"
    host = state["HostConfig"]
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    assert host["Memory"] == 1024**3
    assert [binding["HostIp"] for binding in host["PortBindings"]["9090/tcp"]] == ["127.0.0.1"]
    mounts = {mount["Destination"]: mount["RW"] for mount in state["Mounts"]}
    assert mounts == {"/etc/prometheus": False, "/run/flowers-api-key": False, "/prometheus": True}
