import inspect

import pytest

from service.training.observer import Observer


def test_an_observer_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    methods = inspect.getmembers(Observer(), inspect.ismethod)
    assert len(methods) == 11
    for _, method in methods:
        assert method(*(None for _ in inspect.signature(method).parameters)) is None
    assert capfd.readouterr() == ("", "")
