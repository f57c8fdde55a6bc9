import pytest

from service.errors import SettingsError
from service.setting_checks import check_environment, check_keys_variable
from service.settings import ServeSettings


def test_the_variable_of_clients_does_not_open_a_service(monkeypatch: pytest.MonkeyPatch) -> None:
    check_keys_variable(ServeSettings())
    monkeypatch.setenv("FLOWERS_API_KEY", "garden")
    with pytest.raises(SettingsError, match="Set FLOWERS_API_KEYS, or unset FLOWERS_API_KEY") as caught:
        check_keys_variable(ServeSettings())
    assert "garden" not in str(caught.value)
    monkeypatch.setenv("FLOWERS_API_KEYS", "garden")
    check_keys_variable(ServeSettings())


def test_only_a_misspelt_variable_of_ours_is_refused() -> None:
    check_environment({"FLOWERS_PORT": "1", "FLOWERS_SEED": "1", "PATH": "/bin", "FLOWERS_TEST_PHOTOGRAPHS": "x"})
    with pytest.raises(SettingsError, match=r"FLOWERS_PROT.*FLOWERS_PORT"):
        check_environment({"FLOWERS_PROT": "1"})


def test_names_of_the_environment_are_checked_whatever_their_case() -> None:
    check_environment({"flowers_model": "birds"})
    with pytest.raises(SettingsError, match=r"flowers_prot.*FLOWERS_PORT"):
        check_environment({"flowers_prot": "1"})


def test_variables_of_the_compose_file_stop_no_command() -> None:
    check_environment({"FLOWERS_ADDRESS": "0.0.0.0"})
    with pytest.raises(SettingsError, match=r"The nearest is FLOWERS_(?!ADDRESS)"):
        check_environment({"FLOWERS_ADRESS": "0.0.0.0"})
