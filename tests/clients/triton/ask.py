"""Triton's client, in an environment of its own: `ask.py HOST:PORT PHOTOGRAPH PIXELS KEY`. It prints JSON.

PIXELS is a .npy file of uint8, shape (N, 224, 224, 3).
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as http
from tritonclient.utils import InferenceServerException

url, photograph, pixels_file, key = sys.argv[1:]
pixels = np.load(pixels_file)
headers = {"X-API-Key": key} if key else {}  # the client adds its own to what it is given
client = http.InferenceServerClient(url)


def make_input(name: str, datatype: str, values: Any, *, binary: bool) -> Any:
    return http.InferInput(name, list(values.shape), datatype).set_data_from_numpy(values, binary_data=binary)


def infer(tensor: Any, *, binary_output: bool | None = None, **options: Any) -> Any:
    outputs = (
        [http.InferRequestedOutput("probabilities", binary_data=binary_output)] if binary_output is not None else None
    )
    result = client.infer("flowers", [tensor], outputs=outputs, headers=dict(headers), request_id="7", **options)
    assert result.get_response()["id"] == "7"
    return result.as_numpy("probabilities").tolist()


def refuse(*arguments: Any, **options: Any) -> list[str]:
    try:
        client.infer(*arguments, headers=dict(headers), **options)
    except InferenceServerException as error:
        return [error.status(), error.message()]
    return []


file = np.array([Path(photograph).read_bytes()], dtype=np.object_)
images = make_input("images", "UINT8", pixels, binary=True)
classified = [
    client.infer(
        "flowers",
        [images],
        outputs=[http.InferRequestedOutput("probabilities", binary_data=binary, class_count=2)],
        headers=dict(headers),
    )
    .as_numpy("probabilities")
    .astype(str)
    .tolist()
    for binary in (True, False)
]
print(
    json.dumps(
        {
            "probes": [client.is_server_live(), client.is_server_ready(), client.is_model_ready("flowers")],
            "other": client.is_model_ready("birds"),
            "server": client.get_server_metadata(headers=dict(headers)),
            "model": client.get_model_metadata("flowers", headers=dict(headers)),
            "rows": {
                "images": infer(images),
                "images in JSON": infer(make_input("images", "UINT8", pixels, binary=False), binary_output=False),
                "floats": infer(make_input("images_fp32", "FP32", pixels.astype(np.float32), binary=True)),
                "floats in JSON": infer(
                    make_input("images_fp32", "FP32", pixels.astype(np.float32), binary=False), binary_output=True
                ),
                "gzip answer": infer(images, response_compression_algorithm="gzip"),
            },
            "file": infer(make_input("encoded", "BYTES", file, binary=True)),
            "classified": classified,
            "unknown": refuse("birds", [images]),
            "gzip": refuse("flowers", [images], request_compression_algorithm="gzip"),
        }
    )
)
