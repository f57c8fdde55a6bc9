"""The manifests are valid, and the real container keeps the timings that they assume."""

import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from conftest import REPOSITORY
from containers.conftest import Compose, Stack, predict, run

from service.settings import ServeSettings

pytestmark = [pytest.mark.containers, pytest.mark.timeout(1800)]  # the first one builds the image

KUBERNETES = REPOSITORY / "docker" / "kubernetes"


def render(overlay: str) -> dict[str, dict[str, Any]]:
    """Kind -> resource."""
    text = run("kubectl", "kustomize", str(KUBERNETES / "overlays" / overlay))
    return {resource["kind"]: resource for resource in yaml.safe_load_all(text)}


def container_of(overlay: str) -> dict[str, Any]:
    (container,) = render(overlay)["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize("overlay", ["cpu", "gpu", "train"])
def test_the_manifests_hold_to_the_strict_schema(overlay: str, tmp_path: Path) -> None:
    rendered = tmp_path / f"{overlay}.yaml"
    rendered.write_text(run("kubectl", "kustomize", str(KUBERNETES / "overlays" / overlay)))
    run("kubernetes-validate", "--strict", str(rendered))


def render_with(folder: Path, overlay: str, *components: str) -> tuple[str, Path]:
    """An overlay with components, as text and as a file."""
    names = ", ".join(f"components/{name}" for name in components)
    (folder / "kustomization.yaml").write_text(f"resources: [overlays/{overlay}]\ncomponents: [{names}]\n", "utf-8")
    for name in ("base", "overlays", "components"):
        shutil.copytree(KUBERNETES / name, folder / name)
    text = run("kubectl", "kustomize", str(folder))
    rendered = folder / "rendered.yaml"
    rendered.write_text(text, encoding="utf-8")
    return text, rendered


def test_the_component_takes_the_store_from_a_volume(tmp_path: Path) -> None:
    text, rendered = render_with(tmp_path, "cpu", "store-volume")
    run("kubernetes-validate", "--strict", str(rendered))
    assert "claimName: flowers-model-store" in text


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
@pytest.mark.parametrize("components", [("autoscaling",), ("autoscaling", "autoscaling-on-queue")])
def test_the_autoscaler_alone_sets_the_number_of_pods(
    overlay: str, components: tuple[str, ...], tmp_path: Path
) -> None:
    text, rendered = render_with(tmp_path, overlay, *components)
    run("kubernetes-validate", "--strict", str(rendered))
    resources = {resource["kind"]: resource for resource in yaml.safe_load_all(text)}
    deployment, autoscaler = resources["Deployment"], resources["HorizontalPodAutoscaler"]["spec"]
    assert "replicas" not in deployment["spec"]
    assert autoscaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert len(autoscaler["metrics"]) == len(components)


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_pods_obey_the_restricted_profile_during_rollouts(overlay: str) -> None:
    deployment = render(overlay)["Deployment"]["spec"]
    pod, container = deployment["template"]["spec"], container_of(overlay)
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert deployment["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert container["resources"]["limits"]["memory"]
    selector = deployment["selector"]["matchLabels"]
    assert render(overlay)["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == selector
    assert render(overlay)["Service"]["spec"]["selector"] == selector


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_pods_take_one_port_and_reach_nobody(overlay: str) -> None:
    rendered = render(overlay)
    policy = rendered["NetworkPolicy"]["spec"]
    assert policy["podSelector"] == rendered["Deployment"]["spec"]["selector"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert not policy.get("egress")
    ((allowed,),) = [rule["ports"] for rule in policy["ingress"]]
    (port,) = container_of(overlay)["ports"]
    assert allowed == {"protocol": "TCP", "port": port["name"]}


def test_the_base_has_resources_for_overlays_that_say_nothing() -> None:
    text = (KUBERNETES / "base" / "deployment.yaml").read_text(encoding="utf-8")
    (container,) = yaml.safe_load(text)["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"].keys() == container["resources"]["limits"].keys() == {"cpu", "memory"}
    assert container_of("cpu")["resources"] == container["resources"]
    assert container_of("gpu")["resources"]["limits"]["memory"] == "6Gi"


def test_the_gpu_overlay_takes_one_tainted_gpu() -> None:
    assert container_of("gpu")["resources"]["limits"]["nvidia.com/gpu"] == 1
    (toleration,) = render("gpu")["Deployment"]["spec"]["template"]["spec"]["tolerations"]
    assert toleration["key"] == "nvidia.com/gpu"
    assert render("gpu")["ConfigMap"]["data"]["FLOWERS_DEVICE"] == "gpu"


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_the_program_has_every_setting_of_the_config_map(overlay: str) -> None:
    for name, value in render(overlay)["ConfigMap"]["data"].items():
        setting = name.removeprefix("FLOWERS_").lower()
        ServeSettings.model_validate({setting: value})


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_kubernetes_own_variables_do_not_reach_the_settings(engine: None, cpu_image: str, overlay: str) -> None:
    links = {"FLOWERS_SERVICE_HOST": "10.96.0.7", "FLOWERS_PORT": "tcp://10.96.0.7:80"}  # as Kubernetes writes them
    variables = [word for name, value in links.items() for word in ("--env", f"{name}={value}")]
    process = subprocess.run(["docker", "run", "--rm", *variables, cpu_image], capture_output=True, check=False)
    assert process.returncode == 2, "the service takes them now: enableServiceLinks may go"
    rendered = render(overlay)
    assert rendered["Service"]["metadata"]["name"] == "flowers"
    assert rendered["Deployment"]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_grace_period_is_longer_than_the_drain() -> None:
    pod = render("cpu")["Deployment"]["spec"]["template"]["spec"]
    settings = render("cpu")["ConfigMap"]["data"]
    drain_s = float(settings["FLOWERS_DRAIN_DELAY_S"]) + float(settings["FLOWERS_DRAIN_TIMEOUT_S"])
    assert pod["terminationGracePeriodSeconds"] > drain_s + 5


def test_the_container_starts_within_its_startup_probe(stack: Stack) -> None:
    probe = container_of("cpu")["startupProbe"]
    run("docker", "restart", "--time", "0", stack.container)
    begun = time.monotonic()
    budget_s = probe["periodSeconds"] * probe["failureThreshold"]
    url = stack.direct_url
    assert _until(lambda: _status(url, probe["httpGet"]["path"]) == 200, within_s=budget_s), "it never started"
    assert time.monotonic() - begun < budget_s
    assert _status(url, "/readyz") == 200


def test_after_sigterm_it_answers_until_the_pod_ends(compose: Compose, stack: Stack) -> None:
    pod = render("cpu")["Deployment"]["spec"]["template"]["spec"]
    readiness = container_of("cpu")["readinessProbe"]
    url = stack.direct_url
    begun = time.monotonic()
    run("docker", "kill", "--signal", "TERM", stack.container)
    noticed_s = readiness["periodSeconds"] * readiness["failureThreshold"] + readiness["timeoutSeconds"]
    assert _until(lambda: _status(url, readiness["httpGet"]["path"]) == 503, within_s=noticed_s)
    assert _status(url, "/livez") == 200
    assert predict(url).status_code == 200, "a request that came while the balancer had not noticed was refused"
    exit_code = int(run("docker", "wait", stack.container))
    assert exit_code == 0
    assert time.monotonic() - begun < pod["terminationGracePeriodSeconds"]


def test_only_a_frozen_process_fails_its_liveness_probe(stack: Stack) -> None:
    probe = container_of("cpu")["livenessProbe"]
    url = stack.direct_url
    run("docker", "pause", stack.container)
    try:
        with pytest.raises(httpx.TimeoutException):
            httpx.get(url + probe["httpGet"]["path"], timeout=probe["timeoutSeconds"])
    finally:
        run("docker", "unpause", stack.container)
    assert _status(url, probe["httpGet"]["path"]) == 200
    assert _until(lambda: stack.inspect()["State"]["Health"]["Status"] == "healthy", within_s=60)


def _status(url: str, path: str) -> int | None:
    try:
        return httpx.get(url + path, timeout=3).status_code
    except httpx.TransportError:
        return None


def _until(holds: Callable[[], bool], *, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.1)
    return False
