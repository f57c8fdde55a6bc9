from pathlib import Path

import pytest

from service import setting_sources
from service.cli.main import main
from service.errors import SettingsError
from service.platforms import Mounted, find_mounted, read_platforms
from service.settings import ServeSettings

NOWHERE = Path("/nowhere")


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, {}),
        ({"AIP_HTTP_PORT": " ", "SAGEMAKER_BIND_TO_PORT": "", "AIP_HEALTH_ROUTE": ""}, {}),
        ({"AIP_HTTP_PORT": "8081", "AIP_MODE": "x"}, {"host": "0.0.0.0", "port": 8081}),
        ({"AIP_HEALTH_ROUTE": "/health"}, {"vertex_health_route": "/health"}),
        ({"AIP_PREDICT_ROUTE": "/v1/models/m:predict"}, {"vertex_predict_route": "/v1/models/m:predict"}),
        ({"AIP_DEPLOYED_MODEL_ID": "7"}, {"vertex_deployed_model_id": "7"}),
        (
            {"SAGEMAKER_BIND_TO_PORT": "9090"},
            {"host": "0.0.0.0", "port": 9090, "drain_timeout_s": 20.0},
        ),
    ],
)
def test_variables_of_a_platform_become_settings(environment: dict[str, str], asked: dict[str, object]) -> None:
    assert read_platforms(environment, {}, NOWHERE) == asked


def test_the_folder_of_sagemaker_means_its_port(tmp_path: Path) -> None:
    asked = {"host": "0.0.0.0", "port": 8080, "drain_timeout_s": 20.0}
    assert read_platforms({}, {}, tmp_path) == asked
    assert read_platforms({"SAGEMAKER_BIND_TO_PORT": "9090"}, {}, tmp_path) == asked | {"port": 9090}


def test_sagemaker_has_time_for_the_whole_drain(tmp_path: Path) -> None:
    drain_timeout_s = read_platforms({}, {}, tmp_path)["drain_timeout_s"]
    assert ServeSettings().drain_delay_s + drain_timeout_s < 30


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("AIP_HTTP_PORT", value) for value in ("x", "0", "65536", "-1", "8_0", "8.0", "٣", "9" * 5000)],
        ("SAGEMAKER_BIND_TO_PORT", "x"),
        *[("AIP_PREDICT_ROUTE", value) for value in ("predict", "/a b", "/{name}", "/a?b", "/" + "a" * 300, "/ä")],
        ("AIP_HEALTH_ROUTE", "health"),
    ],
)
def test_a_wrong_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{name} is .*Correct it, or unset it\.$") as caught:
        read_platforms({name: value}, {}, NOWHERE)
    assert len(str(caught.value)) < 250
    known = {"port": 1, "vertex_predict_route": "/", "vertex_health_route": "/"}
    read_platforms({name: value}, known, NOWHERE)  # what is given otherwise is not read


def test_a_wrong_variable_ends_the_program_with_two(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIP_HTTP_PORT", "http")
    assert main(["serve"]) == 2
    assert "AIP_HTTP_PORT is 'http'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folders", "mounted"),
    [
        ([], None),
        (["code", "flowers/candidates"], None),
        (["code", "garden/3", "garden/candidates"], ("model", "garden")),
        (["7", "code"], ("", "model")),
    ],
)
def test_a_version_is_found_in_the_folder(tmp_path: Path, folders: list[str], mounted: tuple[str, str] | None) -> None:
    folder = tmp_path / "model"
    for name in folders:
        (folder / name).mkdir(parents=True)
    assert find_mounted(folder) == (Mounted(tmp_path / mounted[0], mounted[1]) if mounted else None)


def test_files_without_a_number_end_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "saved_model.pb").touch()
    monkeypatch.setattr(setting_sources, "SAGEMAKER_FOLDER", tmp_path)
    assert main(["serve"]) == 2
    assert f"such as {tmp_path / '1'}." in capsys.readouterr().err
