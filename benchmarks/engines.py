"""Engines on a CPU, side by side.

    python benchmarks/engines.py [--smoke]

TensorFlow, onnxruntime and LiteRT run the shipped network and an untrained AlexNet v1, in float32 and int8. Measured
are images per second by batch size and lanes, memory, import and load time, installed size and agreement with the
SavedModel. Each has a process of its own. They take turns, so a change of the machine hits all alike. LiteRT needs
`pip install ai-edge-litert`. TensorFlow's converter makes its files here. The results go to
`benchmarks/results/engines.json`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
from machine import RESULTS, describe_machine
from packaging.requirements import Requirement

import service  # noqa: F401 - before the engines, so that none reports to its maker

REPOSITORY = Path(__file__).resolve().parent.parent
BATCH_SIZES = (1, 4, 16, 32)
ENGINES = ("tensorflow", "onnxruntime", "litert")
LIBRARIES = {"tensorflow": "tensorflow-cpu", "onnxruntime": "onnxruntime", "litert": "ai-edge-litert"}
FILES = {
    ("onnxruntime", "float32"): "assets.extra/cpu_model.onnx",
    ("onnxruntime", "int8"): "assets.extra/cpu_model.int8.onnx",
    ("litert", "float32"): "float32.tflite",
    ("litert", "int8"): "int8.tflite",
}
Run = Callable[[Any], Any]


# ---- in the process of one engine ------------------------------------------------------------------------------------
def open_tensorflow(folder: Path, _: str, threads: int, lanes: int) -> Callable[[], list[Run]]:
    """Open the signature for all lanes. `threads` must be set before anything runs."""
    import tensorflow as tf

    if lanes > 1:
        tf.config.threading.set_intra_op_parallelism_threads(threads)

    def load() -> list[Run]:
        loaded = tf.saved_model.load(str(folder))
        signature = loaded.signatures["serving_default"]

        def run(images: Any, _loaded: Any = loaded) -> Any:
            return signature(images=tf.constant(images))["probabilities"].numpy()

        return [run] * lanes

    return load


def open_onnxruntime(folder: Path, precision: str, threads: int, lanes: int) -> Callable[[], list[Run]]:
    """Open one session for all lanes, as `OnnxRuntimeEngine` does but for the number of threads."""
    import onnxruntime

    def load() -> list[Run]:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        path = str(folder / FILES["onnxruntime", precision])
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return [lambda images: session.run(["probabilities"], {"images": images})[0]] * lanes

    return load


def open_litert(folder: Path, precision: str, threads: int, lanes: int) -> Callable[[], list[Run]]:
    """Open an interpreter per lane and batch size, as resizing one costs more than a call."""
    from ai_edge_litert.interpreter import Interpreter

    def make_lane() -> Run:
        by_size: dict[int, Any] = {}

        def run(images: Any) -> Any:
            if len(images) not in by_size:
                path = str(folder / FILES["litert", precision])
                interpreter = by_size[len(images)] = Interpreter(model_path=path, num_threads=threads)
                interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], images.shape)
                interpreter.allocate_tensors()
            interpreter = by_size[len(images)]
            interpreter.set_tensor(interpreter.get_input_details()[0]["index"], images)
            interpreter.invoke()
            return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

        return run

    return lambda: [make_lane() for _ in range(lanes)]


def work(engine: str, folder: Path, precision: str, threads: int, lanes: int, photographs: Path) -> None:
    """Load, then answer each line of standard input, `{"batch_size", "seconds"}` or `"answer"`, with a line of JSON."""
    begun = time.perf_counter()
    load = globals()[f"open_{engine}"](folder, precision, threads, lanes)
    imported = time.perf_counter()
    runs = load()
    images = np.load(photographs, mmap_mode="r")
    runs[0](np.array(images[:1]))
    ready = time.perf_counter()
    print(json.dumps({"import_s": imported - begun, "load_s": ready - imported}), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        if command == "answer":
            rows = [runs[0](np.array(images[start : start + 8])) for start in range(0, len(images) // 8 * 8, 8)]
            print(json.dumps(np.concatenate(rows).tolist()), flush=True)
            continue
        batch = np.array(images[: command["batch_size"]])
        rate = measure_rate(runs, batch, command["seconds"])
        print(json.dumps({"images_per_s": rate, "resident_mb": resident_mb()}), flush=True)


def measure_rate(runs: list[Run], batch: Any, seconds: float) -> float:
    """Return images per second of all lanes. Each is a thread that calls without a pause."""
    counts = [0] * len(runs)
    for run in runs:
        run(batch)
    begun = time.perf_counter()

    def call(lane: int) -> None:
        while time.perf_counter() < begun + seconds:
            runs[lane](batch)
            counts[lane] += len(batch)

    lanes = [threading.Thread(target=call, args=(lane,)) for lane in range(len(runs))]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    return sum(counts) / (time.perf_counter() - begun)


def resident_mb() -> float:
    """Return the memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


