"""A real cluster of three nodes on one machine: every photograph has one row, whatever dies."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import REPOSITORY
from support.drawing import draw_folder
from support.ray_cluster import Nodes, ray_cluster, scoring, wait_for_parts

from service.cli.main import main
from service.store.versions import resolve_version

pytestmark = pytest.mark.ray

COPIES, ROWS_PER_FILE = 80, 16


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with ray_cluster() as nodes:
        yield nodes


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,600 names of twenty drawn photographs, and three files that cannot be scored."""
    folder = tmp_path_factory.mktemp("ray") / "photographs"
    for drawn in sorted(draw_folder(folder, photographs_per_class=4, size=(1280, 960)).rglob("*.jpg")):
        for copy in range(1, COPIES):
            os.link(drawn, drawn.with_name(f"{drawn.stem}-{copy:03d}.jpg"))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("no image")
    (folder / "cut.jpg").write_bytes((folder / "roses" / "000.jpg").read_bytes()[:5000])
    return folder


def read_rows(output: Path) -> list[dict[str, Any]]:
    from pyarrow.parquet import read_table

    rows: list[dict[str, Any]] = read_table(output).to_pylist()
    return rows


def assert_whole(output: Path, photographs: Path) -> None:
    """Each photograph has one row, and only the three bad ones have an error."""
    rows = read_rows(output)
    expected = [str(path) for path in photographs.rglob("*.jpg")]
    assert len(expected) == 20 * COPIES + 3
    assert Counter(row["path"] for row in rows) == Counter(expected)
    assert {Path(row["path"]).name for row in rows if row["error"]} == {"empty.jpg", "text.jpg", "cut.jpg"}
    assert all((row["label"] is None) == (row["error"] is not None) for row in rows)


@pytest.fixture
def flags(nodes: Nodes, photographs: Path) -> tuple[str, ...]:
    return (str(photographs), "--ray-address", nodes.address, "--rows-per-file", str(ROWS_PER_FILE))


def test_no_row_is_lost_with_a_node(nodes: Nodes, photographs: Path, flags: tuple[str, ...], tmp_path: Path) -> None:
    output = tmp_path / "scores"
    with scoring(output, *flags) as process:
        wait_for_parts(output, 5, process)
        assert nodes.kill_one() >= 2, "the node and its actor"
        num_before = len(list(output.glob("part-*.parquet")))
        out, err = process.communicate()
    assert process.returncode == 1, err
    document = json.loads(out)
    assert num_before < document["num_files"]
    assert (document["num_photographs"], document["num_errors"]) == (20 * COPIES + 3, 3)
    assert_whole(output, photographs)
    nodes.add()


def test_a_killed_command_resumes(nodes: Nodes, photographs: Path, flags: tuple[str, ...], tmp_path: Path) -> None:
    output = tmp_path / "scores"
    with scoring(output, *flags) as process:
        wait_for_parts(output, 5, process)
        process.kill()
        process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*.parquet")}
    with scoring(output, *flags) as process:
        out, err = process.communicate()
    assert process.returncode == 1, err
    document = json.loads(out)
    assert 5 * ROWS_PER_FILE <= document["num_resumed"] < document["num_photographs"]
    after = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*.parquet")}
    assert before.items() <= after.items(), "what was finished is not scored again"
    assert_whole(output, photographs)
    with scoring(output, *flags, "--device", "cpu") as process:
        assert "another job (another --device)" in process.communicate()[1]
    assert process.returncode == 2


def test_probabilities_are_bit_for_bit_those_of_predict(
    nodes: Nodes, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output, folder = tmp_path / "scores", str(photographs / "roses")
    flags = ("--ray-address", nodes.address, "--rows-per-file", "64", "--precision", "float32")
    with scoring(output, folder, *flags) as process:
        assert process.wait() == 0, process.communicate()
    store = ("--model-store", str(REPOSITORY / "model_store"))
    assert main(["predict", folder, "--format", "json", "--precision", "float32", *store]) == 0
    answers = {row["file"]: row for row in json.loads(capsys.readouterr().out)}
    rows, served = read_rows(output), resolve_version(REPOSITORY / "model_store", "flowers").version
    class_names = ["daisy", "dandelion", "roses", "sunflowers", "tulips"]
    assert rows
    for row in rows:
        answer = answers.pop(row["path"])
        scores = {score["label"]: np.float32(score["probability"]) for score in answer["predictions"]}
        assert [scores[name] for name in class_names] == [np.float32(value) for value in row["probabilities"]]
        assert (row["label"], row["version"]) == (answer["label"], served)
    assert answers == {}


def test_a_failing_actor_ends_the_command_with_its_sentence(nodes: Nodes, photographs: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.zip").write_bytes(b"no archive")
    (tmp_path / "list.csv").write_text(f"path\nzip://a.jpg::file://{tmp_path}/broken.zip\n")
    with scoring(tmp_path / "scores", str(tmp_path / "list.csv"), "--ray-address", nodes.address) as process:
        out, err = process.communicate()
    assert (process.returncode, out) == (1, "")
    assert err.startswith("flowers: zip://a.jpg::file://")
    assert "broken.zip cannot be read" in err
    assert err.count("\n") == 1, err


def test_an_address_without_a_cluster_is_named(photographs: Path, tmp_path: Path) -> None:
    address = ("--ray-address", "127.0.0.1:1")
    with scoring(tmp_path / "scores", str(photographs), *address) as process:
        _, err = process.communicate()
    assert process.returncode == 1
    assert err.startswith("flowers: Ray at 127.0.0.1:1 does not answer")
