"""Settings of libraries that connect or write files by themselves.

They are environment variables, because these libraries act when they are imported.
"""

import os
from pathlib import Path

_FOLDERS = {"KERAS_HOME": "keras", "MPLCONFIGDIR": "matplotlib"}
_TENSORFLOW_LOG = "TF_CPP_MIN_LOG_LEVEL"
_SET_BEFORE = {variable for variable in (*_FOLDERS, _TENSORFLOW_LOG) if os.environ.get(variable)}


def disable_telemetry() -> None:
    """Forbid ONNX Runtime to report to its maker.

    ONNX Runtime reads the variable once, when it is imported. It takes 0, false, no and the empty value for consent.
    No value that was set before counts.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def limit_tensorflow_log(level: int) -> None:
    """Set TensorFlow's log level, unless the user has set it. 2 leaves errors, 3 leaves fatal errors."""
    if _TENSORFLOW_LOG not in _SET_BEFORE:
        os.environ[_TENSORFLOW_LOG] = str(level)


def keep_files_in(cache: Path) -> None:
    """Give Keras and matplotlib a folder each below `cache`.

    TensorFlow imports both, so every command with a SavedModel writes their files. The user's own settings in
    `~/.keras` and `~/.config/matplotlib` have no effect. A variable that the user has set is left alone. Without a
    home folder the libraries choose a place.
    """
    try:
        cache = cache.expanduser().absolute()
    except RuntimeError:
        return
    for variable in _FOLDERS.keys() - _SET_BEFORE:
        os.environ[variable] = str(cache / _FOLDERS[variable])
