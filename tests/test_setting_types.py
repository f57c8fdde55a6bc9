from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from service.remote_store.location import StoreUrl
from service.setting_types import Cache, DeviceSetting, MaxImageBytes, MaxImagePixels, ModelStore


def test_a_store_is_a_folder_or_a_url() -> None:
    store: TypeAdapter[object] = TypeAdapter(ModelStore)
    assert store.validate_python("models") == Path("models")
    assert store.validate_python("https://host.example/models") == StoreUrl("https", "host.example", "/models")


@pytest.mark.parametrize(
    ("setting", "refused"),
    [(MaxImageBytes, 1023), (MaxImageBytes, 1024**3 + 1), (MaxImagePixels, 1023), (DeviceSetting, "tpu"), (Cache, 1)],
)
def test_values_out_of_bounds_are_refused(setting: Any, refused: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(setting).validate_python(refused)
