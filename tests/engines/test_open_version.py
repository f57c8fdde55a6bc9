import shutil
import sys
import threading
from pathlib import Path
from unittest.mock import Mock

import pytest
from support.exporting import export_tiny_version
from support.fakes import FakeEngine, fake_version
from support.versions import example_metadata

from service.engines.choose import choose_engine
from service.engines.found import inspect_machine
from service.engines.open_version import ServedVersion, load_engine, open_stored, open_version
from service.engines.wish import EngineName, EngineWish
from service.errors import ChangedVersion, DeviceUnavailable, EngineFailed, InvalidVersion, VersionNotFound
from service.imaging.limits import ResizeRule
from service.store.layout import CPU_MODEL_FILES
from service.store.metadata import Preprocessing
from service.store.verify import VerifiedVersion, verify_version


def verified_with(**changes: object) -> VerifiedVersion:
    return VerifiedVersion(Path("flowers", "1"), example_metadata(**changes), {}, {})


def opened(engine: FakeEngine, max_batch_size: int = 0) -> ServedVersion:
    return open_version(verified_with(), EngineWish(), max_batch_size=max_batch_size, load=lambda *_: engine)


@pytest.mark.parametrize(
    ("engine", "found"),
    [
        (FakeEngine(num_classes=7), "7 classes, its metadata 5"),
        (FakeEngine(image_size=96), "squares of 96 pixels"),
    ],
)
def test_a_network_unlike_its_metadata_is_refused_and_closed(engine: FakeEngine, found: str) -> None:
    with pytest.raises(InvalidVersion, match=found):
        opened(engine)
    assert engine.closed.is_set()


def test_an_engine_that_fails_its_warm_up_is_closed() -> None:
    engine = FakeEngine()
    engine.warm_up_error = EngineFailed("no probabilities")
    with pytest.raises(EngineFailed):
        opened(engine, max_batch_size=4)
    assert engine.closed.is_set()


def test_the_warm_up_takes_the_largest_batch() -> None:
    engine = FakeEngine()
    opened(engine, max_batch_size=7)
    assert engine.warmed_up_to == 7
    opened(cold := FakeEngine())
    assert cold.warmed_up_to == 0


def test_images_become_square_by_the_rule_of_the_metadata() -> None:
    preprocessing = Preprocessing(shorter_side=300, image_size=96, scale=1.0, offset=0.0)
    version = ServedVersion(verified_with(preprocessing=preprocessing), FakeEngine())
    assert version.rule == ResizeRule(96, 300)
    assert (version.model, version.version) == ("flowers", 1)


def test_a_candidate_has_the_name_of_its_model() -> None:
    verified = VerifiedVersion(Path("store", "garden", "candidates", "4"), example_metadata(), {}, {})
    version = ServedVersion(verified, FakeEngine())
    assert (version.model, version.version) == ("garden", 4)


def test_a_retired_version_closes_after_its_last_use() -> None:
    engine = FakeEngine()
    version = fake_version(engine)
    with version.in_use():
        version.retire()
        assert not engine.closed.is_set()
    assert engine.closed.wait(60)


def test_an_engine_is_closed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
    monkeypatch.setattr(engine, "close", close := Mock())
    version = fake_version(engine)
    version.retire()
    version.retire()
    close.assert_called_once()


def test_an_engine_is_closed_without_a_free_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(threading.Thread, "start", Mock(side_effect=RuntimeError("can't start new thread")))
    fake_version(engine).retire()
    assert engine.closed.is_set()


def test_the_version_asked_for_is_opened(tiny_version: Path) -> None:
    version = open_stored(tiny_version, "flowers", EngineWish("onnxruntime"))
    assert version.version == 1
    version.close()
    with pytest.raises(VersionNotFound):
        open_stored(tiny_version, "flowers", EngineWish("onnxruntime"), 9)


