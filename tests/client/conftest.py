"""The real service with the shipped model, for the tests of its client."""

from collections.abc import Iterator

import pytest
from conftest import REPOSITORY
from support.listening import listening


@pytest.fixture(scope="package")
def url() -> Iterator[str]:
    with listening(REPOSITORY / "model_store") as address:
        yield address
