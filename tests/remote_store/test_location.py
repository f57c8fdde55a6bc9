import pickle
from pathlib import Path

import pytest

from service.errors import SettingsError
from service.remote_store.location import StoreUrl, parse_location


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("s3://garden/models/", "s3://garden/models"),
        ("S3://garden", "s3://garden"),
        ("gs://garden//models", "gs://garden/models"),
        ("https://host.example:8443/m", "https://host.example:8443/m"),
        ("https://host.example/m/index.json", "https://host.example/m"),
        ("http://localhost:9000/m", "http://localhost:9000/m"),
        (" s3://garden ", "s3://garden"),
    ],
)
def test_a_url_keeps_its_slashes(text: str, meant: str) -> None:
    url = parse_location(text)
    assert isinstance(url, StoreUrl)
    assert str(url) == meant
    assert parse_location(url) is url
    assert pickle.loads(pickle.dumps(url)) == url  # a new worker gets it so


@pytest.mark.parametrize("text", ["model_store", "/srv/models", "./a:b", "s3", "."])
def test_everything_else_is_a_folder(text: str) -> None:
    assert parse_location(text) == Path(text)


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hunter2@host.example/m",
        "s3://AKIA:hunter2@garden/m",
        "https://host.example/m?token=hunter2",
        "https://host.example/m#hunter2",
        "ftp://hunter2.example/m",
        "http://hunter2.example/m",
        "s3:///hunter2",
        "s3://hunter2/../other",
        "s3://hunter2 garden",
        "https://hunter2:0/m",
        "https://[hunter2/m",
        "s3:/hunter2/m",
        "https:///hunter2",
    ],
)
def test_a_refused_url_is_not_repeated(text: str) -> None:
    with pytest.raises(SettingsError, match="--model-store") as caught:
        parse_location(text)
    assert "hunter2" not in str(caught.value)


def test_each_url_has_a_cache_of_its_own(tmp_path: Path) -> None:
    folders = {StoreUrl("s3", "garden", path).cache_folder(tmp_path) for path in ("", "/a", "/b")}
    assert len(folders) == 3
    assert all(folder.parent == tmp_path / "stores" and "garden" not in folder.name for folder in folders)


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/garden")
    assert StoreUrl("s3", "garden", "").cache_folder(Path("~/x")).parent == Path("/home/garden/x/stores")
