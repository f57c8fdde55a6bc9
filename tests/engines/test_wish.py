from typing import Any

import pytest

from service.engines.wish import EngineWish
from service.errors import SettingsError


@pytest.mark.parametrize(
    ("wishes", "what"),
    [
        ({"engine": "onnxruntime", "device": "gpu"}, "computes on the CPU"),
        ({"engine": "savedmodel", "precision": "int8"}, "for onnxruntime"),
        ({"device": "gpu", "precision": "int8"}, "for onnxruntime"),
    ],
)
def test_wishes_that_contradict_are_refused(wishes: dict[str, Any], what: str) -> None:
    with pytest.raises(SettingsError, match=what):
        EngineWish(**wishes).check()


@pytest.mark.parametrize("wish", [EngineWish(), EngineWish("onnxruntime", "cpu", "int8"), EngineWish(device="gpu")])
def test_other_wishes_are_accepted(wish: EngineWish) -> None:
    wish.check()
