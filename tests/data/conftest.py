"""The check of the real photographs, made once for this room: it decodes all of them."""

from pathlib import Path

import pytest

from service.data.check import DataCheck, check_folder
from service.data.folder import read_folder


@pytest.fixture(scope="session")
def real_check(photographs: Path) -> DataCheck:
    """What `check_folder` says of the real data set."""
    return check_folder(read_folder(photographs))
