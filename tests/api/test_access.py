"""API keys, origins and the headers for browsers: off, on, and what stays open."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from support.drawing import draw_photograph, encode
from support.fakes import Loader
from support.running import Running, running

from service.api.access import read_keys
from service.errors import SettingsError

pytestmark = pytest.mark.anyio

PHOTO = encode(draw_photograph(0, seed=1))
KEY, OTHER_KEY = "first-key-of-32-characters-000001", "second-key-of-32-characters-00002"
PROBES = ("/livez", "/readyz", "/startupz")
DOCUMENTS = ("/docs", "/docs/swagger-ui.css", "/openapi.json", "/problems/overloaded")
PAGE = "https://garden.example"


@pytest.fixture
async def guarded(store: Path, loader: Loader) -> AsyncIterator[Running]:
    async with running(store, loader, api_keys=f"{KEY}, {OTHER_KEY}") as service:
        yield service


async def predict(service: Running, **headers: str) -> httpx.Response:
    return await service.client.post("/predict", content=PHOTO, headers=headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"bearer  {OTHER_KEY} "},
        {"X-API-Key": KEY},
        {"X-API-Key": OTHER_KEY, "Authorization": "Basic cm9zZTpyb3Nl"},
    ],
)
async def test_each_key_is_taken_in_either_header(guarded: Running, headers: dict[str, str]) -> None:
    assert (await predict(guarded, **headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": ""},
        {"X-API-Key": KEY[:-1]},
        {"X-API-Key": f"{KEY}, {OTHER_KEY}"},
        {"X-API-Key": KEY.upper()},
        {"Cookie": f"key={KEY}"},
    ],
)
async def test_without_a_valid_key_nothing_is_answered(guarded: Running, headers: dict[str, str]) -> None:
    response = await predict(guarded, **headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == 'Bearer realm="flowers"'
    body = response.json()
    assert (body["type"], body["request_id"]) == ("/problems/unauthorized", response.headers["x-request-id"])
    assert "X-API-Key" in body["detail"]
    assert guarded.service.admission.num_bytes == 0


async def test_keys_are_compared_in_constant_time(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each header's key is compared with each known one, even after a match."""
    compared = []

    def compare_digest(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    monkeypatch.setattr("hmac.compare_digest", compare_digest)
    assert (await predict(guarded, **{"X-API-Key": KEY, "Authorization": f"Bearer {OTHER_KEY}"})).status_code == 200
    assert len(set(compared)) == 4
    assert {len(digest) for pair in compared for digest in pair} == {32}


async def test_every_path_but_probes_and_documents_is_closed(guarded: Running) -> None:
    for path in (*PROBES, *DOCUMENTS):
        assert (await guarded.client.get(path)).status_code == 200, path
    closed = ("/metrics", "/models", "/models/flowers", "/nothing", "/docs-of-old", "/livez/x", "http://flowers//x")
    for path in (*closed, "/pages", "/readyz?x=1", "/"):
        expected = 200 if path.startswith("/readyz") or path == "/" else 401
        assert (await guarded.client.get(path)).status_code == expected, path


async def test_metrics_may_be_opened_and_documents_closed(store: Path, loader: Loader) -> None:
    async with running(store, loader, api_keys=KEY, open_metrics=True, open_docs=False) as service:
        assert (await service.client.get("/metrics")).status_code == 200
        for path in DOCUMENTS:
            assert (await service.client.get(path)).status_code == 401, path
            assert (await service.client.get(path, headers={"X-API-Key": KEY})).status_code == 200, path


async def test_openapi_names_header_and_open_paths(guarded: Running) -> None:
    document = (await guarded.client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["header"]["name"] == "X-API-Key"
    assert document["paths"]["/predict"]["post"]["security"] == [{"bearer": []}, {"header": []}]
    assert document["paths"]["/livez"]["get"]["security"] == []


async def test_refused_requests_have_one_route_and_no_logged_key(guarded: Running) -> None:
    with capture_logs() as events:
        for number in range(20):
            response = await guarded.client.get(f"/path-{number}?key={KEY}", headers={"X-API-Key": f"{OTHER_KEY}x"})
            assert response.status_code == 401
        await predict(guarded, **{"X-API-Key": KEY})
    assert KEY not in repr(events)
    assert OTHER_KEY not in repr(events)
    text = (await guarded.client.get("/metrics", headers={"X-API-Key": KEY})).text
    assert 'flowers_requests_total{method="GET",route="unmatched",status="401"} 20.0' in text
    assert 'flowers_problems_total{type="unauthorized"} 20.0' in text
    assert "path-1" not in text


def test_keys_come_from_a_file_and_the_environment_together(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"# the garden's\n{KEY}   # mobile app\n\n{OTHER_KEY}\n")
    assert (keys := read_keys(SecretStr("third"), file)) is not None
    assert len(keys.digests) == 3
    assert read_keys(SecretStr(f"{KEY},{OTHER_KEY}"), None) == read_keys(None, file)
    assert read_keys(None, None) is None


@pytest.mark.parametrize("inline", ["", " , ", "two words", "Blüte", "tab\there"])
def test_useless_keys_are_refused_without_showing_them(inline: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_keys(SecretStr(inline), None)
    assert not inline.strip(" ,") or inline not in str(caught.value)


def test_a_missing_or_empty_file_of_keys_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"FLOWERS_API_KEYS_FILE.*No such file"):
        read_keys(None, tmp_path / "none")
    (tmp_path / "empty").write_text("# nothing yet\n")
    with pytest.raises(SettingsError, match="The list of API keys is empty"):
        read_keys(None, tmp_path / "empty")


async def test_only_pages_of_named_origins_may_ask(store: Path, loader: Loader) -> None:
    preflight = {"Origin": PAGE, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "X-API-Key"}
    async with running(store, loader, api_keys=KEY) as service:
        response = await service.client.options("/predict", headers=preflight)
        assert response.status_code == 401
        response = await predict(service, Origin=PAGE, **{"X-API-Key": KEY})
        assert not [name for name in response.headers if name.startswith("access-control")]
    async with running(store, loader, api_keys=KEY, cors_origins=f"https://other.example, {PAGE}") as service:
        response = await service.client.options("/predict", headers=preflight)
        assert (response.status_code, response.headers["access-control-allow-origin"]) == (200, PAGE)
        for headers in ({"X-API-Key": KEY}, {}):  # so that the page can read the problem, too
            response = await predict(service, Origin=PAGE, **headers)
            assert response.headers["access-control-allow-origin"] == PAGE
            assert "X-Request-ID" in response.headers["access-control-expose-headers"]
        response = await predict(service, Origin="https://elsewhere.example", **{"X-API-Key": KEY})
        assert "access-control-allow-origin" not in response.headers


async def test_every_answer_has_the_headers_for_browsers(guarded: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[tuple[str, dict[str, Any]]] = [
        ("/livez", {}), ("/docs", {}), ("/nothing", {}), ("/models", {"headers": {"X-API-Key": KEY}})
    ]  # fmt: skip
    answers = [await guarded.client.get(path, **options) for path, options in requests]
    answers.append(await predict(guarded, **{"X-API-Key": KEY}))
    monkeypatch.setattr(guarded.service.predictor, "require", None)
    answers.append(await predict(guarded, **{"X-API-Key": KEY}))
    assert [answer.status_code for answer in answers] == [200, 200, 401, 200, 200, 500]
    for answer in answers:
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert answer.headers["cache-control"] == "no-store"
        [policy] = answer.headers.get_list("content-security-policy")  # of two, browsers would obey both
        assert "frame-ancestors 'none'" in policy
        assert "server" not in answer.headers
    style = await guarded.client.get("/docs/swagger-ui.css")
    assert style.headers["cache-control"] == "public, max-age=86400"


async def test_the_page_of_the_api_runs_only_its_script(guarded: Running) -> None:
    policy = (await guarded.client.get("/docs")).headers["content-security-policy"]
    [scripts] = [part for part in policy.split("; ") if part.startswith("script-src")]
    assert "'sha256-" in scripts
    assert "unsafe" not in scripts
