"""Platforms that start the service: what SageMaker and Vertex AI say by variables and folders."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from service.errors import SettingsError
from service.store.layout import MODEL_NAME, SAVED_MODEL_FILE, parse_version

SAGEMAKER_FOLDER = Path("/opt/ml/model")
"""Folder of the model on SageMaker."""
ROUTE = r"/[A-Za-z0-9._~:@/-]{0,200}"
"""Form of a path that a platform asks for."""
_SAGEMAKER_PORT = 8080
_ALL_ADDRESSES = "0.0.0.0"  # noqa: S104 - platforms ask from outside of the container
# SageMaker kills a container 30 s after SIGTERM. The delay before takes 5 s.
_SAGEMAKER_DRAIN_TIMEOUT_S = 20.0


@dataclass(frozen=True)
class Mounted:
    """Store and model in the folder of SageMaker."""

    model_store: Path
    model: str


def read_platforms(environment: Mapping[str, str], known: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the settings of `flowers serve` that the platform asks for. Without a platform there are none.

    Args:
        environment: The variables.
        known: Settings that are given by other means. Their variables are not read.
        folder: `SAGEMAKER_FOLDER`, or another one in a test.

    Raises:
        SettingsError: A variable has a wrong value.
    """
    asked: dict[str, Any] = {}
    ports = [name for name in ("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT") if environment.get(name, "").strip()]
    is_sagemaker = "SAGEMAKER_BIND_TO_PORT" in ports or folder.is_dir()
    if ports or is_sagemaker:
        asked["host"] = _ALL_ADDRESSES
    if "port" not in known and ports:
        asked["port"] = _read_port(ports[0], environment[ports[0]].strip())
    elif is_sagemaker:
        asked["port"] = _SAGEMAKER_PORT
    if is_sagemaker:
        asked["drain_timeout_s"] = _SAGEMAKER_DRAIN_TIMEOUT_S
    for setting, name in (("vertex_health_route", "AIP_HEALTH_ROUTE"), ("vertex_predict_route", "AIP_PREDICT_ROUTE")):
        if setting not in known and (route := environment.get(name, "").strip()):
            asked[setting] = _read_route(name, route)
    if model_id := environment.get("AIP_DEPLOYED_MODEL_ID", "").strip():
        asked["vertex_deployed_model_id"] = model_id
    return {setting: value for setting, value in asked.items() if setting not in known}


def find_mounted(folder: Path) -> Mounted | None:
    """Return the store in the folder of SageMaker. None means that there is no version.

    The folder holds `<model>/<version>/`, or `<version>/` alone. Then its own name is the model's.

    Raises:
        SettingsError: The files of a version lie in the folder itself.
    """
    if (folder / SAVED_MODEL_FILE).exists():
        raise SettingsError(
            f"{folder} holds the files of a version. Move them into a folder with a number, such as {folder / '1'}."
        )
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        if any(parse_version(name) for name in names):
            return Mounted(folder.parent, folder.name)
        for name in names:
            if MODEL_NAME.fullmatch(name) and any(parse_version(path.name) for path in (folder / name).iterdir()):
                return Mounted(folder, name)
    except OSError:
        return None
    return None


def _read_port(name: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise SettingsError(f"{name} is {text[:80]!r}. It must be a TCP port from 1 to 65535. Correct it, or unset it.")
    return int(text)


def _read_route(name: str, route: str) -> str:
    if not re.fullmatch(ROUTE, route):
        raise SettingsError(f"{name} is {route[:80]!r}. It must be a path such as /predict. Correct it, or unset it.")
    return route
