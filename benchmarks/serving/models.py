"""Served models. They are the shipped one, and an AlexNet v1 that is trained for a few minutes."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.serving.environments import CACHE
from benchmarks.serving.servers import REPOSITORY
from service.store.versions import list_models

SHIPPED, FIRST = "flowers", "alexnet_v1"
_PER_CLASS, _EPOCHS = 240, 6


def store_of(name: str, photographs: Path) -> Path:
    """Return the model store with this model. v1 is trained into the cache first, if it is not there.

    It need not be accurate, as the expected answers are the SavedModel's own. But it must tell photographs apart, so
    that a wrong answer can be told. Random weights would not.
    """
    if name != FIRST:
        return REPOSITORY / "model_store"
    store = CACHE / f"model_store-{photographs.name}"
    if FIRST not in list_models(store):
        _train(store, photographs)
    return store


def _train(store: Path, photographs: Path) -> None:
    print("training AlexNet v1 for the benchmark: a few minutes, once", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory(prefix="serving-train-") as scratch:
        for label in sorted(folder for folder in photographs.iterdir() if folder.is_dir()):
            Path(scratch, "photographs", label.name).mkdir(parents=True)
            for file in sorted(label.glob("*.jp*g"))[:_PER_CLASS]:
                shutil.copy(file, Path(scratch, "photographs", label.name))
        recipe = ["--recipe", "article", "--epochs", str(_EPOCHS), "--device", "cpu"]
        command = ["train", f"{scratch}/photographs", "--name", FIRST, *recipe]
        places = ["--model-store", str(store), "--runs", f"{scratch}/runs"]
        subprocess.run([sys.executable, "-m", "service", *command, *places], check=True, stdout=subprocess.DEVNULL)
