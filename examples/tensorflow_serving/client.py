"""Client of TensorFlow Serving, with httpx: `python examples/tensorflow_serving/client.py PHOTOGRAPH...`.

`metadata.json` of a version states the resize rule and the class names.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image, ImageOps

PATH = "/v1/models/flowers:predict"
_VERSIONS = Path("model_store/flowers")


def read_metadata() -> dict[str, Any]:
    """Read what the newest version states of itself."""
    newest = max(int(path.name) for path in _VERSIONS.iterdir() if path.name.isdecimal())
    metadata = json.loads((_VERSIONS / str(newest) / "assets.extra" / "metadata.json").read_text(encoding="utf-8"))
    assert isinstance(metadata, dict)
    return metadata


def make_square(path: Path, shorter_side: int, image_size: int) -> Any:
    """Scale the shorter side to `shorter_side` and cut out the centre.

    Returns:
        uint8, shape (image_size, image_size, 3), RGB.
    """
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    side = min(image.size) * image_size / shorter_side
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((image_size, image_size), Image.Resampling.BILINEAR, box=box))


def make_body(paths: list[Path], metadata: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON body of a request with one square for each photograph."""
    rule = metadata["preprocessing"]
    squares = [make_square(path, rule["shorter_side"], rule["image_size"]).tolist() for path in paths]
    return {"signature_name": "serving_default", "inputs": {"images": squares}}


def main() -> None:
    """Print one line for each photograph."""
    paths, metadata = [Path(argument) for argument in sys.argv[1:]], read_metadata()
    url = os.environ.get("SERVICE_URL", "http://127.0.0.1:8501")
    response = httpx.post(url + PATH, json=make_body(paths, metadata), timeout=60).raise_for_status()
    for path, probabilities in zip(paths, response.json()["outputs"], strict=True):
        best = int(np.argmax(probabilities))
        print(f"{path}: {metadata['class_names'][best]} ({probabilities[best]:.1%})")


if __name__ == "__main__":
    main()
