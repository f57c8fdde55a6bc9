import re
from pathlib import Path

import pytest
from support.documented import check_answer, read_example
from support.fakes import Loader
from support.running import running

from service.api.request_bodies import BASE64, EXAMPLE_IMAGE

pytestmark = pytest.mark.anyio


async def test_each_documented_example_is_answered(store: Path, loader: Loader) -> None:
    async with running(store, loader, vertex_predict_route="/vertex") as service:
        document = (await service.client.get("/openapi.json")).json()
        taken = {
            path: operations["post"]
            for path, operations in document["paths"].items()
            if "application/json" in operations.get("post", {}).get("requestBody", {}).get("content", {})
        }
        assert len(taken) == 9
        for path, operation in taken.items():
            url = path.replace("{name}", "flowers").replace("{version}", "1")
            headers = {"Content-Type": "application/json", "Accept": "application/json"}
            response = await service.client.post(url, content=read_example(operation), headers=headers)
            assert response.status_code == 200, response.text
            check_answer(document, "post", path, response)


@pytest.mark.parametrize(
    ("text", "is_base64"),
    [
        (EXAMPLE_IMAGE, True),
        (f"data:image/gif;base64,{EXAMPLE_IMAGE}", True),
        (f"data:;base64,{EXAMPLE_IMAGE}", True),
        (EXAMPLE_IMAGE.rstrip("="), False),
        (f"{EXAMPLE_IMAGE[:20]}\n{EXAMPLE_IMAGE[20:]}", False),
        (f"data:image/gif;charset=utf-8;base64,{EXAMPLE_IMAGE}", False),
        ("https://example.com/a.gif", False),
    ],
)
async def test_the_pattern_of_base64_is_what_the_service_takes(
    store: Path, loader: Loader, text: str, *, is_base64: bool
) -> None:
    assert (re.search(str(BASE64["pattern"]), text) is not None) == is_base64
    async with running(store, loader) as service:
        response = await service.client.post("/predict", json={"image": text})
    assert response.status_code == (200 if is_base64 else 422)