# ---- the files that are compared -------------------------------------------------------------------------------------
def prepare(network: str, folder: Path, calibration: Any, images: Any, class_indices: Any) -> None:
    """Write SavedModel, ONNX and LiteRT files of the shipped network, or of an untrained AlexNet v1, into `folder`."""
    import keras
    import tensorflow as tf

    from service.engines.engine import EngineInfo
    from service.engines.savedmodel import SavedModelEngine
    from service.networks.alexnet import alexnet_v1
    from service.store.versions import resolve_version
    from service.training.export.int8 import equalise, int8_model
    from service.training.export.onnx_graph import float32_model
    from service.training.export.saved_model import export_saved_model

    if network == "shipped":
        source = resolve_version(REPOSITORY / "model_store", "flowers").folder
        folder.symlink_to(source)
        tflite = folder.with_name("shipped-litert")
    else:
        tflite = folder
        keras.utils.set_random_seed(0)
        logits = alexnet_v1(5)
        numbers: dict[str, Any] = {"scale": 1 / 127.5, "offset": -1.0, "temperature": 1.0}
        export_saved_model(logits, folder, **numbers)
        (folder / "assets.extra").mkdir()
        (folder / FILES["onnxruntime", "float32"]).write_bytes(float32_model(logits, **numbers).SerializeToString())
        equalised = equalise(logits, calibration, scale=numbers["scale"], offset=numbers["offset"])
        int8 = int8_model(equalised, calibration, **numbers)
        (folder / FILES["onnxruntime", "int8"]).write_bytes(int8.SerializeToString())
    tflite.mkdir(exist_ok=True)
    for precision in ("float32", "int8"):
        converter = tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=["serving_default"])
        if precision == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ({"images": image[None]} for image in calibration)
        (tflite / FILES["litert", precision]).write_bytes(converter.convert())
    reference = SavedModelEngine(folder, EngineInfo("savedmodel", "cpu", "float32", "the reference"))
    expected = reference.run(images).probabilities
    np.savez(folder.with_name(f"{network}.npz"), expected=expected, class_indices=class_indices)


