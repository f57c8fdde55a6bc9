"""KServe's client, in an environment of its own: `ask.py URL PHOTOGRAPH PIXELS KEY`. It prints JSON.

PIXELS is a .npy file of uint8, shape (N, 224, 224, 3).
"""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

url, photograph, pixels_file, key = sys.argv[1:]
pixels = np.load(pixels_file)
headers = {"X-API-Key": key} if key else {}


def make_request(name: str, datatype: str, values: Any, *, binary: bool) -> InferRequest:
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return InferRequest("flowers", [tensor])


async def ask_first_version(file: bytes) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v1")) as client:
        body = {"instances": [{"b64": base64.b64encode(file).decode()}]}
        return {
            "ready": await client.is_model_ready(url, "flowers", headers=dict(headers)),
            "file": (await client.infer(url, body, "flowers", headers=dict(headers)))["predictions"],
        }


async def ask_second_version(file: bytes) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:

        async def infer(*arguments: Any, binary: bool) -> Any:
            response = await client.infer(
                url, make_request(*arguments, binary=binary), "flowers", headers=dict(headers)
            )
            return response.outputs[0].as_numpy().tolist()

        try:
            await client.infer(
                url, make_request("images", "UINT8", pixels, binary=True), "birds", headers=dict(headers)
            )
            unknown = ""
        except httpx.HTTPStatusError as error:
            unknown = str(error)
        text = np.array([base64.b64encode(file)], dtype=np.object_)
        return {
            "probes": [await client.is_server_live(url), await client.is_server_ready(url)],
            "ready": await client.is_model_ready(url, "flowers"),
            "rows": {
                "images": await infer("images", "UINT8", pixels, binary=True),
                "images in JSON": await infer("images", "UINT8", pixels, binary=False),
                "floats": await infer("images_fp32", "FP32", pixels.astype(np.float32), binary=True),
                "floats in JSON": await infer("images_fp32", "FP32", pixels.astype(np.float32), binary=False),
            },
            "file": await infer("encoded", "BYTES", text, binary=False),
            "unknown": unknown,
        }


async def main() -> None:
    file = Path(photograph).read_bytes()
    print(json.dumps({"v1": await ask_first_version(file), "v2": await ask_second_version(file)}))


asyncio.run(main())
