"""Names in a store: `<store>/<model>/<version>/`, its candidates, the files of a version, its networks' tensors.

Names come from people and from requests. This module checks each before it reaches the file system.
"""

import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from service.errors import InvalidParameter, InvalidVersion, ModelNotFound, VersionNotFound

SAVED_MODEL_FILE = "saved_model.pb"
METADATA_FILE = "assets.extra/metadata.json"
SPLIT_FILE = "assets.extra/split.json"
SHA256SUMS_FILE = "assets.extra/SHA256SUMS"
BACKBONE_LICENCE_FILE = "assets.extra/BACKBONE_LICENCE.txt"
MODEL_CARD_FILE = "assets.extra/README.md"
PINNED_FILE = "PINNED"
HIGHEST_FILE = ".highest"  # the highest version that was ever removed. Its number is not given again
Precision = Literal["float32", "int8"]
CPU_MODEL_FILES: dict[Precision, str] = {
    "float32": "assets.extra/cpu_model.onnx",
    "int8": "assets.extra/cpu_model.int8.onnx",
}
"""Networks for onnxruntime by precision. A version may have both, float32 alone, or none."""

SIGNATURE, SCORES_SIGNATURE = "serving_default", "scores"
"""Signatures of the SavedModel: probabilities alone, and all outputs. Versions of format 1 have the first only."""
INPUT, OUTPUT = "images", "probabilities"
"""Tensors of every network: uint8 (N, size, size, 3) and float32 (N, num_classes)."""
ENERGY, DISTANCE = "energy", "distance"
"""Further outputs, float32 (N,). Format 2 has the energy. A network with a pretrained backbone has both."""

CANDIDATES_FOLDER = "candidates"  # beside the versions. No model may have this name
PUBLISHING_PREFIX = ".publishing-"
REMOVING_PREFIX = ".removing-"

MODEL_NAME = re.compile(rf"(?!{CANDIDATES_FOLDER}\Z)[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}")
MODEL_NAME_RULE = (
    f"1 to 64 letters, digits, dots, dashes or underscores, a letter or digit first, but not {CANDIDATES_FOLDER!r}"
)
_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # 18 digits fit the signed 64 bits that TensorFlow Serving reads


def list_precisions(files: Collection[str]) -> tuple[Precision, ...]:
    """List the precisions for which a version with these files has a network."""
    return tuple(precision for precision, file in CPU_MODEL_FILES.items() if file in files)


def check_model_name(model: str) -> None:
    """Refuse a name for a new model. Raises `InvalidParameter`, with the rule."""
    if not MODEL_NAME.fullmatch(model):
        raise InvalidParameter(f"{model[:80]!r} cannot be the name of a model. Give it {MODEL_NAME_RULE}.")


def model_folder(store: Path, model: str) -> Path:
    """Return the folder of a model, which need not exist. Raises `ModelNotFound` if it would leave the store."""
    if not MODEL_NAME.fullmatch(model):
        raise ModelNotFound(f"No model is called {model[:80]!r}. Give it {MODEL_NAME_RULE}.")
    folder = store / model
    if not _lies_inside(folder, store):
        raise ModelNotFound(f"Model {model} is a link that leaves the store. Copy the model into the store instead.")
    return folder


def version_folder(store: Path, model: str, version: int) -> Path:
    """Return the folder of a version, which need not exist.

    Raises `VersionNotFound` for no integer from 1, and `InvalidVersion` for a link that leaves the store.
    """
    _check_version(model, version)
    folder = model_folder(store, model) / str(version)
    if not _lies_inside(folder, store):
        raise InvalidVersion(
            f"Version {version} of {model} is a link that leaves the store. Copy it into the store instead."
        )
    return folder


def candidates_folder(store: Path, model: str) -> Path:
    """Return the folder of a model's candidates, which need not exist. Raises `InvalidVersion` for a link."""
    folder = model_folder(store, model) / CANDIDATES_FOLDER
    if folder.is_symlink():
        raise InvalidVersion(f"{model}/{CANDIDATES_FOLDER} is a link. Put a folder with the candidates there instead.")
    return folder


def candidate_folder(store: Path, model: str, version: int) -> Path:
    """Return the folder of a candidate, which need not exist.

    Raises `VersionNotFound` for no integer from 1, and `InvalidVersion` for a link. Taking would move the link alone.
    """
    _check_version(model, version)
    folder = candidates_folder(store, model) / str(version)
    if folder.is_symlink():
        raise InvalidVersion(f"Candidate {version} of {model} is a link. Copy the candidate to its place instead.")
    return folder


def model_of(folder: Path) -> str:
    """Return the model to which the folder of a version or a candidate belongs."""
    parent = folder.parent
    return parent.parent.name if parent.name == CANDIDATES_FOLDER else parent.name


def parse_version(name: str) -> int | None:
    """Return the version that a name means. None means that it is no version, as with a leading zero."""
    return int(name) if _VERSION.fullmatch(name) else None


def _check_version(model: str, version: int) -> None:
    if not _VERSION.fullmatch(str(version)):
        raise VersionNotFound(f"Model {model} has no version {version}. Give an integer from 1.")


def _lies_inside(path: Path, store: Path) -> bool:
    """Return whether a path, its links resolved, is below the store."""
    return Path(os.path.realpath(store)) in Path(os.path.realpath(path)).parents


def training_command(model: str) -> str:
    """Return the command that trains a model of this name. Without a folder it would train `flowers`."""
    return "flowers train" if model == "flowers" else f"flowers train FOLDER --name {model}"


def version_command(verb: Literal["take", "use"], model: str, version: int) -> str:
    """Return the command that takes a candidate, or pins a version. It names a model that is not the default."""
    return f"flowers models {verb} {version}" + ("" if model == "flowers" else f" --model {model}")
