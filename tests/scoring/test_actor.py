"""The actor, without its cluster: a part in, a file out."""

import os
import shutil
from pathlib import Path

import pytest
from conftest import REPOSITORY

from service.api.page import SAMPLES
from service.engines.wish import EngineWish
from service.files import digest_file
from service.imaging.limits import ImageLimits
from service.scoring.actor import Job, PartScorer, digest_version, pack_part
from service.scoring.parts import Part, name_part
from service.store.layout import SHA256SUMS_FILE
from service.store.verify import verify_version
from service.store.versions import resolve_version

STORED = resolve_version(REPOSITORY / "model_store", "flowers")
VERSION = STORED.folder


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(
        REPOSITORY / "model_store", "flowers", STORED.version, digest_file(VERSION / SHA256SUMS_FILE),
        EngineWish(device="cpu", threads=1), ImageLimits(), 1, str(tmp_path / "scores"),
    )  # fmt: skip


def test_a_version_has_the_digest_of_its_sums() -> None:
    assert digest_version(verify_version(VERSION)) == digest_file(VERSION / SHA256SUMS_FILE)


def test_names_that_are_no_utf8_travel_to_the_actor() -> None:
    names = (os.fsdecode(b"/a/\xff.jpg"), "s3://bucket//b.jpg")
    assert pack_part(Part(2, names)) == {"number": 2, "paths": b"/a/\xff.jpg\0s3://bucket//b.jpg"}


@pytest.mark.ray
def test_a_part_becomes_a_file_once(job: Job, tmp_path: Path) -> None:
    from pyarrow.parquet import read_table

    odd = tmp_path / os.fsdecode(b"odd-\xff.jpg")
    shutil.copy(SAMPLES / "sunflowers.jpg", odd)
    (tmp_path / "broken.jpg").write_text("no image")
    urls = (f"file://{tmp_path}/broken.jpg", str(odd), f"file://{tmp_path}/missing.jpg", str(tmp_path / "missing.jpg"))
    row, scorer = pack_part(Part(7, urls)), PartScorer(job)
    answer = {"number": 7, "num_photographs": 4, "num_errors": 3, "failure": ""}
    assert scorer(row) == answer
    file = Path(job.output) / name_part(7)
    rows = read_table(file).to_pylist()
    assert [row["path"] for row in rows] == [urls[0], f"{tmp_path}/odd-\ufffd.jpg", *urls[2:]]
    assert [row["label"] for row in rows] == [None, "sunflowers", None, None]
    written = file.stat()
    assert scorer(row) == answer
    assert file.stat() == written, "a repeated task finds the file"


def test_a_node_with_other_files_is_refused(job: Job, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(VERSION, store / "flowers" / VERSION.name)
    card = store / "flowers" / VERSION.name / "assets.extra" / "extra.txt"
    card.write_text("another version")
    sums = store / "flowers" / VERSION.name / SHA256SUMS_FILE
    sums.write_text(sums.read_text() + f"{digest_file(card)}  assets.extra/extra.txt\n")
    scorer = PartScorer(Job(**{**vars(job), "store": store}))
    failure = scorer(pack_part(Part(0, ("/a.jpg",))))["failure"]
    assert "has other files than the one that the job began with" in failure
