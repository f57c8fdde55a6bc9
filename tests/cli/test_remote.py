"""Commands on a store behind real HTTP on this machine."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.versions import publish_example
from support.web_store import WebStoreServer, corrupt, fail, served_store

from service.cli.main import main
from service.store.manage import pin_version

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebStoreServer]:
    """Versions 1 and 2 of `flowers` behind the URL that the environment names."""
    for _ in range(2):
        publish_example(tmp_path / "published")
    with served_store(tmp_path / "published") as server:
        monkeypatch.setenv("FLOWERS_MODEL_STORE", str(server.url))
        monkeypatch.setenv("FLOWERS_CACHE", str(tmp_path / "cache"))
        yield server


def run(*arguments: str, capsys: Capture) -> tuple[int, str, str]:
    exit_code = main(list(arguments))
    captured = capsys.readouterr()
    return exit_code, captured.out, captured.err


def list_versions(capsys: Capture) -> tuple[list[int], str]:
    exit_code, out, err = run("models", "list", "--json", capsys=capsys)
    assert exit_code == 0
    return [row["version"] for row in json.loads(out)], err


def test_list_shows_what_a_service_would_take(web: WebStoreServer, capsys: Capture) -> None:
    versions, err = list_versions(capsys)
    assert versions == [2]
    assert "The remote store also has 1" in err


def test_show_and_verify_pull_a_version_by_number(web: WebStoreServer, capsys: Capture) -> None:
    assert run("models", "show", "1", "--json", capsys=capsys)[0] == 0
    assert list_versions(capsys) == ([1, 2], "")
    assert run("models", "verify", capsys=capsys)[0] == 0


def test_a_pin_of_the_store_is_shown(web: WebStoreServer, capsys: Capture) -> None:
    pin_version(web.store, "flowers", 1)
    web.index()
    rows = json.loads(run("models", "list", "--json", capsys=capsys)[1])
    assert [(row["version"], row["state"]) for row in rows] == [(1, "pinned")]


def test_without_the_store_the_cache_is_shown(web: WebStoreServer, capsys: Capture) -> None:
    list_versions(capsys)
    web.faults["index.json"] = fail(503)
    versions, err = list_versions(capsys)
    assert versions == [2]
    assert "status 503" in err
    assert "cache is used" in err


def test_a_corrupt_version_is_told_of(web: WebStoreServer, capsys: Capture) -> None:
    web.faults["2/saved_model.pb"] = corrupt
    versions, err = list_versions(capsys)
    assert versions == [1]
    assert "saved_model.pb in the remote store is not the file of its" in err
    exit_code, _, err = run("models", "verify", "2", capsys=capsys)
    assert exit_code == 1
    assert "saved_model.pb" in err


@pytest.mark.parametrize(
    "command",
    [
        ("models", "use", "1"),
        ("models", "take", "1"),
        ("models", "remove", "1"),
        ("train",),
        ("models", "pull", "flowers-1.tar.gz", "--sha256", "0" * 64),
    ],
)
def test_no_command_changes_a_remote_store(web: WebStoreServer, command: tuple[str, ...], capsys: Capture) -> None:
    exit_code, _, err = run(*command, capsys=capsys)
    assert exit_code == 2
    assert "does not change a remote store" in err
    assert web.paths == []


def test_a_version_of_a_remote_store_is_packed(web: WebStoreServer, tmp_path: Path, capsys: Capture) -> None:
    archive = tmp_path / "one.tar.gz"
    assert run("models", "pack", "1", "--to", str(archive), capsys=capsys)[0] == 0
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    pulled = run(
        "models", "pull", str(archive), "--sha256", sha256, "--model-store", str(tmp_path / "other"), capsys=capsys
    )
    assert pulled[1].startswith("Version 1 of flowers is pulled")


def test_a_url_with_a_password_is_not_repeated(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://garden:hunter2@host.example/models"
    for command in (("models", "list"), ("serve",), ("doctor",)):
        exit_code, out, err = run(*command, "--model-store", url, capsys=capsys)
        assert exit_code == 2
        assert "holds a name, a password" in err
        assert "hunter2" not in out + err
    monkeypatch.setenv("FLOWERS_MODEL_STORE", url)
    exit_code, out, err = run("models", "list", capsys=capsys)
    assert exit_code == 2
    assert "hunter2" not in out + err


def test_doctor_names_url_and_trouble(web: WebStoreServer, capsys: Capture) -> None:
    web.faults["index.json"] = fail(403)
    exit_code, out, _ = run("doctor", "--json", capsys=capsys)
    found = json.loads(out)
    assert exit_code == 1
    assert (found["store"]["url"], found["settings"]["model_store"]) == (str(web.url), str(web.url))
    assert any("status 403" in problem["sentence"] for problem in found["problems"])


def test_a_missing_package_ends_the_service_at_once(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.remote_store.reader.check_installed.__defaults__", (lambda _: None,))
    exit_code, _, err = run("serve", "--model-store", "s3://garden/models", "--port", "0", capsys=capsys)
    assert exit_code == 2
    assert "-m pip install fsspec s3fs" in err
