import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from support.web_store import WebStoreServer, cut, fail, wait_for

from service.cli.main import main
from service.errors import InvalidVersion, RemoteStoreError
from service.remote_store.location import RemoteModel
from service.remote_store.reader import open_reader
from service.store.manage import pin_version


def test_the_output_of_models_list_is_an_index(web: WebStoreServer, capsys: pytest.CaptureFixture[str]) -> None:
    pin_version(web.store, "flowers", 1)
    assert main(["models", "list", "--json", "--model-store", str(web.store)]) == 0
    (web.store / "index.json").write_text(capsys.readouterr().out)
    assert open_reader(web.url).list_versions("flowers") == RemoteModel((1, 2), 1)


def test_candidates_and_other_models_are_left_out(web: WebStoreServer) -> None:
    rows = [
        {"model": "flowers", "version": 3, "is_candidate": True},
        {"model": "birds", "version": 4, "is_pinned": True},
        {"model": "flowers", "version": 1},
    ]
    (web.store / "index.json").write_text(json.dumps(rows))
    assert open_reader(web.url).list_versions("flowers") == RemoteModel((1,))
    assert open_reader(web.url).list_versions("trees") == RemoteModel()


@pytest.mark.parametrize(
    "content", ["", "{}", "null", "[1]", '[{"model": 1}]', '[{"model": "flowers", "version": "../1"}]', "[" * 100_000]
)
def test_another_index_is_refused(web: WebStoreServer, content: str) -> None:
    (web.store / "index.json").write_text(content)
    with pytest.raises(RemoteStoreError, match=r"index\.json.*flowers models list --json"):
        open_reader(web.url).list_versions("flowers")


def test_an_endless_index_is_refused(web: WebStoreServer) -> None:
    (web.store / "index.json").write_bytes(b" " * 1_048_577)
    with pytest.raises(RemoteStoreError, match="1,048,576 bytes"):
        open_reader(web.url).list_versions("flowers")


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (fail(403), r"403.*netrc"),
        (fail(500), "status 500"),
        (fail(404), r"no index\.json"),
        (fail(302, Location="http://other.example/index.json"), "another host"),
        (fail(302, Location="index.json"), "more than 5 times"),
        (cut, "RemoteProtocolError"),
    ],
)
def test_a_failing_server_is_reported(web: WebStoreServer, fault: Callable[..., None], says: str) -> None:
    web.faults["index.json"] = fault
    with pytest.raises(RemoteStoreError, match=says):
        open_reader(web.url).list_versions("flowers")


def test_a_silent_server_is_given_up(web: WebStoreServer) -> None:
    over = threading.Event()
    web.faults["index.json"] = wait_for(over)
    with pytest.raises(RemoteStoreError, match="ReadTimeout"):
        open_reader(web.url, timeout_s=0.05).list_versions("flowers")
    over.set()


def test_a_redirect_within_the_host_is_followed(web: WebStoreServer) -> None:
    (web.store / "list").write_bytes((web.store / "index.json").read_bytes())
    web.faults["index.json"] = fail(302, Location="/models/list")
    assert open_reader(web.url).list_versions("flowers").versions == (1, 2)


def test_a_missing_file_is_the_fault_of_its_version(web: WebStoreServer) -> None:
    with pytest.raises(InvalidVersion, match=r"assets\.extra/none is missing"):
        list(open_reader(web.url).read("flowers", 2, "assets.extra/none"))


def test_names_of_files_are_quoted(web: WebStoreServer) -> None:
    (web.store / "flowers" / "2" / "a b?c#%41").write_bytes(b"odd")
    with pytest.raises(InvalidVersion):
        list(open_reader(web.url).read("flowers", 2, "a b?c#%41"))
    assert web.paths[-1] == "/models/flowers/2/a%20b%3Fc%23%2541"


def test_credentials_come_from_netrc(web: WebStoreServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login garden password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    open_reader(web.url).list_versions("flowers")
    assert web.headers[-1]["Authorization"] == "Basic Z2FyZGVuOmh1bnRlcjI="
    web.faults["index.json"] = fail(401)
    with pytest.raises(RemoteStoreError) as caught:
        open_reader(web.url).list_versions("flowers")
    assert "hunter2" not in str(caught.value)
    netrc.write_text("machine 127.0.0.1 hunter2\n")
    with pytest.raises(RemoteStoreError, match="NETRC") as caught:
        open_reader(web.url).list_versions("flowers")
    assert "hunter2" not in str(caught.value)
