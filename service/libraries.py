"""Settings of libraries that connect or write files by themselves.

They are environment variables, because these libraries act when they are imported.
"""

import os
from pathlib import Path

_FOLDERS = {"KERAS_HOME": "keras", "MPLCONFIGDIR": "matplotlib"}
_TENSORFLOW_LOG = "TF_CPP_MIN_LOG_LEVEL"
_LOOPBACK = ("", "127.0.0.1", "localhost", "[::1]")
_SET_BEFORE = {variable for variable in (*_FOLDERS, _TENSORFLOW_LOG) if os.environ.get(variable)}


def disable_telemetry() -> None:
    """Forbid ONNX Runtime to report to its maker. It reads the variable when it is imported."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def keep_ray_quiet(address: str) -> None:
    """Forbid Ray to report to its maker. Keep it on the loopback interface if the cluster's address is there.

    An empty address is there. Otherwise Ray would look for the machine's own address by way of one in the internet. It
    reads the variables when it is imported.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if address.rpartition(":")[0] in _LOOPBACK:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # an address other than loopback is for a cluster


def limit_tensorflow_log(level: int) -> None:
    """Set TensorFlow's log level, unless the user has set it. 2 leaves errors, 3 leaves fatal errors."""
    if _TENSORFLOW_LOG not in _SET_BEFORE:
        os.environ[_TENSORFLOW_LOG] = str(level)


def keep_files_in(cache: Path) -> None:
    """Give Keras and matplotlib a folder each below `cache`. TensorFlow imports both.

    So settings in `~/.keras` have no effect. A variable of the user stays. Without a home folder nothing is set.
    """
    try:
        cache = cache.expanduser().absolute()
    except RuntimeError:
        return
    for variable in _FOLDERS.keys() - _SET_BEFORE:
        os.environ[variable] = str(cache / _FOLDERS[variable])
