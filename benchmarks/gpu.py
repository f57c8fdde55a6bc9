"""Engine, service and training on a GPU.

    python -m benchmarks.gpu [--smoke] [--device cpu]

* The engine is the shipped SavedModel on TensorFlow. Measured are images per second and milliseconds a call.
* The service is `flowers serve` with it. Measured are time to ready, answers per second, latency, and the memory of
  process and GPU.
* The training is an epoch of AlexNet v1 on the training part of flower_photos, with its batches in memory. The article
  says 2 s on its GPU and 9 s on its CPU, at its batch size.

Where the Keras backend is JAX, the engine is this project's networks with random weights, as JAX compiles them. There
is no service then. The result names the backend. `--device cpu` measures the same on the CPU. `--smoke` takes a minute
and writes nothing. The results go to `benchmarks/results/device-gpu.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import service  # noqa: F401 - before Keras, whose files it keeps in the cache folder

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np

from benchmarks.machine import RESULTS, describe_machine
from service.networks.alexnet import NETWORKS, alexnet_v1

REPOSITORY = Path(__file__).resolve().parent.parent
NUM_PHOTOGRAPHS = 2254  # in the training part of flower_photos
ARTICLE_BATCH_SIZE = 32


def measure_engine(device: Any, batch_sizes: list[int], seconds: float) -> list[dict[str, Any]]:
    """Return images per second and the median time of a call for each batch size."""
    from service.engines.engine import EngineInfo
    from service.engines.savedmodel import SavedModelEngine
    from service.store.versions import resolve_version

    folder = resolve_version(REPOSITORY / "model_store", "flowers").folder
    engine = SavedModelEngine(folder, EngineInfo("savedmodel", device, "float32", "the benchmark"))
    engine.warm_up(max(batch_sizes))
    images = np.random.default_rng(0).integers(0, 256, (max(batch_sizes), 224, 224, 3), np.uint8)
    rows = []
    for size in batch_sizes:
        durations_s = list(durations(partial(engine.run, images[:size]), seconds))
        rows.append(
            {
                "batch_size": size,
                "images_per_s": round(size * len(durations_s) / sum(durations_s), 1),
                "call_ms": round(statistics.median(durations_s) * 1000, 2),
                "device": engine.info.device,
            }
        )
    return rows


def measure_networks(device: str, batch_sizes: list[int], seconds: float) -> list[dict[str, Any]]:
    """Measure the networks as JAX compiles them, from pixels to probabilities. The rows are as of `measure_engine`."""
    import jax

    images = np.random.default_rng(0).integers(0, 256, (max(batch_sizes), 224, 224, 3), np.uint8)
    rows = []
    for name, build in NETWORKS.items():
        for policy in ("float32", "mixed_bfloat16"):
            keras.config.set_dtype_policy(policy)
            with jax.default_device(jax.devices(device)[0]):
                model = build(5)
                weights = [
                    [v.value for v in group] for group in (model.trainable_variables, model.non_trainable_variables)
                ]

                @jax.jit
                def compiled(weights: Any, pixels: Any, model: keras.Model = model) -> Any:
                    logits, _ = model.stateless_call(*weights, pixels.astype("float32") / 127.5 - 1, training=False)
                    return jax.nn.softmax(logits)

                def answer(weights: Any, pixels: Any, compiled: Any = compiled) -> Any:
                    return np.asarray(compiled(weights, pixels))

                for size in batch_sizes:
                    call = partial(answer, weights, images[:size])
                    for _ in range(3):
                        call()
                    durations_s = list(durations(call, seconds))
                    rows.append(
                        {
                            "network": name,
                            "precision": policy,
                            "batch_size": size,
                            "images_per_s": round(size * len(durations_s) / sum(durations_s), 1),
                            "call_ms": round(statistics.median(durations_s) * 1000, 2),
                        }
                    )
    return rows


def measure_service(device: str, connections: list[int], seconds: float) -> dict[str, Any]:
    """Ask `flowers serve`, a process, in a closed loop."""
    from benchmarks.reliability.replica import Replica, ask, store_of_its_own
    from service.bench.generator import Load

    with store_of_its_own() as store:
        begun_at = time.perf_counter()
        replica = Replica(store, "--engine", "savedmodel", "--device", device)
        try:
            ready_s = time.perf_counter() - begun_at
            rows = []
            for number in connections:
                summary = ask(replica.url, Load(connections=number, warm_up_s=1, duration_s=seconds))
                rows.append({"connections": number, **summary.to_json()})
            resident_mb, gpu_mb = replica.resident_mb(), gpu_memory_mb()
        finally:
            replica.process.kill()
            replica.process.wait()
    return {"ready_s": round(ready_s, 2), "resident_mb": round(resident_mb), "gpu_mb": gpu_mb, "load": rows}


def measure_training(device: str, batch_sizes: list[int], seconds: float) -> list[dict[str, Any]]:
    """Return the seconds of an epoch of AlexNet v1, at the median step, for each batch size and precision."""
    rows = []
    for policy in ("float32", "mixed_bfloat16"):
        for size in batch_sizes:
            keras.config.set_dtype_policy(policy)
            with keras.device(f"{device}:0"):
                model = alexnet_v1(5)
                model.compile(keras.optimizers.Adam(1e-3), keras.losses.CategoricalCrossentropy(from_logits=True))
                random = np.random.default_rng(0)
                images = random.standard_normal((size, 224, 224, 3), np.float32)
                labels = np.eye(5, dtype=np.float32)[random.integers(0, 5, size)]
                for _ in range(2):
                    model.train_on_batch(images, labels)
                step = statistics.median(durations(partial(model.train_on_batch, images, labels), seconds))
            rows.append({"precision": policy, "batch_size": size, "epoch_s": round(step * NUM_PHOTOGRAPHS / size, 2)})
    return rows


def durations(call: Callable[[], Any], seconds: float) -> Iterator[float]:
    """Return the seconds of each call that fits into so many seconds, and of two at least."""
    until, num_calls = time.perf_counter() + seconds, 0
    while time.perf_counter() < until or num_calls < 2:
        begun_at = time.perf_counter()
        call()
        num_calls += 1
        yield time.perf_counter() - begun_at


def gpu_memory_mb() -> int | None:
    """Return the used memory of the first GPU, as its driver says, or None without one."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return int(found.splitlines()[0])


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--smoke", action="store_true", help="small and short, nothing is written")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each measurement")
    parser.add_argument("--into", type=Path, default=RESULTS, help="where the result is written")
    arguments = parser.parse_args()
    device, seconds = arguments.device, 0.2 if arguments.smoke else arguments.seconds
    if device == "gpu" and not keras.distribution.list_devices("gpu"):
        raise SystemExit(f"no GPU: {keras.backend.backend()} sees none here; try --device cpu")
    small, large = ([1, 2], [1]) if arguments.smoke else ([1, 2, 4, 8, 16, 32, 64, 128], [1, 8, 32, 64])
    steps = [ARTICLE_BATCH_SIZE] if arguments.smoke else [ARTICLE_BATCH_SIZE, 256]
    result: dict[str, Any] = {
        "machine": describe_machine(), "device": device, "backend": keras.backend.backend(),
        "training": measure_training(device, steps, seconds),
    }  # fmt: skip
    if keras.backend.backend() == "tensorflow":
        result |= {
            "service": measure_service(device, large, 1 + seconds),
            "engine": measure_engine(device, small, seconds),
        }
    elif keras.backend.backend() == "jax":
        result |= {"engine": measure_networks(device, [1, 8, 32, 128], seconds)}
    text = json.dumps(result, indent=1) + "\n"
    print(text)
    if not arguments.smoke:
        (arguments.into / f"device-{device}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
