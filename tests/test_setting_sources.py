"""The sources of settings, in their order."""

from pathlib import Path

import pytest

from service import setting_sources
from service.api.access import read_keys
from service.errors import SettingsError
from service.settings import PROGRAMS, ServeSettings


@pytest.mark.parametrize("value", ["", " "])
def test_a_variable_set_to_nothing_is_unset(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for program in PROGRAMS:
        unset = program()
        for name in program.model_fields:
            if not name.startswith("api_keys"):
                monkeypatch.setenv(f"FLOWERS_{name.upper()}", value)
        assert program() == unset
    monkeypatch.setenv("flowers_port", value)
    assert ServeSettings().port == 8000


@pytest.mark.parametrize("name", ["FLOWERS_API_KEYS", "FLOWERS_API_KEYS_FILE", "flowers_api_keys"])
def test_keys_set_to_nothing_are_not_unset(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "")
    settings = ServeSettings()
    assert getattr(settings, name.lower().removeprefix("flowers_")) is not None
    with pytest.raises(SettingsError):
        read_keys(settings.api_keys, settings.api_keys_file)


def test_flags_and_variables_of_ours_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_BIND_TO_PORT", "1")
    assert (ServeSettings().port, ServeSettings().host) == (1, "0.0.0.0")
    monkeypatch.setenv("AIP_HTTP_PORT", "2")
    assert ServeSettings().port == 2  # Vertex AI comes before SageMaker
    monkeypatch.setenv("FLOWERS_PORT", "3")
    monkeypatch.setenv("FLOWERS_HOST", "127.0.0.1")
    assert (ServeSettings().port, ServeSettings().host) == (3, "127.0.0.1")
    assert (ServeSettings(port=4).port, ServeSettings(host="::1").host) == (4, "::1")


def test_a_version_in_the_folder_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The image sets the variable for its own store. A flag is meant."""
    (tmp_path / "garden" / "3").mkdir(parents=True)
    monkeypatch.setattr(setting_sources, "SAGEMAKER_FOLDER", tmp_path)
    monkeypatch.setenv("FLOWERS_MODEL_STORE", "/srv/model_store")
    settings = ServeSettings()
    assert (settings.model_store, settings.model, settings.port) == (tmp_path, "garden", 8080)
    assert ServeSettings(model_store=Path("mine")).model_store == Path("mine")
