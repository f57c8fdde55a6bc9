"""What traces cost: `python -m benchmarks.serving.tracing --image FOLDER --before CHECKOUT`.

Three services with one worker take turns on one core: with traces off, with traces on, and that of a checkout from
before there were traces. Another core has the clients and a receiver of traces. Ratios are taken within a round.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import RESULTS, describe_machine
from benchmarks.reliability.replica import Replica, cores_apart, replica, store_of_its_own
from service.bench.connection import Response, parse_target
from service.bench.generator import Load, Question, load_target, run
from service.bench.photographs import as_form, read_photographs
from service.bench.summary import summarise

_CONNECTIONS = 16
_NUM_PHOTOGRAPHS = 32
_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_RECEIVER = """
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_): pass
server = HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextmanager
def receiver() -> Iterator[str]:
    """Run a receiver of traces, which keeps none. Yield its address."""
    with subprocess.Popen([sys.executable, "-c", _RECEIVER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.kill()


@contextmanager
def traced(address: str) -> Iterator[None]:
    """Let services that start now send traces."""
    os.environ[_ENDPOINT] = address
    try:
        yield
    finally:
        del os.environ[_ENDPOINT]


def find_status(response: Response) -> str:
    """Return an error for another status than 200."""
    return "" if response.status == 200 else response.failure or str(response.status)


def measure(service: Replica, photographs: list[bytes], load: Load) -> float:
    """Return the answers per second."""
    target = parse_target(service.url, "/predict")
    questions = [Question(target.post(*as_form(photograph)), find_status) for photograph in photographs]
    summary = summarise(load, run(load_target(target, questions, load)))
    assert not summary.num_errors, summary.errors
    return summary.answers_per_s


def compare(photographs: list[bytes], before: Path, num_rounds: int, duration_s: float) -> dict[str, Any]:
    """Measure the three services in each round, in turning order."""
    flags = ("--workers", "1", "--device", "cpu")
    load = Load(_CONNECTIONS, warm_up_s=1, duration_s=duration_s)
    rounds: list[dict[str, float]] = []
    with (
        store_of_its_own() as store,
        cores_apart() as cores,
        receiver() as address,
        replica(store, *flags, cores=cores) as off,
        traced(address),
        replica(store, *flags, cores=cores) as on,
        chdir(before),  # Python takes the package in its folder
        replica(store, *flags, cores=cores) as old,
    ):
        services = [("off", off), ("before", old), ("on", on)]
        for turn in range(num_rounds):
            ordered = services[turn % 3 :] + services[: turn % 3]
            rounds.append({name: measure(service, photographs, load) for name, service in ordered})
    pairs = {"off to before": ("off", "before"), "on to off": ("on", "off")}
    ratios = {
        name: {"median": statistics.median(values), "least": min(values), "most": max(values)}
        for name, (one, other) in pairs.items()
        for values in [[figures[one] / figures[other] for figures in rounds]]
    }
    return {"answers_per_s": rounds, "ratios": ratios}


def main() -> None:
    """Print the result and keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, help="photograph, or folder of photographs. The default is a drawn one")
    parser.add_argument("--before", type=Path, required=True, help="checkout from before there were traces")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--duration-s", type=float, default=5)
    asked = parser.parse_args()
    photographs = read_photographs(asked.image, (".jpg",))[:_NUM_PHOTOGRAPHS]
    result = {
        "machine": describe_machine() | {"load_average": os.getloadavg()},
        **compare(photographs, asked.before.resolve(), asked.rounds, asked.duration_s),
    }
    text = json.dumps(result, indent=2)
    (RESULTS / "tracing.json").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
