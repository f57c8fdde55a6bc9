from pathlib import Path

import numpy as np
import pytest
from support.fakes import FakeEngine, Loader
from support.running import running
from support.versions import publish_example

from service.api.protocols.served_model import list_row

pytestmark = pytest.mark.anyio


async def test_a_version_that_is_not_live_is_named(store: Path, loader: Loader) -> None:
    publish_example(store)
    loader.engines[2] = FakeEngine()
    async with running(store, loader) as service:
        for path in ("/v2/models/flowers/versions/1", "/v1/models/flowers/versions/1"):
            response = await service.client.get(path)
            assert response.status_code == 404
            assert "Version 2 is" in response.json()["error"]
        assert (await service.client.get("/v2/models/flowers")).json()["versions"] == ["1", "2"]


async def test_without_a_live_version_the_model_is_not_ready(tmp_path: Path, loader: Loader) -> None:
    async with running(tmp_path / "model_store", loader) as service:
        for path in ("/v2/models/flowers", "/v2/models/flowers/ready", "/v1/models/flowers"):
            response = await service.client.get(path)
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert (await service.client.get("/v2/models/birds")).status_code == 404


def test_rows_have_the_shortest_decimals() -> None:
    assert list_row(np.array([0.941, 0.1], np.float32)) == [0.941, 0.1]
