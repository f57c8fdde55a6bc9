"""Throughput of tensors and base64 against `/predict`: `python -m benchmarks.serving.protocols --image FOLDER`.

One service with one worker answers all forms of the same photographs, in interleaved rounds on kept connections. A
ratio is taken within a round. Then single photographs are sent beside a flood of base64, beside one of JSON tensors,
and beside as many connections with photographs. The service and its clients have cores apart.
"""

import argparse
import asyncio
import base64
import json
import os
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS, describe_machine
from benchmarks.reliability.replica import cores_apart, replica, store_of_its_own
from service.bench.connection import Response, Target, parse_target
from service.bench.generator import Load, Question, load_target, run
from service.bench.photographs import as_form, read_photographs
from service.bench.summary import Summary, summarise
from service.imaging.decode import decode_image
from service.imaging.resize import resize

INFER, PREDICT = "/v2/models/flowers/infer", "/predict"
PHOTOGRAPHS, UINT8, FP32, BASE64 = "photographs", "uint8 tensors", "fp32 tensors", "base64"
JSON_TENSORS = "JSON tensors"
LEAST = {UINT8: 1.3, BASE64: 0.85}
MOST_P99 = 2.0
_NUM_JSON_IMAGES = 32
_CONNECTIONS = 16
_NUM_PHOTOGRAPHS = 32
_OF_FLOOD = 4


def write_tensor(photograph: bytes, name: str, datatype: str) -> tuple[str, bytes, str, tuple[str, ...]]:
    """Return path, body, content type and headers of a request with one binary tensor."""
    pixels = resize(decode_image(photograph)).astype("<f4" if datatype == "FP32" else np.uint8)[None]
    parameters = {"binary_data_size": pixels.nbytes}
    tensor = {"name": name, "datatype": datatype, "shape": list(pixels.shape), "parameters": parameters}
    head = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    header = f"Inference-Header-Content-Length: {len(head)}"
    return INFER, head + pixels.tobytes(), "application/octet-stream", (header,)


FORMS: dict[str, Callable[[bytes], tuple[str, bytes, str, tuple[str, ...]]]] = {
    PHOTOGRAPHS: lambda photograph: (PREDICT, *as_form(photograph), ()),
    UINT8: lambda photograph: write_tensor(photograph, "images", "UINT8"),
    FP32: lambda photograph: write_tensor(photograph, "images_fp32", "FP32"),
    BASE64: lambda photograph: (
        PREDICT,
        json.dumps({"image": base64.b64encode(photograph).decode()}).encode(),
        "application/json",
        (),
    ),
}


def find_status(response: Response) -> str:
    """Return an error for another status than 200."""
    return "" if response.status == 200 else response.failure or str(response.status)


def prepare(url: str, form: str, photographs: Sequence[bytes]) -> tuple[Target, list[Question]]:
    """Return the target of a form, and a question for each photograph."""
    written = [FORMS[form](photograph) for photograph in photographs]
    target = parse_target(url, written[0][0])
    requests = [target.post(body, content_type, headers) for _, body, content_type, headers in written]
    return target, [Question(request, find_status) for request in requests]


def compare(url: str, photographs: Sequence[bytes], num_rounds: int, duration_s: float) -> dict[str, Any]:
    """Measure each form in each round. Return the figures and the ratios to photographs."""
    rounds: list[dict[str, float]] = []
    load = Load(_CONNECTIONS, warm_up_s=1, duration_s=duration_s)
    prepared = {form: prepare(url, form, photographs) for form in FORMS}
    for _ in range(num_rounds):
        figures = {}
        for form, (target, questions) in prepared.items():
            summary = summarise(load, run(load_target(target, questions, load)))
            assert not summary.num_errors, summary.errors
            figures[form] = summary.answers_per_s
        rounds.append(figures)
    ratios = {
        form: statistics.median(figures[form] / figures[PHOTOGRAPHS] for figures in rounds)
        for form in FORMS
        if form != PHOTOGRAPHS
    }
    return {"answers_per_s": rounds, "ratios": ratios, "least": LEAST}


def write_json_tensor(url: str, photographs: Sequence[bytes]) -> tuple[Target, list[Question]]:
    """Return a question with as many images in JSON as a request may have."""
    chosen = (list(photographs) * _NUM_JSON_IMAGES)[:_NUM_JSON_IMAGES]
    pixels = np.stack([resize(decode_image(photograph)) for photograph in chosen])
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.tolist()}
    target = parse_target(url, INFER)
    body = json.dumps({"inputs": [tensor]}).encode()
    return target, [Question(target.post(body, "application/json"), lambda response: "" if response.status else "none")]


def flood(url: str, photographs: Sequence[bytes], num_rounds: int, duration_s: float) -> dict[str, Any]:
    """Measure a neighbour's latency beside each flood, in each round."""
    target, questions = prepare(url, PHOTOGRAPHS, photographs)
    neighbour = Load(1, warm_up_s=1, duration_s=duration_s)

    async def beside(other: Target, others: Sequence[Question]) -> Summary:
        load = Load(_OF_FLOOD, warm_up_s=1, duration_s=duration_s, timeout_s=60)
        asked, _ = await asyncio.gather(load_target(target, questions, neighbour), load_target(other, others, load))
        return summarise(neighbour, asked)

    floods = {
        PHOTOGRAPHS: (target, questions),
        BASE64: prepare(url, BASE64, photographs),
        JSON_TENSORS: write_json_tensor(url, photographs),
    }
    rounds: list[dict[str, dict[str, float]]] = []
    for _ in range(num_rounds):
        latencies = {name: run(beside(*others)).latency_ms for name, others in floods.items()}
        assert all(latencies.values()), "a neighbour was not answered"
        rounds.append({name: latency or {} for name, latency in latencies.items()})
    ratios = {
        name: statistics.median(latencies[name]["p99"] / latencies[PHOTOGRAPHS]["p99"] for latencies in rounds)
        for name in floods
        if name != PHOTOGRAPHS
    }
    return {"latency_ms": rounds, "p99_ratios": ratios, "most": MOST_P99}


def main() -> None:
    """Print the result and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, help="photograph, or folder of photographs. The default is a drawn one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--duration-s", type=float, default=5)
    asked = parser.parse_args()
    photographs = read_photographs(asked.image, (".jpg",))[:_NUM_PHOTOGRAPHS]
    flags = ("--workers", "1", "--device", "cpu")
    with store_of_its_own() as store, cores_apart() as cores, replica(store, *flags, cores=cores) as running:
        result = {
            "machine": describe_machine() | {"load_average": os.getloadavg()},
            "throughput": compare(running.url, photographs, asked.rounds, asked.duration_s),
            "flood": flood(running.url, photographs, asked.rounds, asked.duration_s),
        }
    text = json.dumps(result, indent=2)
    (RESULTS / "protocols.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
