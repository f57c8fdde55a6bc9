"""A store with one version, fake engines for it, and asyncio for the async tests (by anyio's plugin)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import FakeEngine, Loader
from versions import publish_example


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """One version of `flowers`, whose network nobody can load."""
    store = tmp_path / "model_store"
    publish_example(store)
    return store


@pytest.fixture
def loader() -> Iterator[Loader]:
    """Fake engines; that of version 1 is `loader.engines[1]`."""
    loader = Loader()
    loader.engines[1] = FakeEngine()
    yield loader
    for engine in loader.engines.values():
        engine.release()
