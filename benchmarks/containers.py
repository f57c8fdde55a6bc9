"""Size of the images for serving, and time from `docker run` to the first answer on the CPU.

    python benchmarks/containers.py

It needs the images `flowers:cpu` and `flowers:gpu`, and an engine that answers. The GPU image falls back to the CPU.
It writes `benchmarks/results/containers.json`.
"""

import json
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from typing import Any

from drawn import draw_photograph
from machine import RESULTS, describe_machine

IMAGES = ("flowers:cpu", "flowers:gpu")
# The GPU image before it left out the libraries of training and TensorFlow's headers.
GPU_IMAGE_BEFORE_MB = 7097
RUNS = 5


def docker(*arguments: str) -> str:
    """Return the standard output of one docker command."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def time_to_first_answer_s(image: str, photo: bytes) -> float:
    """Return the seconds from `docker run` until a photograph is answered with 200."""
    begun = time.monotonic()
    container = docker("run", "--detach", "--read-only", "--tmpfs", "/tmp", image)  # noqa: S108 - the container's own
    try:
        address = docker("inspect", "--format", "{{.NetworkSettings.IPAddress}}", container)
        request = urllib.request.Request(f"http://{address}:8000/predict", photo, {"Content-Type": "image/jpeg"})
        while time.monotonic() - begun < 120:
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    if answer.status == 200:
                        return time.monotonic() - begun
            except (urllib.error.URLError, OSError):
                time.sleep(0.02)
    finally:
        docker("rm", "--force", container)
    raise SystemExit("no answer within 120 s")


def measure(image: str, photo: bytes) -> dict[str, Any]:
    """Return the size of an image, and the seconds to its first answer."""
    size_mb = int(docker("image", "inspect", "--format", "{{.Size}}", image)) / 1e6
    seconds = sorted(time_to_first_answer_s(image, photo) for _ in range(RUNS))
    first_answer_s = {"min": seconds[0], "median": statistics.median(seconds), "max": seconds[-1], "runs": RUNS}
    return {"size_mb": round(size_mb), "first_answer_s": first_answer_s}


def main() -> None:
    """Measure, print, write."""
    photo = draw_photograph(300)
    result = {
        "machine": describe_machine(),
        "images": {image: measure(image, photo) for image in IMAGES},
        "gpu_image_before_mb": GPU_IMAGE_BEFORE_MB,
    }
    (RESULTS / "containers.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
