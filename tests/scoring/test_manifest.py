"""The manifest of a job: the same job resumes, another is refused."""

from pathlib import Path
from typing import Any

import pytest

from service.errors import UsageError
from service.scoring.manifest import MANIFEST_FILE, Manifest, open_manifest


def example(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "sources": ("/photos",),
        "source_digest": "a" * 64,
        "num_photographs": 3,
        "rows_per_file": 1024,
        "model": "flowers",
        "version": 8,
        "version_digest": "b" * 64,
        "class_names": ("daisy", "roses"),
        "device": "auto",
        "engine": "auto",
        "precision": "auto",
        "max_image_bytes": 1000,
        "max_image_pixels": 1000,
    }
    return Manifest(**{**fields, **changes})


def test_the_same_job_resumes_in_its_folder(tmp_path: Path) -> None:
    output = tmp_path / "scores"
    open_manifest(str(output), example())
    written = (output / MANIFEST_FILE).read_bytes()
    (output / "part-000000.parquet").write_bytes(b"")
    open_manifest(str(output), example(sources=("/photos/*",)))
    assert (output / MANIFEST_FILE).read_bytes() == written


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source_digest": "c" * 64}, "another job (other photographs)"),
        ({"version": 9, "version_digest": "c" * 64}, "begun with version 8 of flowers, and this is version 9"),
        ({"version_digest": "c" * 64}, "another job (another version)"),
        ({"model": "garden"}, "another model"),
        ({"rows_per_file": 32}, "another --rows-per-file"),
        ({"precision": "int8"}, "another --precision"),
        ({"max_image_bytes": 2000}, "another --max-image-bytes"),
    ],
)
def test_another_job_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    open_manifest(str(tmp_path), example())
    with pytest.raises(UsageError) as refusal:
        open_manifest(str(tmp_path), example(**changes))
    assert said in str(refusal.value)
    assert "Name another folder, or repeat the command that began it." in str(refusal.value)


def test_every_field_but_the_sources_distinguishes_jobs(tmp_path: Path) -> None:
    open_manifest(str(tmp_path), example())
    others = {"class_names": ("tulips",), "format": 1, "sources": ("/elsewhere",)}
    for field, value in example().model_dump().items():
        other = others.get(field, f"{value}9" if isinstance(value, str) else 9)
        if field in ("format", "sources"):
            open_manifest(str(tmp_path), example(**{field: other}))
            continue
        with pytest.raises(UsageError):
            open_manifest(str(tmp_path), example(**{field: other}))


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="which holds other files"):
        open_manifest(str(tmp_path), example())
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


def test_a_damaged_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).write_text("{")
    with pytest.raises(UsageError, match="is no manifest of this program"):
        open_manifest(str(tmp_path), example())
