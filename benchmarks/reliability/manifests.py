"""Kubernetes manifests as the simulations need them: the readiness probe and the settings of a pod."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

BASE = Path(__file__).parents[2] / "docker" / "kubernetes" / "base"


@dataclass(frozen=True)
class Probe:
    """Probe of a container. The kubelet asks every `period_s`. `failure_threshold` failures in a row are its verdict.

    An answer after `timeout_s` is a failure.
    """

    path: str
    period_s: float
    timeout_s: float
    failure_threshold: int

    @property
    def verdict_s(self) -> float:
        """Return the longest time until a frozen pod has failed, in seconds."""
        return self.period_s * self.failure_threshold + self.timeout_s


def read_readiness_probe(base: Path = BASE) -> Probe:
    """Return the probe that decides whether a pod gets traffic. Missing numbers are the defaults of Kubernetes."""
    (container,) = _read(base / "deployment.yaml")["spec"]["template"]["spec"]["containers"]
    probe = container["readinessProbe"]
    return Probe(
        path=probe["httpGet"]["path"],
        period_s=probe.get("periodSeconds", 10),
        timeout_s=probe.get("timeoutSeconds", 1),
        failure_threshold=probe.get("failureThreshold", 3),
    )


def read_drain_flags(base: Path = BASE) -> list[str]:
    """Return the settings of the drain in the config map as flags of `flowers serve`."""
    (generator,) = _read(base / "kustomization.yaml")["configMapGenerator"]
    settings = [literal.split("=", 1) for literal in generator["literals"]]
    flags = [(name.removeprefix("FLOWERS_").lower().replace("_", "-"), value) for name, value in settings]
    return [word for name, value in flags if name.startswith("drain-") for word in (f"--{name}", value)]


def _read(file: Path) -> dict[str, Any]:
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document
