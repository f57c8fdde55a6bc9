import re
from pathlib import Path

import pytest
from support.fakes import Loader
from support.running import running

pytestmark = pytest.mark.anyio


async def test_routes_with_tensors_are_documented(store: Path, loader: Loader) -> None:
    async with running(store, loader, api_keys="k" * 32) as service:
        paths = (await service.client.get("/openapi.json")).json()["paths"]
    models = [path for path in paths if path.startswith(("/v1/models", "/v2/models"))]
    assert len(models) == 12
    for path in models:
        (operation,) = paths[path].values()
        in_path = [one["name"] for one in operation["parameters"] if one["in"] == "path"]
        assert in_path == re.findall(r"{(\w+)}", path)
        assert "404" in operation["responses"]
    for path in ("/v2/models/{name}/infer", "/v1/models/{name}/versions/{version}:predict"):
        operation = paths[path]["post"]
        assert operation["requestBody"]["content"]["application/json"]["schema"]["example"]
        assert {"200", "400", "401", "404", "413", "415", "422", "429", "503", "504"} <= operation["responses"].keys()
    assert paths["/v2/health/live"]["get"]["security"] == []
    assert paths["/v2"]["get"]["security"]
    assert not [path for path in paths if "method" in path]
