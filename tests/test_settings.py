from pathlib import Path

import pytest
from pydantic import ValidationError

from service.errors import InvalidParameter
from service.setting_checks import describe_invalid_settings
from service.settings import (
    PROGRAMS,
    ServeSettings,
)
from service.store.layout import check_model_name

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
    "explanations": True,
    "max_explanations": 1,
    "max_waiting_explanations": 4,
    "explain_timeout_s": 30,
}


@pytest.mark.parametrize(("setting", "default"), PROMISED.items())
def test_the_defaults_are_the_promised_ones(setting: str, default: object) -> None:
    assert getattr(ServeSettings(), setting) == default


def test_the_flag_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_PORT", "9000")
    assert ServeSettings().port == 9000
    assert ServeSettings(port=9001).port == 9001


def test_a_value_out_of_bounds_names_flag_and_variable() -> None:
    with pytest.raises(ValidationError) as caught:
        ServeSettings(max_batch_size=0)
    sentence = describe_invalid_settings(caught.value)
    assert sentence.startswith("--max-batch-size (FLOWERS_MAX_BATCH_SIZE) is ")
    assert "greater than or equal to 1" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize(
    ("host", "meant"), [("[::1]", "::1"), ("[::]", "::"), ("::1", "::1"), (" 127.0.0.1", "127.0.0.1")]
)
def test_a_host_may_be_copied_out_of_an_address(host: str, meant: str) -> None:
    assert ServeSettings(host=host).host == meant


@pytest.mark.parametrize(
    "name",
    [
        "flowers",
        "0",
        "My_garden-2.1",
        "a" * 64,
        "a" * 65,
        "../x",
        "",
        ".git",
        "-x",
        "a/b",
        "ä",
        "x\n",
        "x ",
        "candidates",
    ],
)
def test_a_model_name_fits_the_store(name: str) -> None:
    try:
        check_model_name(name)
    except InvalidParameter:
        with pytest.raises(ValidationError, match="model"):
            ServeSettings(model=name)
    else:
        assert ServeSettings(model=name).model == name


def test_an_impossible_name_is_refused_with_the_rule() -> None:
    with pytest.raises(ValidationError) as caught:
        ServeSettings(model="../x")
    sentence = describe_invalid_settings(caught.value)
    assert sentence.startswith("--model (FLOWERS_MODEL) is '../x'. Give 1 to 64 letters, digits")


@pytest.mark.parametrize(
    "origins",
    [
        *("", "*", "https://shop.example", "http://localhost:3000", "http://127.0.0.1:8080", "http://[::1]:8080"),
        *("https://a.example, https://b.example", "chrome-extension://abcdef"),
    ],
)
def test_origins_may_ask_from_a_browser(origins: str) -> None:
    assert ServeSettings(cors_origins=origins).cors_origins == origins


def test_origins_are_kept_as_browsers_send_them() -> None:
    assert ServeSettings(cors_origins="https://Shop.Example").cors_origins == "https://shop.example"


@pytest.mark.parametrize(
    "origins",
    [
        *("not an origin", "shop.example", "https://", "https://shop.example/", "https://shop.example/page"),
        *("https://*.example", "https://a@shop.example", "https://shop.example:port", "*, shop.example", "null"),
    ],
)
def test_what_is_no_origin_is_refused_with_an_example(origins: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ServeSettings(cors_origins=origins)
    sentence = describe_invalid_settings(caught.value)
    assert sentence.startswith(f"--cors-origins (FLOWERS_CORS_ORIGINS) is {origins!r}. Give origins such as")


def test_the_request_timeout_states_when_it_begins() -> None:
    assert "from the end of its upload" in str(ServeSettings.model_fields["request_timeout_s"].description)


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_setting_has_a_sentence(program: type) -> None:
    for name, field in program.model_fields.items():  # type: ignore[attr-defined]
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize(
    ("workers", "allowed"),
    [(0, "greater than or equal to 1"), (65, "less than or equal to 64"), ("two", "a valid integer")],
)
def test_wrong_workers_get_both_kinds_of_value_named(workers: object, allowed: str) -> None:
    with pytest.raises(ValidationError) as raised:
        ServeSettings.model_validate({"workers": workers})
    sentence = describe_invalid_settings(raised.value)
    assert sentence.startswith(f"--workers (FLOWERS_WORKERS) is {workers!r}. Input should be 'auto'. Or: ")
    assert allowed in sentence


def test_a_url_is_read_from_its_cache(tmp_path: Path) -> None:
    settings = ServeSettings.model_validate({"model_store": "s3://garden/models", "cache": tmp_path})
    assert str(settings.model_store) == "s3://garden/models"
    assert settings.store_folder.parent == tmp_path / "stores"
    assert ServeSettings(model_store=tmp_path).store_folder == tmp_path
