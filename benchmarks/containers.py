"""Size of the CPU image, and time from `docker run` to the first answer.

    python benchmarks/containers.py

It needs the image `flowers:cpu` and an engine that answers. It writes `benchmarks/results/containers.json`.
"""

import json
import statistics
import subprocess
import time
import urllib.error
import urllib.request

from drawn import draw_photograph
from machine import RESULTS, describe_machine

IMAGE = "flowers:cpu"
RUNS = 5


def docker(*arguments: str) -> str:
    """Return the standard output of one docker command."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def time_to_first_answer_s(photo: bytes) -> float:
    """Return the seconds from `docker run` until a photograph is answered with 200."""
    begun = time.monotonic()
    container = docker("run", "--detach", "--read-only", "--tmpfs", "/tmp", IMAGE)  # noqa: S108 - the container's own
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


def main() -> None:
    """Measure, print, write."""
    size_mb = int(docker("image", "inspect", "--format", "{{.Size}}", IMAGE)) / 1e6
    photo = draw_photograph(300)
    seconds = sorted(time_to_first_answer_s(photo) for _ in range(RUNS))
    result = {
        "machine": describe_machine(),
        "image": IMAGE,
        "size_mb": round(size_mb),
        "first_answer_s": {"min": seconds[0], "median": statistics.median(seconds), "max": seconds[-1], "runs": RUNS},
    }
    (RESULTS / "containers.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
