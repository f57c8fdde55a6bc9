import csv
import io
import json
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.drawing import CLASS_NAMES, draw_photograph, encode

from service.cli.main import main
from service.data.folder import read_folder
from service.data.split import parse_split
from service.engines.engine import Engine
from service.engines.open_version import load_engine
from service.engines.wish import EngineWish
from service.evaluation.score import score_photographs
from service.imaging.decode import decode_image
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.pixels import Decoded
from service.store.layout import METADATA_FILE, SPLIT_FILE
from service.store.metadata import read_metadata
from service.store.publish import publish_version
from service.store.verify import VerifiedVersion, verify_version
from service.store.versions import resolve_version

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def store(tiny_version: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWERS_MODEL_STORE", str(tiny_version))
    return tiny_version


@pytest.fixture
def folder(store: Path, tmp_path: Path) -> Path:
    """The photographs of the version's test part, drawn again; a test may spoil them."""
    folder = tmp_path / "photographs"
    split = (resolve_version(store, "flowers").folder / SPLIT_FILE).read_bytes()
    for entry in parse_split(split, "of the version").part("test"):
        path = folder / entry.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(draw_photograph(CLASS_NAMES.index(path.parent.name), seed=int(path.stem))))
    return folder


def test_it_measures_what_the_version_answers(store: Path, folder: Path, capsys: Capture) -> None:
    assert main(["evaluate", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    photographs = read_folder(folder)
    engine = load_engine(verify_version(resolve_version(store, "flowers").folder), EngineWish())
    rows = score_photographs(
        engine, [photograph.path for photograph in photographs.photographs], ResizeRule(), ImageLimits()
    )
    engine.close()
    truth = np.array([photographs.class_names.index(photograph.label) for photograph in photographs.photographs])
    confusion = np.zeros((5, 5), int)
    np.add.at(confusion, (truth, rows.probabilities.argmax(axis=1)), 1)
    assert document["confusion"] == confusion.tolist()
    assert document["num_photographs"] == len(truth)
    assert document["num_correct"] == confusion.trace()
    assert (document["model"], document["version"], document["part"]) == ("flowers", 1, "all")
    assert document["unscored"] == []


def test_the_table_says_it_for_people(folder: Path, capsys: Capture) -> None:
    assert main(["evaluate", str(folder), "--version", "1"]) == 0
    captured = capsys.readouterr()
    assert f"flowers, version 1, on {folder} (all)" in captured.out
    for word in ("accuracy", "95 % interval", "precision", "sunflowers", "truly | predicted"):
        assert word in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_folder_may_lack_classes_of_the_model(is_empty: bool, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.rmtree(folder / "roses")
    if is_empty:
        (folder / "roses").mkdir()
    page = tmp_path / "report.html"
    assert main(["evaluate", str(folder), "--report", str(page)]) == 0
    said = "4 of the model's 5, without photographs of roses"
    assert said in capsys.readouterr().out
    assert said in page.read_text().replace("&#x27;", "'")
    assert main(["evaluate", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["absent_classes"] == ["roses"]
    assert document["num_photographs"] == len(list(folder.rglob("*.jpg")))


def test_one_class_alone_is_measured(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(folder / "roses", tmp_path / "one" / "roses")
    assert main(["evaluate", str(tmp_path / "one")]) == 0
    assert "1 of the model's 5" in capsys.readouterr().out


def test_a_candidate_is_measured_by_its_number(store: Path, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    with publish_version(tmp_path / "store", "flowers") as draft:
        shutil.copytree(resolve_version(store, "flowers").folder, draft.folder, dirs_exist_ok=True)
        draft.is_candidate = True
    arguments = ["evaluate", str(folder), "--model-store", str(tmp_path / "store"), "--json"]
    assert main([*arguments, "--version", "1"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["model"], document["version"]) == ("flowers", 1)
    assert main(arguments) == 1
    assert "Its newest candidate is 1" in capsys.readouterr().err


def test_check_agrees_with_the_metadata_to_the_photograph(store: Path, folder: Path, capsys: Capture) -> None:
    metadata = read_metadata(resolve_version(store, "flowers").folder / METADATA_FILE)
    assert metadata.metrics
    for stated in metadata.metrics:
        assert main(["evaluate", str(folder), "--part", stated.part, "--check", "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["num_photographs"] == stated.num_photographs
        assert document["num_correct"] == stated.num_correct
        assert document["differences"] == []


def test_check_fails_when_the_metadata_claims_one_photograph_more(
    store: Path, folder: Path, tmp_path: Path, capsys: Capture
) -> None:
    honest = resolve_version(store, "flowers").folder
    with publish_version(tmp_path / "store", "flowers") as draft:
        shutil.copytree(honest, draft.folder, dirs_exist_ok=True)
        path = draft.folder / METADATA_FILE
        document = json.loads(path.read_text())
        test = next(metrics for metrics in document["metrics"] if metrics["part"] == "test")
        test["num_correct"] += 1 if test["num_correct"] < test["num_photographs"] else -1
        path.write_text(json.dumps(document))
    arguments = ["evaluate", str(folder), "--model-store", str(tmp_path / "store"), "--part", "test"]
    assert main(arguments) == 0
    capsys.readouterr()
    assert main([*arguments, "--check"]) == 1
    assert "num_correct is" in capsys.readouterr().err


def test_check_fails_when_photographs_have_changed(folder: Path, capsys: Capture) -> None:
    roses = sorted((folder / "roses").iterdir())
    for path in roses[1:]:
        shutil.copy(roses[0], path)
    assert main(["evaluate", str(folder), "--part", "test", "--check"]) == 1
    assert "has changed since the split was made" in capsys.readouterr().err


def test_an_unwritable_place_is_refused_before_the_measurement(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    measured: list[object] = []
    monkeypatch.setattr("service.cli.evaluate.evaluate_folder", lambda *_, **__: measured.append(True))
    for flag in ("--report", "--mistakes"):
        for place in (tmp_path / "nowhere" / "report.html", tmp_path):
            assert main(["evaluate", str(folder), flag, str(place)]) == 2
            assert f"{flag} is '{place}'. Name a file, in a folder that exists" in capsys.readouterr().err
    for flag, place, said in (
        ("--copy-mistakes", folder.parent, "Name a new or an empty folder"),
        ("--copy-mistakes", folder / "wrong", "Name a folder outside"),
        ("--none-of-these", tmp_path / "nowhere", "Name a folder of images"),
    ):
        assert main(["evaluate", str(folder), flag, str(place)]) == 2
        assert said in capsys.readouterr().err
    assert not measured


def test_a_report_is_written(folder: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(folder), "--report", str(tmp_path / "report.html")]) == 0
    assert "<html" in (tmp_path / "report.html").read_text()


def draw_learned(folder: Path, label: str = "roses") -> Path:
    """Draw a photograph of the version's training part."""
    path = folder / label / "learned.jpg"
    path.write_bytes(encode(draw_photograph(CLASS_NAMES.index(label), seed=100)))
    return path


def test_learned_photographs_are_counted_apart(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    draw_learned(folder)
    assert main(["evaluate", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["learned"] == {"num_photographs": 1, "num_correct": 1, "accuracy": 1.0}
    unseen = document["unseen"]
    assert unseen["num_photographs"] == document["num_photographs"] - 1 == 40
    assert unseen["num_correct"] == document["num_correct"] - 1
    assert main(["evaluate", str(folder), "--report", str(tmp_path / "report.html")]) == 0
    said = f"Unseen {unseen['num_correct']} of 40 right"
    out = capsys.readouterr().out
    assert said in out
    assert f"{unseen['num_correct']} of 40 photographs, 95 % interval" in out
    assert said in (tmp_path / "report.html").read_text()


def test_a_folder_of_learned_photographs_alone_is_warned_of(folder: Path, capsys: Capture) -> None:
    for path in (folder / "roses").iterdir():
        path.unlink()
    draw_learned(folder)
    shutil.move(folder / "roses", folder.parent / "learned" / "roses")
    assert main(["evaluate", str(folder.parent / "learned")]) == 0
    assert "WARNING: version 1 has learned from all 1 photographs" in capsys.readouterr().out
    assert main(["evaluate", str(folder.parent / "learned"), "--json"]) == 0
    captured = capsys.readouterr()
    assert "WARNING: version 1 has learned from all 1 photographs" in captured.err
    assert json.loads(captured.out)["unseen"] == {"num_photographs": 0, "num_correct": 0, "accuracy": None}


def test_mistakes_are_listed_and_copied(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copy(draw_learned(folder), folder / "tulips" / "a rose.jpg")
    table, copies = tmp_path / "wrong.csv", tmp_path / "wrong"
    assert main(["evaluate", str(folder), "--mistakes", str(table), "--copy-mistakes", str(copies)]) == 0
    rows = list(csv.DictReader(io.StringIO(table.read_text(), newline="")))
    assert list(rows[0]) == ["path", "truth", "answer", "probability", *CLASS_NAMES]
    (row,) = [row for row in rows if row["path"].endswith("a rose.jpg")]
    assert (row["truth"], row["answer"], row["probability"]) == ("tulips", "roses", row["roses"])
    assert (copies / "tulips" / "roses" / "a rose.jpg").read_bytes() == Path(row["path"]).read_bytes()
    out = capsys.readouterr().out
    assert f"{len(rows)} mistakes are listed in {table}." in out
    assert f"{len(rows)} mistakes are copied to {copies}." in out


def test_the_rule_of_confident_is_measured_on_other_images(folder: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "others" / "deep").mkdir(parents=True)
    for value in (0, 128, 255):
        Image.new("RGB", (32, 32), (value, value, 255)).save(tmp_path / "others" / "deep" / f"{value}.png")
    arguments = ["evaluate", str(folder), "--none-of-these", str(tmp_path / "others")]
    assert main([*arguments, "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)["none_of_these"]
    assert main(["predict", str(tmp_path / "others"), "--format", "json"]) == 0
    answers = json.loads(capsys.readouterr().out)
    assert measured["num_images"] == len(answers) == 3
    assert measured["num_not_confident"] == [answer["confident"] for answer in answers].count(False)
    assert main(["predict", str(folder), "--format", "json"]) == 0
    kept = [answer["confident"] for answer in json.loads(capsys.readouterr().out)].count(True)
    assert measured["kept"] == {"num_photographs": 40, "num_confident": kept, "share": kept / 40}
    (tmp_path / "others" / "broken.jpg").write_text("no image")
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert f"not confident, {measured['num_not_confident']} of 3 images" in captured.out
    assert "broken.jpg" in captured.err


@pytest.fixture
def wishes(monkeypatch: pytest.MonkeyPatch) -> list[EngineWish]:
    """Wishes that reach the engine."""
    seen: list[EngineWish] = []

    def load(version: VerifiedVersion, wish: EngineWish) -> Engine:
        seen.append(wish)
        return load_engine(version, EngineWish())

    monkeypatch.setattr("service.engines.open_version.load_engine", load)
    return seen


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_all_settings_of_the_engine_reach_it(verb: str, folder: Path, wishes: list[EngineWish]) -> None:
    flags = "--engine onnxruntime --device cpu --precision int8 --engine-threads 3 --gpu-memory-limit-mb 700"
    assert main([verb, str(folder), *flags.split()]) == 0
    assert wishes == [EngineWish("onnxruntime", "cpu", "int8", threads=3, gpu_memory_limit_mb=700)]


@pytest.mark.parametrize("verb", ["evaluate", "predict"])
def test_as_many_threads_decode_as_are_asked_for(verb: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[str] = set()

    def decode(data: bytes, limits: ImageLimits) -> Decoded:
        threads.add(threading.current_thread().name)
        return decode_image(data, limits)

    monkeypatch.setattr("service.evaluation.score.decode_image", decode)
    assert main([verb, str(folder), "--decode-threads", "1"]) == 0
    assert len(threads) == 1


def test_check_measures_in_float32_unless_told_otherwise(folder: Path, wishes: list[EngineWish]) -> None:
    for flags in ([], ["--precision", "int8"]):
        main(["evaluate", str(folder), "--part", "test", "--check", *flags])
    main(["evaluate", str(folder)])
    assert [wish.precision for wish in wishes] == ["float32", "int8", "auto"]


@pytest.mark.parametrize("flag", ["--max-image-pixels", "--max-image-bytes"])
def test_the_limits_of_an_image_hold(flag: str, folder: Path, capsys: Capture) -> None:
    assert main(["evaluate", str(folder), flag, "1024"]) == 2
    assert "could be scored" in capsys.readouterr().err


def test_an_unreadable_photograph_is_named_with_exit_code_1(folder: Path, capsys: Capture) -> None:
    (folder / "roses" / "203.jpg").write_text("no image")
    assert main(["evaluate", str(folder), "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["unscored"][0]["file"] == str(folder / "roses" / "203.jpg")
    assert "roses/203.jpg" in captured.err


def test_a_version_that_was_changed_is_not_loaded(store: Path, folder: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(store, tmp_path / "store")
    (tmp_path / "store" / "flowers" / "1" / "saved_model.pb").write_bytes(b"")
    assert main(["evaluate", str(folder), "--model-store", str(tmp_path / "store")]) == 1
    assert "saved_model.pb was changed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["nowhere"], 2, "nowhere"),
        (["{folder}", "--part", "all", "--check"], 2, "not for all. Name one with --part"),
        (["{folder}", "--part", "holdout"], 2, "--part"),
        (["{folder}", "--version", "9"], 1, "no version 9"),
        (["{folder}", "--version", "nine"], 2, "--version"),
        (["{folder}", "--model", "birds"], 1, "Model birds is not in the store"),
        ([], 2, "FOLDER"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    folder: Path, arguments: list[str], exit_code: int, said: str, capsys: Capture
) -> None:
    assert main(["evaluate", *(argument.format(folder=folder) for argument in arguments)]) == exit_code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1
