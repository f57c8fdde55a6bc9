"""A store with two versions of `flowers` behind HTTP, and a mirror of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.versions import publish_example
from support.web_store import WebStoreServer, served_store

from service.remote_store.cache import ModelCache
from service.remote_store.mirror import Mirror
from service.remote_store.reader import open_reader


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2 of `flowers`; read-only by agreement."""
    store = tmp_path_factory.mktemp("published") / "store"
    for temperature in (1.1, 1.2):
        publish_example(store, temperature=temperature)
    return store


@pytest.fixture
def web(published: Path, tmp_path: Path) -> Iterator[WebStoreServer]:
    """Versions 1 and 2 of `flowers`."""
    shutil.copytree(published, tmp_path / "published")
    with served_store(tmp_path / "published") as server:
        yield server


@pytest.fixture
def mirror(web: WebStoreServer, tmp_path: Path) -> Mirror:
    """It pulls into `tmp_path / "cache"`."""
    return Mirror(open_reader(web.url), ModelCache(tmp_path / "cache", "flowers"), "flowers", 10**9)
