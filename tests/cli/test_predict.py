import asyncio
import csv
import io
import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import numpy as np
import pytest
import uvicorn
from conftest import REPOSITORY
from PIL import Image, ImageFile
from support.drawing import CLASS_NAMES, draw_photograph, encode
from support.heic import HEIC, needs_library
from support.predictions import prediction
from support.scripted_server import scripted_server

from service.api.app import create_app
from service.cli.main import main
from service.settings import ServeSettings
from service.store.verify import VerifiedVersion, verify_version

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A drawn photograph of each class below `photographs/`, the first two in a folder of their own."""
    folder = tmp_path / "photographs"
    (folder / "more").mkdir(parents=True)
    for index, label in enumerate(CLASS_NAMES):
        path = folder / ("more" if index < 2 else "") / f"{label}.jpg"
        path.write_bytes(encode(draw_photograph(index, seed=77)))
    return folder


@pytest.fixture(autouse=True)
def store(tiny_version: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWERS_MODEL_STORE", str(tiny_version))
    return tiny_version


@pytest.fixture
def url(store: Path) -> Iterator[str]:
    """The real service on the same store, over a real socket, ready."""
    app = create_app(ServeSettings(model_store=store, reload_interval_s=3600, access_log=False))
    server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None))
    loop = asyncio.new_event_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: loop.run_until_complete(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        httpx.get(f"{address}/livez", timeout=60)  # waits until it is answered, as the socket listens already
        asyncio.run_coroutine_threadsafe(app.state.service.live_model.look(), loop).result(timeout=60)
        yield address
        server.should_exit = True
        thread.join()
    loop.close()


def predict_json(*arguments: str | Path, capsys: Capture) -> tuple[int, list[dict[str, Any]]]:
    exit_code = main(["predict", *map(str, arguments), "--format", "json"])
    return exit_code, json.loads(capsys.readouterr().out)


def by_label(row: dict[str, Any]) -> dict[str, float]:
    return {score["label"]: score["probability"] for score in row["predictions"]}


def test_a_folder_gives_a_row_per_photograph_below_it(photographs: Path, capsys: Capture) -> None:
    exit_code, rows = predict_json(photographs, capsys=capsys)
    assert exit_code == 0
    names = ["more/daisy.jpg", "more/dandelion.jpg", "roses.jpg", "sunflowers.jpg", "tulips.jpg"]
    assert [row["file"] for row in rows] == [str(photographs / name) for name in names]
    for row in rows:
        probabilities = [score["probability"] for score in row["predictions"]]
        assert {score["label"] for score in row["predictions"]} == set(CLASS_NAMES)
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
        assert (row["label"], row["probability"]) == (row["predictions"][0]["label"], probabilities[0])
        assert row["error"] is None
    assert len({row["label"] for row in rows}) > 1


def test_the_service_and_the_local_model_say_the_same(photographs: Path, url: str, capsys: Capture) -> None:
    (photographs / "broken.jpg").write_text("no image")
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    (photographs / "noise.png").write_bytes(encode(Image.fromarray(noise), "PNG"))
    local_code, local = predict_json(photographs, capsys=capsys)
    remote_code, remote = predict_json(photographs, "--url", url, capsys=capsys)
    assert local_code == remote_code == 1
    for ours, theirs in zip(local, remote, strict=True):
        assert {**theirs, "probability": None, "predictions": None} == {
            **ours, "probability": None, "predictions": None
        }  # fmt: skip
        assert by_label(theirs) == pytest.approx(by_label(ours), abs=1e-5)
    reasons = {Path(row["file"]).name: (row["confident"], row["reason"]) for row in local}
    assert reasons["noise.png"] == (False, "unlike-training")
    assert reasons["sunflowers.jpg"] == (True, None)
    assert reasons["broken.jpg"] == (None, None)


def test_sample_scores_one_photograph_of_each_class(capsys: Capture) -> None:
    exit_code, rows = predict_json("--sample", "--model-store", REPOSITORY / "model_store", capsys=capsys)
    assert exit_code == 0
    assert [(Path(row["file"]).stem, row["confident"]) for row in rows] == [(label, True) for label in CLASS_NAMES]
    assert [row["label"] for row in rows] == list(CLASS_NAMES)


def test_a_bad_file_spoils_only_its_own_row(photographs: Path, capsys: Capture) -> None:
    (photographs / "roses.jpg").write_text("no image")
    exit_code, rows = predict_json(photographs, photographs / "missing.jpg", capsys=capsys)
    assert exit_code == 1
    assert [row["error"] is None for row in rows] == [True, True, False, True, True, False]
    assert rows[2]["predictions"] == []
    assert rows[2]["label"] is None
    assert "No such file" in rows[5]["error"]


def test_files_without_image_suffixes_must_be_named(photographs: Path, capsys: Capture) -> None:
    (photographs / "LICENSE.txt").write_text("words")
    (photographs / ".hidden.jpg").write_text("hidden")
    shutil.copy(photographs / "roses.jpg", photographs / "roses")
    assert len(predict_json(photographs, capsys=capsys)[1]) == 5
    assert main(["predict", str(photographs)]) == 0
    assert "are not named like images" in capsys.readouterr().err
    exit_code, rows = predict_json(photographs / "roses", photographs / "roses.jpg", capsys=capsys)
    assert exit_code == 0
    assert by_label(rows[0]) == pytest.approx(by_label(rows[1]), abs=1e-5), "its content decides"


def test_suffixes_of_cameras_and_telephones_are_images(photographs: Path, capsys: Capture) -> None:
    for name in ("ROSES.JPG", "roses.mpo"):
        shutil.copy(photographs / "roses.jpg", photographs / name)
    assert len(predict_json(photographs, capsys=capsys)[1]) == 7


def test_top_k_takes_the_best(photographs: Path, url: str, capsys: Capture) -> None:
    file = photographs / "roses.jpg"
    everything = predict_json(file, capsys=capsys)[1][0]["predictions"]
    for where in ((), ("--url", url)):
        best = predict_json(file, "--top-k", "2", *where, capsys=capsys)[1][0]["predictions"]
        assert [score["label"] for score in best] == [score["label"] for score in everything[:2]]


def test_headers_go_with_each_request_to_a_service(photographs: Path, capsys: Capture) -> None:
    async def script(_: int) -> bytes:
        return prediction()

    with scripted_server(script) as server:
        flags = ("--url", f"http://127.0.0.1:{server.port}", "--header", "X-API-Key: garden", "--header", "X-More:1")
        exit_code, rows = predict_json(*flags, photographs, capsys=capsys)
    assert (exit_code, len(rows)) == (0, 5)
    assert len(server.heads) == 5
    assert all("x-api-key: garden\r\n" in head and "x-more: 1\r\n" in head for head in server.heads)


def test_csv_lines_have_the_same_columns(photographs: Path, capsys: Capture) -> None:
    (photographs / "broken, really.jpg").write_text("no image")
    assert main(["predict", str(photographs), "--format", "csv", "--top-k", "2"]) == 1
    captured = capsys.readouterr()
    header, *rows = csv.reader(io.StringIO(captured.out))
    assert header == ["file", "error", "confident", "reason", "label_1", "probability_1", "label_2", "probability_2"]
    assert {len(row) for row in rows} == {8}
    by_file = {Path(row[0]).name: row for row in rows}
    assert by_file["broken, really.jpg"][1] != ""
    assert by_file["roses.jpg"][1] == ""
    assert by_file["roses.jpg"][2] in ("true", "false")
    assert (by_file["roses.jpg"][3] == "") == (by_file["roses.jpg"][2] == "true")
    assert "\r" not in captured.out
    assert float(by_file["roses.jpg"][5]) >= float(by_file["roses.jpg"][7])


def test_csv_without_any_scores_has_their_columns(photographs: Path, capsys: Capture) -> None:
    (photographs / "roses.jpg").write_text("no image")
    assert main(["predict", str(photographs / "roses.jpg"), "--format", "csv"]) == 1
    assert capsys.readouterr().out.splitlines()[0] == "file,error,confident,reason,label_1,probability_1"


def test_the_table_shows_texts_as_they_are(photographs: Path, capsys: Capture) -> None:
    (photographs / "[red]broken.jpg").write_text("no image")
    os.rename(photographs / "roses.jpg", os.fsencode(photographs) + b"/not-utf8-\xff.jpg")  # noqa: PTH104
    assert main(["predict", str(photographs)]) == 1
    out = capsys.readouterr().out
    assert "[red]broken.jpg" in out
    assert "not-utf8-\ufffd.jpg" in out
    assert "error: " in out
    assert "%" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no image to score"),
        (["{empty}"], "no image to score"),
        (["{file}", "--sample"], "Leave out the files, or --sample"),
        (["{file}", "--top-k", "0"], "--top-k is 0. This model has 5 classes"),
        (["{file}", "--top-k", "6"], "--top-k is 6"),
        (["{file}", "--format", "xml"], "--format"),
        (["{file}", "--header", "X-API-Key: garden"], "Give --header with --url only"),
        (
            ["{file}", "--url", "http://localhost:1", "--header", "garden"],
            '--header is malformed. Give it as "Name: value"',
        ),
        (["{file}", "--url", "http://localhost:1", "--header", "X-Rose: rosé"], "in printable ASCII"),
    ],
)
def test_asking_wrongly_is_one_sentence(
    photographs: Path, tmp_path: Path, arguments: list[str], said: str, capsys: Capture
) -> None:
    (tmp_path / "empty").mkdir()
    words = {"empty": tmp_path / "empty", "file": photographs / "roses.jpg"}
    assert main(["predict", *(argument.format(**words) for argument in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("file", ["assets.extra/cpu_model.onnx", "assets.extra/metadata.json", "saved_model.pb"])
def test_files_replaced_after_verification_are_not_used(
    photographs: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture, file: str
) -> None:
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    replaced = copy / "flowers" / "1" / file

    def verify_then_replace(folder: Path) -> VerifiedVersion:
        verified = verify_version(folder)
        replaced.write_bytes(replaced.read_bytes().replace(b"daisy", b"weeds") + b" ")
        return verified

    monkeypatch.setattr("service.engines.open_version.verify_version", verify_then_replace)
    engine = "savedmodel" if file == "saved_model.pb" else "onnxruntime"
    command = ["predict", str(photographs), "--format", "json", "--model-store", str(copy)]
    exit_code = main([*command, "--engine", engine, "--precision", "auto" if engine == "savedmodel" else "float32"])
    result = capsys.readouterr()
    if file.endswith(".json"):  # it is not read again
        assert (exit_code, "weeds" in result.out) == (0, False)
    else:
        assert exit_code == 1
        assert f"{file} of version 1 was changed while the version was loaded" in result.err


def test_want_of_memory_is_said_of_no_photograph(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", Mock(side_effect=MemoryError))
    assert main(["predict", str(photographs)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("not at fault. Send it again later, or a smaller copy.\n")
    assert ".jpg: There is not enough memory" in captured.err


def test_the_limit_of_pixels_holds_for_every_image(photographs: Path, capsys: Capture) -> None:
    exit_code, rows = predict_json(photographs, "--max-image-pixels", "1024", capsys=capsys)
    assert exit_code == 1
    assert all("pixels" in row["error"] for row in rows)


def test_the_table_marks_answers_that_are_not_confident(tmp_path: Path, capsys: Capture) -> None:
    answers = {
        b"a": prediction(),
        b"b": prediction(confident=False, reason="unlike-training"),
        b"c": prediction(confident=False),  # an older service gives no reason
    }
    for name in answers:
        (tmp_path / f"{name.decode()}.jpg").write_bytes(name)

    async def script(number: int) -> bytes:
        return answers[server.bodies[number].split(b"\r\n\r\n")[1][:1]]

    with scripted_server(script) as server:
        assert main(["predict", str(tmp_path), "--url", f"http://127.0.0.1:{server.port}"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if ".jpg" in line]
    wanted = ("90.0% ", "90.0%, unlike-training", "90.0%, not confident")
    assert [mark in line for mark, line in zip(wanted, lines, strict=True)] == [True] * 3


def test_the_samples_fit_a_terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["predict", "--sample", "--top-k", "1", "--model-store", str(REPOSITORY / "model_store")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "│ daisy.jpg " in lines[3]
    assert "then" not in lines[1]
    assert max(map(len, lines)) < 80


@needs_library
def test_heic_photographs_of_a_folder_are_scored(photographs: Path, capsys: Capture) -> None:
    (photographs / "phone.HEIC").write_bytes(HEIC["rgb"])
    exit_code, rows = predict_json(photographs, capsys=capsys)
    assert (exit_code, len(rows)) == (0, 6)
    assert [row["error"] for row in rows if row["file"].endswith("phone.HEIC")] == [None]


def test_photographs_are_sorted_by_their_labels(photographs: Path, tmp_path: Path, capsys: Capture) -> None:
    (photographs / "broken.jpg").write_bytes(b"no image")
    target = tmp_path / "sorted"
    exit_code = main(["predict", str(photographs), "--sort-into", str(target), "--format", "json"])
    out, err = capsys.readouterr()
    rows = json.loads(out)
    assert exit_code == 1
    assert f"5 of 6 photographs are copied to {target}, by their labels." in err
    copies = sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
    assert copies == sorted(f"{row['label']}/{Path(row['file']).name}" for row in rows if row["label"])
    assert copies == sorted(f"{label}/{label}.jpg" for label in CLASS_NAMES)


def test_a_folder_that_cannot_take_copies_is_refused_first(photographs: Path, capsys: Capture) -> None:
    for target in (photographs, photographs / "sorted"):
        assert main(["predict", str(photographs), "--sort-into", str(target)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"--sort-into is {target}, among the originals." in err
    assert not (photographs / "sorted").exists()
