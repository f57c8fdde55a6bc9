"""Fixtures that several rooms share: the real photographs where they are, drawn ones everywhere."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.drawing import draw_folder
from support.fakes import FakeEngine, Loader
from support.versions import publish_example

import service  # noqa: F401 - before any test imports a library that the package keeps quiet

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, by anyio's plugin."""
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


@pytest.fixture(scope="session")
def photographs() -> Path:
    """The real data set's folder; without it the test is skipped aloud, and fails where CI=true."""
    folder = Path(os.environ.get("FLOWERS_TEST_PHOTOGRAPHS", REPOSITORY.parent / "shared" / "flower_photos"))
    if not folder.is_dir():
        reason = f"no real photographs at {folder}: set FLOWERS_TEST_PHOTOGRAPHS to the unpacked flower_photos"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return folder


@pytest.fixture(scope="session")
def drawn_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five classes of twelve drawn photographs; read-only by agreement, copy it to change it."""
    return draw_folder(tmp_path_factory.mktemp("drawn") / "drawn_flowers", photographs_per_class=12)


@pytest.fixture(scope="session")
def tiny_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with version 1 of `flowers`, trained on drawn flowers and exported; read-only by agreement."""
    from support.exporting import export_tiny_version  # here, because it brings Keras

    return export_tiny_version(tmp_path_factory.mktemp("tiny") / "model_store")
