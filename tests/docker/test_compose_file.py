"""The compose file, without a container engine."""

from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

SERVICES = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text(encoding="utf-8"))["services"]


@pytest.fixture(params=sorted(SERVICES))
def service(request: pytest.FixtureRequest) -> dict[str, Any]:
    service = SERVICES[request.param]
    assert isinstance(service, dict)
    return service


def test_no_process_in_a_container_gains_rights(service: dict[str, Any]) -> None:
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_a_missing_model_store_is_an_error(service: dict[str, Any]) -> None:
    (mount,) = [volume for volume in service["volumes"] if isinstance(volume, dict)]
    assert (mount["source"], mount["bind"]) == ("./model_store", {"create_host_path": False})
