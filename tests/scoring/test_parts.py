"""Parts: their photographs, and their Parquet files."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from service.errors import InvalidImage
from service.evaluation.score import ScoredImage
from service.scoring.parts import Part, PartResult, find_finished, name_part, split_parts, write_part

PART = Part(3, ("/a.jpg", "s3://bucket//b.jpg", os.fsdecode(b"/\xff.jpg")))
SCORED = [
    ScoredImage(Path(), np.array([0.25, 0.75], np.float32), None),
    ScoredImage(Path(), None, InvalidImage("It is broken.")),
    ScoredImage(Path(), np.array([0.1, 0.9], np.float32)[::-1], None),
]


def test_parts_hold_every_photograph_once_in_order() -> None:
    paths = [f"/{number}.jpg" for number in range(10)]
    parts = split_parts(paths, 4)
    assert [len(part.paths) for part in parts] == [4, 4, 2]
    assert [path for part in parts for path in part.paths] == paths
    assert [name_part(part.number) for part in parts] == [f"part-00000{number}.parquet" for number in range(3)]


@pytest.mark.ray
def test_a_file_has_a_row_per_photograph(tmp_path: Path) -> None:
    from pyarrow.parquet import read_table

    assert write_part(str(tmp_path), PART, SCORED, ["daisy", "roses"], 8) == PartResult(3, 3, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["part-000003.parquet"]
    table = read_table(tmp_path)
    assert table.column_names == ["path", "label", "probabilities", "version", "error"]
    assert json.loads(table.schema.metadata[b"class_names"]) == ["daisy", "roses"]
    assert table.column("path").to_pylist() == ["/a.jpg", "s3://bucket//b.jpg", "/\ufffd.jpg"]
    assert table.column("label").to_pylist() == ["roses", None, "daisy"]
    assert table.column("error").to_pylist() == [None, "It is broken.", None]
    assert table.column("version").to_pylist() == [8, 8, 8]
    rows = table.column("probabilities").to_pylist()
    assert rows[1] is None
    np.testing.assert_array_equal(np.array(rows[2], np.float32), SCORED[2].probabilities)


@pytest.mark.ray
def test_only_whole_files_count_as_finished(tmp_path: Path) -> None:
    parts = [Part(number, PART.paths) for number in range(5)]
    for part in parts[:3]:
        write_part(str(tmp_path), part, SCORED, ["daisy", "roses"], 8)
    (tmp_path / name_part(1)).write_bytes((tmp_path / name_part(1)).read_bytes()[:-20])
    (tmp_path / name_part(3)).write_bytes(b"")
    write_part(str(tmp_path), Part(4, PART.paths[:2]), SCORED[:2], ["daisy", "roses"], 8)
    finished = find_finished(str(tmp_path), parts)
    assert finished == {0: PartResult(0, 3, 1), 2: PartResult(2, 3, 1)}
