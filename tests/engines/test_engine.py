import pytest

from service.engines.engine import failed_run, no_memory_to_load
from service.errors import EngineFailed, OutOfMemory


@pytest.mark.parametrize(("cause", "kind"), [(ValueError("nan"), EngineFailed), (MemoryError(), OutOfMemory)])
def test_a_failed_call_is_told_from_want_of_memory(cause: Exception, kind: type[Exception]) -> None:
    error = failed_run(3, cause)
    assert type(error) is kind
    assert "3" in str(error)


def test_want_of_memory_names_the_version() -> None:
    assert "version 7" in str(no_memory_to_load("7"))
