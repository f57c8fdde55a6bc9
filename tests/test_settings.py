import pytest
from pydantic import ValidationError

from service.errors import SettingsError
from service.settings import PROGRAMS, ServeSettings, check_environment, describe_invalid_settings

PROMISED = {
    "host": "127.0.0.1",
    "port": 8000,
    "max_image_bytes": 20 * 1024 * 1024,
    "max_image_pixels": 50_000_000,
    "max_batch_size": 32,
    "max_queue_size": 128,
    "request_timeout_s": 10,
    "body_timeout_s": 30,
    "drain_delay_s": 5,
    "drain_timeout_s": 25,
    "reload_interval_s": 5,
}


@pytest.mark.parametrize(("setting", "default"), PROMISED.items())
def test_the_defaults_are_the_promised_ones(setting: str, default: object) -> None:
    assert getattr(ServeSettings(), setting) == default


def test_the_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_PORT", "9000")
    assert ServeSettings().port == 9000
    assert ServeSettings(port=9001).port == 9001


def test_a_value_out_of_bounds_is_one_sentence_that_names_flag_and_variable() -> None:
    with pytest.raises(ValidationError) as caught:
        ServeSettings(max_batch_size=0)
    sentence = describe_invalid_settings(caught.value)
    assert sentence.startswith("--max-batch-size (FLOWERS_MAX_BATCH_SIZE): ")
    assert "greater than or equal to 1" in sentence
    assert "\n" not in sentence


def test_a_misspelt_variable_is_refused_and_another_programs_is_not() -> None:
    check_environment({"FLOWERS_PORT": "1", "FLOWERS_SEED": "1", "PATH": "/bin", "FLOWERS_TEST_PHOTOGRAPHS": "x"})
    with pytest.raises(SettingsError, match=r"FLOWERS_PROT.*FLOWERS_PORT"):
        check_environment({"FLOWERS_PROT": "1"})


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_setting_has_a_sentence(program: type) -> None:
    for name, field in program.model_fields.items():  # type: ignore[attr-defined]
        assert field.description, name
        assert field.description.endswith("."), name
