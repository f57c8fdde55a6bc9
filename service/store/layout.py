"""Where things lie in a store: `<store>/<model>/<version>/`, and which names count.

Names come from people and from requests: none reaches the file system unless this module has passed it.
"""

import os
import re
from pathlib import Path

from service.errors import InvalidParameter, InvalidVersion, ModelNotFound, VersionNotFound

SAVED_MODEL_FILE = "saved_model.pb"
METADATA_FILE = "assets.extra/metadata.json"
SPLIT_FILE = "assets.extra/split.json"
SHA256SUMS_FILE = "assets.extra/SHA256SUMS"
PINNED_FILE = "PINNED"
HIGHEST_FILE = ".highest"
"""The highest version that was ever removed, so that its number is not given to another network."""

PUBLISHING_PREFIX = ".publishing-"
REMOVING_PREFIX = ".removing-"
WRITING_PREFIX = ".writing-"

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # 18 digits fit the signed 64 bits that TensorFlow Serving reads


def check_model_name(model: str) -> None:
    """Refuse a name that the store could not hold; for whoever chooses one.

    Raises:
        InvalidParameter: `model` is not 1 to 64 letters, digits, dots, dashes and underscores.
    """
    if not _MODEL_NAME.fullmatch(model):
        raise InvalidParameter(
            f"{model[:80]!r} cannot be the name of a model: give it 1 to 64 letters, digits, dots, dashes or "
            "underscores, a letter or digit first"
        )


def model_folder(store: Path, model: str) -> Path:
    """The folder of `model`, which need not exist.

    Raises:
        ModelNotFound: no model can have this name, or its folder is a link that leaves the store.
    """
    if not _MODEL_NAME.fullmatch(model):
        raise ModelNotFound(f"no model is called {model[:80]!r}: letters, digits, dots, dashes and underscores only")
    folder = store / model
    if not _lies_inside(folder, store):
        raise ModelNotFound(f"model {model} is a link that leaves the store: copy the model into the store instead")
    return folder


def version_folder(store: Path, model: str, version: int) -> Path:
    """The folder of one version, which need not exist.

    Raises:
        ModelNotFound: as `model_folder`.
        VersionNotFound: versions are integers from 1.
        InvalidVersion: it is a link that leaves the store.
    """
    if not _VERSION.fullmatch(str(version)):
        raise VersionNotFound(f"model {model} has no version {version}: versions are integers from 1")
    folder = model_folder(store, model) / str(version)
    if not _lies_inside(folder, store):
        raise InvalidVersion(
            f"version {version} of {model} is a link that leaves the store: copy it into the store instead"
        )
    return folder


def parse_version(name: str) -> int | None:
    """The version that a file name means; None for every other name (leading zeros included)."""
    return int(name) if _VERSION.fullmatch(name) else None


def _lies_inside(path: Path, store: Path) -> bool:
    """Links resolved; a path that does not exist lies where it would be made."""
    real_store = os.path.realpath(store)
    real_path = os.path.realpath(path)
    return os.path.commonpath([real_store, real_path]) == real_store and real_path != real_store


def training_command(model: str) -> str:
    """Return the command that trains a model of this name. Without a folder it would train `flowers`."""
    return "flowers train" if model == "flowers" else f"flowers train FOLDER --name {model}"
