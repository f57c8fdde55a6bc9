import json
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.exporting import build_tiny_network

from service.cli.doctor import (
    describe_cpu,
    describe_memory,
    describe_training,
    find_environment_problems,
    find_packages,
)
from service.cli.main import main
from service.engines.found import Machine
from service.installation import install_command
from service.settings import ServeSettings
from service.store.manage import pin_version
from service.store.publish import publish_version
from service.training.export.saved_model import export_saved_model

Capture = pytest.CaptureFixture[str]


def examine(*arguments: str, capsys: Capture) -> tuple[int, dict[str, Any]]:
    exit_code = main(["doctor", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return exit_code, found


def sentences(found: dict[str, Any], *, fatal: bool) -> list[str]:
    return [problem["sentence"] for problem in found["problems"] if problem["is_fatal"] == fatal]


@pytest.fixture
def store(tiny_version: Path, tmp_path: Path) -> Path:
    """Two good versions."""
    store = shutil.copytree(tiny_version, tmp_path / "store")
    with publish_version(store, "flowers") as draft:
        shutil.copytree(store / "flowers" / "1", draft.folder, dirs_exist_ok=True)
    return store


def damage(folder: Path) -> None:
    """So that only its digest shows it: everything can still be read and run."""
    with (folder / "assets.extra" / "metadata.json").open("a") as file:
        file.write(" ")


def test_a_sound_machine_and_store_exit_with_0(store: Path, capsys: Capture) -> None:
    exit_code, found = examine("--model-store", str(store), "--device", "cpu", "--precision", "float32", capsys=capsys)
    assert exit_code == 0
    assert found["store"] == {"folder": str(store), "models": {"flowers": [1, 2]}}
    assert found["serves"] == {"model": "flowers", "version": 2}
    assert found["engine"] == {
        "engine": "onnxruntime",
        "device": "cpu",
        "precision": "float32",
        "reason": "The CPU was asked for. float32 was asked for.",
    }
    assert sentences(found, fatal=True) == []


def test_the_table_says_the_same_to_people(store: Path, capsys: Capture) -> None:
    assert main(["doctor", "--model-store", str(store)]) == 0
    table = capsys.readouterr().out
    for fact in ("python", "tensorflow", "cores", "GiB", str(store), "version: 2", "onnxruntime", "problem"):
        assert fact in table
    assert "[/]" not in table, "no markup is left"


def test_settings_that_differ_from_their_default_are_shown(
    store: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWERS_MODEL_STORE", str(store))
    monkeypatch.setenv("FLOWERS_EPOCHS", "3")
    _, found = examine("--port", "8001", capsys=capsys)
    assert found["settings"] == {"model_store": str(store), "epochs": "3", "port": "8001"}


def test_settings_at_their_defaults_are_said_to_be(capsys: Capture) -> None:
    main(["doctor"])
    assert "all at their defaults" in capsys.readouterr().out


def test_an_empty_store_exits_with_1_and_a_remedy(tmp_path: Path, capsys: Capture) -> None:
    exit_code, found = examine("--model-store", str(tmp_path), capsys=capsys)
    assert exit_code == 1
    assert found["serves"]["version"] is None
    assert "flowers train" in sentences(found, fatal=True)[0]
    assert main(["doctor", "--model-store", str(tmp_path)]) == 1
    table = capsys.readouterr().out
    assert "models: none" in table
    assert "models: all at their defaults" not in table


def test_another_model_than_flowers_is_tried(store: Path, capsys: Capture) -> None:
    exit_code, found = examine("--model-store", str(store), "--model", "birds", capsys=capsys)
    assert exit_code == 1
    assert "Model birds is not in the store" in sentences(found, fatal=True)[0]


def test_a_damaged_version_beside_a_sound_one_warns(store: Path, capsys: Capture) -> None:
    damage(store / "flowers" / "2")
    exit_code, found = examine("--model-store", str(store), capsys=capsys)
    assert exit_code == 0
    assert found["serves"]["version"] == 1
    assert any(
        "Version 2" in warning and "metadata.json was changed" in warning for warning in sentences(found, fatal=False)
    )


def test_a_damaged_pinned_version_is_fatal(store: Path, capsys: Capture) -> None:
    pin_version(store, "flowers", 2)
    damage(store / "flowers" / "2")
    exit_code, found = examine("--model-store", str(store), capsys=capsys)
    assert exit_code == 1
    assert found["engine"] is None
    assert "No version of flowers can be served" in sentences(found, fatal=True)[0]


def test_the_words_of_a_runtime_are_passed_on(store: Path, capsys: Capture) -> None:
    with publish_version(store, "flowers") as draft:
        shutil.copytree(store / "flowers" / "1", draft.folder, dirs_exist_ok=True)
        for path in draft.folder.glob("assets.extra/*.onnx"):
            path.write_bytes(b"no network")
    _, found = examine("--model-store", str(store), capsys=capsys)
    (sentence,) = sentences(found, fatal=False)
    assert "that can be loaded here" in sentence
    assert "protobuf" in sentence


def test_a_network_unlike_its_metadata_is_found(store: Path, capsys: Capture) -> None:
    with publish_version(store, "flowers") as draft:
        shutil.copytree(store / "flowers" / "1", draft.folder, dirs_exist_ok=True)
        path = draft.folder / "assets.extra" / "metadata.json"
        metadata = json.loads(path.read_text())
        metadata["class_names"].pop()
        metadata["network"]["num_classes"] -= 1
        path.write_text(json.dumps(metadata))
    _, found = examine("--model-store", str(store), capsys=capsys)
    assert found["serves"]["version"] == 2
    assert any("5 classes, its metadata 4" in warning for warning in sentences(found, fatal=False))


BOTH = {"tensorflow": "2.21.0", "tensorflow-cpu": "2.21.0", "onnxruntime": "1.32.0"}
ONE = {**BOTH, "tensorflow-cpu": None}
LIGHT = {**ONE, "tensorflow": None}


@pytest.mark.parametrize(
    ("packages", "machine", "found"),
    [
        (BOTH, Machine(), "both installed"),
        (ONE, Machine(("GPU 0: NVIDIA L4",)), "install-training TRAIN_WITH=gpu"),
        (LIGHT, Machine(("GPU 0: NVIDIA L4",), no_tensorflow="is not installed"), "install-training TRAIN_WITH=gpu"),
        ({**ONE, "onnxruntime": None}, Machine(), "Install this package anew"),
    ],
)
def test_each_problem_of_the_installation_has_its_remedy(
    packages: dict[str, str | None], machine: Machine, found: str
) -> None:
    (finding,) = find_environment_problems(packages, machine)
    assert found in finding.sentence
    assert not finding.is_fatal


@pytest.mark.parametrize("packages", [ONE, LIGHT])
def test_a_sound_installation_has_no_problem(packages: dict[str, str | None]) -> None:
    assert list(find_environment_problems(packages, Machine())) == []


def test_settings_that_cannot_be_met_are_fatal(store: Path, capsys: Capture) -> None:
    wishes = ("--engine", "savedmodel", "--precision", "int8")
    exit_code, found = examine("--model-store", str(store), *wishes, capsys=capsys)
    assert exit_code == 1
    (sentence,) = sentences(found, fatal=True)
    assert "--precision int8 is for onnxruntime" in sentence


def test_what_the_engine_warns_of_is_a_warning(store: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engines.found.has_fast_int8", lambda: False)
    exit_code, found = examine("--model-store", str(store), "--precision", "int8", capsys=capsys)
    assert exit_code == 0
    assert any("sums may overflow" in warning for warning in sentences(found, fatal=False))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (None, "cannot be read. No such file or directory. Name a file"),
        ("# none yet\n", "Add a key"),
        ("a b", "no header can carry"),
    ],
)
def test_api_keys_that_serve_would_refuse_are_fatal(
    keys: str | None, said: str, store: Path, tmp_path: Path, capsys: Capture
) -> None:
    file = tmp_path / "keys"
    if keys is not None:
        file.write_text(keys)
    exit_code, found = examine("--model-store", str(store), "--api-keys-file", str(file), capsys=capsys)
    assert exit_code == 1
    (sentence,) = sentences(found, fatal=True)
    assert said in sentence


def test_an_api_key_is_never_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWERS_API_KEYS", "the-key-of-the-garden")
    for arguments in (["doctor"], ["doctor", "--json"]):
        main(arguments)
    shown = capsys.readouterr()
    assert "api_keys" in shown.out
    assert "the-key" not in shown.out + shown.err
    assert "the-key" not in repr(ServeSettings())


def test_packages_that_are_missing_are_listed_too() -> None:
    packages = find_packages()
    assert packages["numpy"] == version("numpy")
    assert {"tensorflow", "tensorflow-cpu"} <= packages.keys()
    assert not (packages["tensorflow"] and packages["tensorflow-cpu"])


def test_cpu_and_memory_are_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cli.doctor.cpu_features", lambda: {"fpu", "avx512f", "avx2"})
    monkeypatch.setattr("service.cli.doctor.total_memory", lambda: 2 * 2**30)
    monkeypatch.setattr("service.cli.doctor.memory_left", lambda: 2**29)
    assert describe_cpu()["features"] == ["avx2", "avx512f"]
    assert describe_memory() == {"total": "2.0 GiB", "available": "0.5 GiB"}
    monkeypatch.setattr("service.cli.doctor.total_memory", lambda: 0)
    assert describe_memory() == {}


def test_a_network_that_answers_with_no_numbers_is_found(store: Path, capsys: Capture) -> None:
    network = build_tiny_network()
    network.set_weights([np.full_like(weight, np.nan) for weight in network.get_weights()])
    with publish_version(store, "flowers") as draft:
        shutil.copytree(store / "flowers" / "1", draft.folder, dirs_exist_ok=True)
        export_saved_model(network, draft.folder, scale=1.0, offset=0.0, temperature=1.0)
    _, found = examine("--model-store", str(store), "--engine", "savedmodel", capsys=capsys)
    assert found["serves"]["version"] == 2
    assert "no table of finite numbers" in sentences(found, fatal=False)[0]


def test_what_is_missing_to_train_has_a_command() -> None:
    assert describe_training() == {"ready": True}
    lacks = describe_training(lambda name: None if name in ("keras", "onnx") else name)
    assert lacks == {"ready": False, "missing": ["keras", "onnx"], "remedy": install_command()}
