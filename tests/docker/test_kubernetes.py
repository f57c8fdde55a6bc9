"""The manifests' files, without kubectl: what the base and its component promise."""

import json
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

from service.engines.open_version import open_stored
from service.engines.wish import EngineWish
from service.settings import ServeSettings
from service.training.recipe import AlexNetRecipe, find_recipe
from service.workers.count import LIGHT_WORKER_BYTES, TENSORFLOW_WORKER_BYTES, count_workers

KUBERNETES = REPOSITORY / "docker" / "kubernetes"
RUNS_IN_IMAGE = "/var/lib/flowers/runs"


def read(path: str) -> dict[str, Any]:
    document = yaml.safe_load((KUBERNETES / path).read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def left_of(memory: str) -> int:
    """The bytes that a supervisor leaves when it counts."""
    return int(memory.removesuffix("Gi")) * 1024**3 - 64 * 1024**2


@pytest.fixture
def pod() -> dict[str, Any]:
    pod = read("base/deployment.yaml")["spec"]["template"]["spec"]
    assert isinstance(pod, dict)
    return pod


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (container,) = pod["containers"]
    assert isinstance(container, dict)
    return container


@pytest.mark.parametrize(
    ("probe", "path"), [("startupProbe", "/startupz"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
)
def test_each_probe_asks_its_own_path(container: dict[str, Any], probe: str, path: str) -> None:
    assert container[probe]["httpGet"] == {"path": path, "port": "http"}


def test_traffic_stops_well_before_the_drain_delay_ends(container: dict[str, Any]) -> None:
    (generator,) = read("base/kustomization.yaml")["configMapGenerator"]
    settings = dict(literal.split("=") for literal in generator["literals"])
    probe = container["readinessProbe"]
    noticed_s = probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"]
    assert noticed_s + 1 < float(settings["FLOWERS_DRAIN_DELAY_S"])


def test_pods_run_as_the_user_of_the_image(pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert (context["runAsNonRoot"], context["runAsUser"], context["runAsGroup"]) == (True, 10001, 10001)
    assert "USER 10001:10001" in (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8")


def test_pods_carry_no_token_of_the_cluster(pod: dict[str, Any]) -> None:
    assert pod["automountServiceAccountToken"] is False


def test_the_service_leads_to_the_port_of_the_container(container: dict[str, Any]) -> None:
    (port,) = read("base/service.yaml")["spec"]["ports"]
    assert container["ports"] == [{"name": port["targetPort"], "containerPort": ServeSettings().port}]


def test_draining_a_node_moves_one_replica_at_a_time() -> None:
    num_replicas = read("base/deployment.yaml")["spec"]["replicas"]
    assert read("base/pod-disruption-budget.yaml")["spec"]["maxUnavailable"] == 1 < num_replicas


@pytest.fixture
def autoscaler() -> dict[str, Any]:
    spec = read("components/autoscaling/horizontal-pod-autoscaler.yaml")["spec"]
    assert isinstance(spec, dict)
    return spec


def test_the_autoscaler_leaves_a_pod_while_a_node_drains(autoscaler: dict[str, Any]) -> None:
    moved = read("base/pod-disruption-budget.yaml")["spec"]["maxUnavailable"]
    assert moved < autoscaler["minReplicas"] < autoscaler["maxReplicas"]


def test_the_autoscaler_sees_busy_pods(autoscaler: dict[str, Any], container: dict[str, Any]) -> None:
    (metric,) = autoscaler["metrics"]
    assert metric["resource"]["name"] in container["resources"]["requests"]
    assert metric["resource"]["target"]["averageUtilization"] < 90  # a busy pod stands at 100, and 10 % is tolerated


def test_pods_drain_before_the_next_one_goes(autoscaler: dict[str, Any], pod: dict[str, Any]) -> None:
    (policy,) = autoscaler["behavior"]["scaleDown"]["policies"]
    assert (policy["type"], policy["value"]) == ("Pods", 1)
    assert policy["periodSeconds"] > pod["terminationGracePeriodSeconds"]


def test_overload_reaches_the_queue_that_adds_pods(container: dict[str, Any]) -> None:
    (patch,) = read("components/autoscaling-on-queue/kustomization.yaml")["patches"]
    (metric,) = (step["value"]["pods"] for step in yaml.safe_load(patch["patch"]))
    cores = int(container["resources"]["limits"]["cpu"])
    shipped = open_stored(REPOSITORY / "model_store", "flowers", EngineWish("onnxruntime", threads=cores))
    shipped.close()
    assert float(metric["target"]["averageValue"]) * 1.1 < shipped.engine.min_queue_size
    assert f"`{metric['metric']['name']}`" in (REPOSITORY / "docs/reference/metrics.md").read_text(encoding="utf-8")


def test_a_pod_has_a_worker_for_each_core(container: dict[str, Any]) -> None:
    resources = container["resources"]
    assert resources["requests"] == resources["limits"]
    cores, memory = int(resources["limits"]["cpu"]), resources["limits"]["memory"]
    assert count_workers(num_cores=cores, memory_bytes=left_of(memory), worker_bytes=LIGHT_WORKER_BYTES) == cores == 2
    assert "patches" not in read("overlays/cpu/kustomization.yaml")


def test_a_gpu_pod_carries_two_workers_with_tensorflow() -> None:
    resources = yaml.safe_load(read("overlays/gpu/kustomization.yaml")["patches"][0]["patch"])[0]["value"]
    memory_bytes = left_of(resources["limits"]["memory"])
    assert count_workers(num_cores=64, memory_bytes=memory_bytes, worker_bytes=TENSORFLOW_WORKER_BYTES) == 2


def test_the_service_cannot_write_the_mounted_store() -> None:
    (patch,) = read("components/store-volume/kustomization.yaml")["patches"]
    volume, mount = (operation["value"] for operation in yaml.safe_load(patch["patch"]))
    assert volume["persistentVolumeClaim"]["readOnly"] is True
    assert (mount["mountPath"], mount["readOnly"]) == ("/srv/model_store", True)


def test_a_pod_may_change_nothing_of_its_container(pod: dict[str, Any], container: dict[str, Any]) -> None:
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_no_variable_of_kubernetes_is_a_setting(pod: dict[str, Any]) -> None:
    assert pod["enableServiceLinks"] is False


def test_a_pod_ends_after_its_drain(pod: dict[str, Any]) -> None:
    (generator,) = read("base/kustomization.yaml")["configMapGenerator"]
    settings = dict(literal.split("=") for literal in generator["literals"])
    drain_s = float(settings["FLOWERS_DRAIN_DELAY_S"]) + float(settings["FLOWERS_DRAIN_TIMEOUT_S"])
    assert pod["terminationGracePeriodSeconds"] > drain_s + 5
    assert settings["FLOWERS_LOG_FORMAT"] == "json"


def test_a_rollout_never_has_fewer_pods() -> None:
    strategy = read("base/deployment.yaml")["spec"]["strategy"]["rollingUpdate"]
    assert (strategy["maxUnavailable"], strategy["maxSurge"]) == (0, 1)


@pytest.mark.parametrize(("probe", "seconds"), [("startupProbe", 120), ("livenessProbe", 30)])
def test_a_slow_pod_has_the_stated_time(container: dict[str, Any], probe: str, seconds: int) -> None:
    assert container[probe]["periodSeconds"] * container[probe]["failureThreshold"] == seconds


def test_a_pod_connects_to_nothing() -> None:
    policy = read("base/network-policy.yaml")["spec"]
    assert (set(policy["policyTypes"]), policy["egress"]) == ({"Ingress", "Egress"}, [])


def test_the_gpu_overlay_serves_on_one_gpu_or_ends() -> None:
    overlay = read("overlays/gpu/kustomization.yaml")
    resources, tolerations = (step["value"] for step in yaml.safe_load(overlay["patches"][0]["patch"]))
    assert resources["limits"] == {"memory": "6Gi", "nvidia.com/gpu": 1}
    assert [toleration["key"] for toleration in tolerations] == ["nvidia.com/gpu"]
    assert overlay["configMapGenerator"][0]["literals"] == ["FLOWERS_DEVICE=gpu"]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_an_overlay_takes_the_image_of_its_device(device: str) -> None:
    (image,) = read(f"overlays/{device}/kustomization.yaml")["images"]
    assert image["newTag"] == device


@pytest.fixture
def predictor() -> dict[str, Any]:
    manifest = yaml.safe_load((REPOSITORY / "examples/kserve/inference-service.yaml").read_text(encoding="utf-8"))
    predictor = manifest["spec"]["predictor"]
    assert isinstance(predictor, dict)
    return predictor


def test_kserve_runs_the_container_of_the_deployment(predictor: dict[str, Any], container: dict[str, Any]) -> None:
    (own,) = predictor["containers"]
    (generator,) = read("base/kustomization.yaml")["configMapGenerator"]
    settings = [f"{one['name']}={one['value']}" for one in own["env"] if one["name"].startswith("FLOWERS_")]
    assert settings == generator["literals"]
    (port,), (own_port,) = container["ports"], own["ports"]
    assert own_port["containerPort"] == port["containerPort"]
    for field, value in container.items():
        if field.endswith("Probe"):
            assert own[field] == {**value, "httpGet": {**value["httpGet"], "port": own_port["name"]}}
        elif field in ("resources", "securityContext", "volumeMounts"):
            assert own[field] == value


def test_kserve_scales_and_rolls_like_the_deployment(
    predictor: dict[str, Any], pod: dict[str, Any], autoscaler: dict[str, Any]
) -> None:
    shared = pod.keys() & predictor.keys() - {"containers"}
    assert {"terminationGracePeriodSeconds", "enableServiceLinks", "securityContext", "volumes"} <= shared
    assert {field: predictor[field] for field in shared} == {field: pod[field] for field in shared}
    strategy = read("base/deployment.yaml")["spec"]["strategy"]
    assert predictor["deploymentStrategy"]["rollingUpdate"] == strategy["rollingUpdate"]
    target = autoscaler["metrics"][0]["resource"]["target"]["averageUtilization"]
    bounds = (autoscaler["minReplicas"], autoscaler["maxReplicas"], "cpu", target)
    assert tuple(predictor[field] for field in ("minReplicas", "maxReplicas", "scaleMetric", "scaleTarget")) == bounds


def test_each_pod_of_a_training_knows_all_the_others() -> None:
    job, service = read("overlays/train/job.yaml"), read("overlays/train/service.yaml")
    spec, (container,) = job["spec"], job["spec"]["template"]["spec"]["containers"]
    assert spec["completionMode"] == "Indexed"
    process, tf_config = container["env"]
    assert process["valueFrom"]["fieldRef"]["fieldPath"].endswith("['batch.kubernetes.io/job-completion-index']")
    name, place = job["metadata"]["name"], service["metadata"]["name"]
    (port,) = {one["containerPort"] for one in container["ports"]} & {one["port"] for one in service["spec"]["ports"]}
    for index in range(spec["completions"]):
        config = json.loads(tf_config["value"].replace(f"$({process['name']})", str(index)))
        assert config["task"] == {"type": "worker", "index": index}
        assert config["cluster"] == {"worker": [f"{name}-{i}.{place}:{port}" for i in range(spec["parallelism"])]}
    assert spec["parallelism"] == spec["completions"] > 1
    assert spec["template"]["spec"]["subdomain"] == place
    assert (service["spec"]["clusterIP"], service["spec"]["publishNotReadyAddresses"]) == ("None", True)


def test_a_training_in_many_pods_starts_lost_ones_again() -> None:
    job = read("overlays/train/job.yaml")["spec"]
    assert job["template"]["spec"]["restartPolicy"] == "OnFailure"
    assert job["backoffLimit"] > 10
    (container,) = job["template"]["spec"]["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts[RUNS_IN_IMAGE] == mounts["/srv/model_store"] == mounts["/srv/photographs"] == "training"
    assert f"FLOWERS_RUNS={RUNS_IN_IMAGE}" in (REPOSITORY / "docker" / "Dockerfile").read_text(encoding="utf-8")


def test_the_pods_of_a_training_share_one_recipe() -> None:
    (container,) = read("overlays/train/job.yaml")["spec"]["template"]["spec"]["containers"]
    verb, folder, *flags = container["args"]
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    assert (verb, folder) == ("train", "/srv/photographs")
    recipe = find_recipe(given["--recipe"], teacher=given["--teacher"])
    assert isinstance(recipe, AlexNetRecipe)
    assert recipe.teaching is None


def test_the_pods_of_a_training_reach_only_each_other() -> None:
    job, policy = (read(f"overlays/train/{name}.yaml")["spec"] for name in ("job", "network-policy"))
    (container,) = job["template"]["spec"]["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert job["template"]["spec"]["enableServiceLinks"] is False
    own = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "flowers-train"}}}
    assert policy["podSelector"] == own["podSelector"]
    assert [rule["from"] for rule in policy["ingress"]] == [[own]]
    peers, names = policy["egress"]
    assert peers["to"] == [own]
    assert {one["port"] for one in names["ports"]} == {53}