def test_on_the_cpu_no_driver_is_asked(tiny_version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.engines.found.list_driver_gpus", Mock(side_effect=AssertionError("it was asked")))
    load_engine(verify_version(tiny_version / "flowers" / "1"), EngineWish(device="cpu")).close()


def test_a_version_before_onnxruntime_runs_on_the_savedmodel(tmp_path: Path) -> None:
    folder = export_tiny_version(tmp_path / "store", cpu_models=False) / "flowers" / "1"
    engine = load_engine(verify_version(folder), EngineWish(device="cpu"))
    assert engine.info.engine == "savedmodel"
    assert "no network for onnxruntime" in engine.info.reason


def test_a_tensorflow_that_cannot_be_imported_is_unavailable(
    tiny_version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "service.engines.savedmodel", None)
    with pytest.raises(DeviceUnavailable, match="TensorFlow cannot be imported"):
        load_engine(verify_version(tiny_version / "flowers" / "1"), EngineWish("savedmodel", "cpu"))


@pytest.mark.parametrize("engine", ["auto", "onnxruntime", "savedmodel"])
def test_an_opened_engine_shows_the_choice(tiny_version: Path, engine: EngineName) -> None:
    choice = choose_engine(inspect_machine(), ("float32", "int8"), EngineWish(engine))
    loaded = load_engine(verify_version(tiny_version / "flowers" / "1"), EngineWish(engine))
    loaded.warm_up(2)
    info = loaded.info
    assert (info.engine, info.device, info.precision) == (choice.engine, choice.device, choice.precision)
    assert (info.reason, info.warning) == (choice.reason, choice.warning)


@pytest.mark.parametrize("engine", ["onnxruntime", "savedmodel"])
def test_a_network_swapped_after_verification_is_not_loaded(
    tiny_version: Path, tmp_path: Path, engine: EngineName
) -> None:
    """By another one that is sound, and only its digest differs."""
    folder = tmp_path / "1"
    shutil.copytree(tiny_version / "flowers" / "1", folder)
    verified = verify_version(folder)
    for file in ("saved_model.pb", *CPU_MODEL_FILES.values()):
        other = folder / (CPU_MODEL_FILES["int8"] if file.endswith("model.onnx") else file)
        (tmp_path / "other").write_bytes(other.read_bytes() + b"\x78\x01" * file.endswith("pb"))
        (tmp_path / "other").replace(folder / file)
    with pytest.raises(ChangedVersion, match="of version 1 was changed while the version was loaded"):
        load_engine(verified, EngineWish(engine, "cpu", "float32"))


def test_a_savedmodel_spoilt_after_verification_was_changed(tiny_version: Path, tmp_path: Path) -> None:
    """Its new files may be sound in a moment."""
    folder = shutil.copytree(tiny_version / "flowers" / "1", tmp_path / "1")
    verified = verify_version(folder)
    (folder / "saved_model.pb").write_bytes(b"half a network")
    with pytest.raises(ChangedVersion):
        load_engine(verified, EngineWish("savedmodel", "cpu"))


def test_the_settings_reach_each_engine(tiny_version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    verified = verify_version(tiny_version / "flowers" / "1")
    assert load_engine(verified, EngineWish("onnxruntime", threads=5)).min_queue_size == 3 * 5
    monkeypatch.setattr("service.engines.savedmodel.SavedModelEngine", engine := Mock())
    load_engine(verified, EngineWish("savedmodel", "cpu", threads=5, gpu_memory_limit_mb=700))
    assert engine.call_args.kwargs == {"threads": 5, "gpu_memory_limit_mb": 700}


def test_a_savedmodel_swapped_and_put_back_is_not_taken(
    tiny_version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "1"
    shutil.copytree(tiny_version / "flowers" / "1", folder)
    verified, closed = verify_version(folder), []
    program = folder / "saved_model.pb"

    class Swapping:
        def __init__(self, *_: object, **__: object) -> None:
            program.rename(tmp_path / "aside")
            program.write_bytes(b"an attack")
            (tmp_path / "aside").replace(program)

        def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr("service.engines.savedmodel.SavedModelEngine", Swapping)
    with pytest.raises(ChangedVersion):
        load_engine(verified, EngineWish("savedmodel", "cpu"))
    assert closed