def load_photographs(folder: Path, num_images: int) -> tuple[Any, Any, Any]:
    """Return calibration squares of the training part, and squares and class indices of the validation part."""
    from service.data.split import parse_split
    from service.imaging.decode import decode_image
    from service.imaging.resize import resize
    from service.store.layout import SPLIT_FILE
    from service.store.versions import resolve_version

    file = resolve_version(REPOSITORY / "model_store", "flowers").folder / SPLIT_FILE
    split = parse_split(file.read_bytes(), str(file))

    def squares(files: list[str]) -> Any:
        return np.stack([resize(decode_image((folder / file).read_bytes())) for file in files])

    train = [entry.file for entry in split.part("train")]
    validation = [entry.file for entry in split.part("validation")]
    validation = validation[:: max(1, len(validation) // num_images)][:num_images]
    labels = sorted({file.split("/")[0] for file in train})
    class_indices = np.array([labels.index(file.split("/")[0]) for file in validation])
    return squares(train[:: -(-len(train) // 128)]), squares(validation), class_indices


# ---- the comparison --------------------------------------------------------------------------------------------------
def compare(
    scratch: Path, rounds: int, seconds: float, cores: int, batch_sizes: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Return a row per network, engine, precision and lanes."""
    rows = []
    for network in ("shipped", "alexnet_v1"):
        workers: list[tuple[dict[str, Any], subprocess.Popen[str]]] = []
        for engine in ENGINES:
            for precision in ("float32", "int8") if engine != "tensorflow" else ("float32",):
                for lanes, threads in dict.fromkeys(((1, cores), (cores, 1))):
                    name = "shipped-litert" if (network, engine) == ("shipped", "litert") else network
                    arguments = [engine, scratch / name, precision, threads, lanes, scratch / "photographs.npy"]
                    process = subprocess.Popen(
                        [sys.executable, __file__, "--work", *map(str, arguments)],
                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                    )  # fmt: skip
                    facts: dict[str, Any] = {"network": network, "engine": engine, "precision": precision}
                    facts |= {"lanes": lanes, "threads": threads, **read_answer(process)}
                    workers.append((facts, process))
        rates: dict[tuple[int, int], list[float]] = {}
        for _ in range(rounds):
            for size in batch_sizes:
                for index, (facts, process) in enumerate(workers):
                    answer = ask(process, {"batch_size": size, "seconds": seconds})
                    rates.setdefault((index, size), []).append(answer["images_per_s"])
                    facts["resident_mb"] = round(max(facts.get("resident_mb", 0), answer["resident_mb"]))
        reference = np.load(scratch / f"{network}.npz")
        for index, (facts, process) in enumerate(workers):
            facts["images_per_s"] = {size: round(statistics.median(rates[index, size])) for size in batch_sizes}
            facts["agreement"] = describe_agreement(np.array(ask(process, "answer")), **reference)
            process.communicate("")
            rows.append(facts)
    return rows


def describe_agreement(found: Any, expected: Any, class_indices: Any) -> dict[str, float]:
    """Describe the agreement with the SavedModel on the photographs."""
    expected, class_indices = expected[: len(found)], class_indices[: len(found)]
    differences = np.abs(found - expected).max(axis=1)
    return {
        "photographs": len(found),
        "same_top1": float(np.mean(found.argmax(axis=1) == expected.argmax(axis=1))),
        "accuracy": float(np.mean(found.argmax(axis=1) == class_indices)),
        "difference_p99": float(np.quantile(differences, 0.99)),
        "difference_max": float(differences.max()),
    }


def read_answer(process: "subprocess.Popen[str]") -> Any:
    """Read the next line of a worker."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"a worker has ended without an answer: {process.args!r}")
    return json.loads(line)


def ask(process: "subprocess.Popen[str]", command: Any) -> Any:
    """Let a worker do something while all others are still."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(command) + "\n")
    process.stdin.flush()
    return read_answer(process)


def installed_mb(library: str, seen: set[str] | None = None) -> float:
    """Return the size of a library and all that it requires."""
    seen = set() if seen is None else seen
    try:
        found = distribution(library)
    except PackageNotFoundError:
        return 0.0
    if library.lower() in seen:
        return 0.0
    seen.add(library.lower())
    size = sum(path.stat().st_size for file in found.files or () if (path := Path(str(file.locate()))).is_file()) / 1e6
    needed = [Requirement(text) for text in found.requires or ()]
    return size + sum(
        installed_mb(one.name, seen) for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})
    )


def main() -> None:
    """Prepare, measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photographs", type=Path, default=REPOSITORY.parent / "shared" / "flower_photos")
    parser.add_argument("--smoke", action="store_true", help="a minute's trial of everything; nothing is written")
    parser.add_argument("--work", nargs=6, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        engine, folder, precision, threads, lanes, photographs = arguments.work
        work(engine, Path(folder), precision, int(threads), int(lanes), Path(photographs))
        return
    cores = len(os.sched_getaffinity(0))
    rounds, seconds, num_images, sizes = (1, 0.1, 32, (1, 4)) if arguments.smoke else (7, 1.0, 200, BATCH_SIZES)
    with tempfile.TemporaryDirectory(prefix="flowers-engines-") as name:
        scratch = Path(name)
        calibration, images, class_indices = load_photographs(arguments.photographs, num_images)
        np.save(scratch / "photographs.npy", images)
        for network in ("shipped", "alexnet_v1"):
            prepare(network, scratch / network, calibration, images, class_indices)
        rows = compare(scratch, rounds, seconds, cores, sizes)
    result = {
        "machine": describe_machine(),
        "rounds": rounds,
        "seconds_each": seconds,
        "installed_mb": {engine: round(installed_mb(library)) for engine, library in LIBRARIES.items()},
        "results": rows,
    }
    if not arguments.smoke:
        (RESULTS / "engines.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["installed_mb"]))
    print_table(rows)


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print the results as Markdown."""
    sizes = list(rows[0]["images_per_s"])
    print(
        "| network | engine | precision | lanes x threads | MB | import + load s | same top-1 | p99 of differences |",
        end="",
    )
    print("".join(f" {size} |" for size in sizes))
    print("|" + "---|" * (8 + len(sizes)))
    for row in rows:
        agreement = row["agreement"]
        print(
            f"| {row['network']} | {row['engine']} | {row['precision']} | {row['lanes']} x {row['threads']} "
            f"| {row['resident_mb']} | {row['import_s']:.2f} + {row['load_s']:.2f} | {agreement['same_top1']:.1%} "
            f"| {agreement['difference_p99']:.1e} |" + "".join(f" {row['images_per_s'][size]} |" for size in sizes)
        )


if __name__ == "__main__":
    main()
