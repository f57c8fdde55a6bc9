import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from versions import example_metadata, publish_example

from service.errors import InvalidVersion
from service.store.layout import METADATA_FILE, SHA256SUMS_FILE
from service.store.verify import verify_version


@pytest.fixture
def version(tmp_path: Path) -> Path:
    return tmp_path / "flowers" / str(publish_example(tmp_path))


def sign_again(version: Path) -> None:
    """New SHA256SUMS over whatever lies in the version now, made without the code under test."""
    files = sorted(path for path in version.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(version).as_posix()}\n" for path in files
    ]
    (version / SHA256SUMS_FILE).write_text("".join(lines))


def test_a_published_version_is_verified_and_its_metadata_returned(version: Path) -> None:
    assert verify_version(version) == example_metadata()


def test_one_changed_bit_in_any_file_is_found_and_the_file_named(version: Path) -> None:
    for path in sorted(version.rglob("*")):
        if path.is_file() and path.name != "SHA256SUMS":
            original = path.read_bytes()
            path.write_bytes(bytes([original[0] ^ 1]) + original[1:])
            with pytest.raises(InvalidVersion, match=path.relative_to(version).as_posix()):
                verify_version(version)
            path.write_bytes(original)
    verify_version(version)


def remove_variables(version: Path) -> None:
    (version / "variables" / "variables.index").unlink()


def add_a_file(version: Path) -> None:
    (version / "variables" / "more").write_bytes(b"")


def add_an_empty_link_out(version: Path) -> None:
    (version / "variables" / "out").symlink_to("/etc/hostname")


def replace_a_folder_by_a_link_to_the_same_files(version: Path) -> None:
    shutil.copytree(version / "variables", version.parent / "copy")
    shutil.rmtree(version / "variables")
    (version / "variables").symlink_to(version.parent / "copy")


def add_a_pipe(version: Path) -> None:
    os.mkfifo(version / "pipe")


def remove_sums(version: Path) -> None:
    (version / SHA256SUMS_FILE).unlink()


def empty_sums(version: Path) -> None:
    (version / SHA256SUMS_FILE).write_bytes(b"")


def garble_sums(version: Path) -> None:
    (version / SHA256SUMS_FILE).write_bytes(b"\xff\x00 not a list")


def list_a_file_outside(version: Path) -> None:
    (version.parent / "outside").write_bytes(b"")
    with (version / SHA256SUMS_FILE).open("a") as sums:
        sums.write(f"{hashlib.sha256(b'').hexdigest()}  ../outside\n")


def list_a_file_twice(version: Path) -> None:
    sums = version / SHA256SUMS_FILE
    sums.write_text(sums.read_text() * 2)


def remove_the_network_and_sign_again(version: Path) -> None:
    (version / "saved_model.pb").unlink()
    sign_again(version)


def break_metadata_and_sign_again(version: Path) -> None:
    (version / METADATA_FILE).write_text("{")
    sign_again(version)


def remove_everything(version: Path) -> None:
    shutil.rmtree(version)


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (remove_variables, "variables/variables.index is missing"),
        (add_a_file, "variables/more is not in"),
        (add_an_empty_link_out, "variables/out' is a link"),
        (replace_a_folder_by_a_link_to_the_same_files, "variables' is a link"),
        (add_a_pipe, "pipe' is a link or a special file"),
        (remove_sums, "SHA256SUMS is missing"),
        (empty_sums, "SHA256SUMS cannot be read at line 1"),
        (garble_sums, "SHA256SUMS cannot be read at line 1"),
        (list_a_file_outside, "../outside is missing"),
        (list_a_file_twice, "SHA256SUMS cannot be read at line 4"),
        (remove_the_network_and_sign_again, "saved_model.pb is missing"),
        (break_metadata_and_sign_again, "metadata.json of version 1 is wrong"),
        (remove_everything, "cannot be read"),
    ],
)
def test_a_damaged_version_is_refused_with_the_file_and_no_path(
    version: Path, damage: Callable[[Path], None], named: str
) -> None:
    damage(version)
    with pytest.raises(InvalidVersion) as raised:
        verify_version(version)
    assert named in str(raised.value)
    assert "version 1" in str(raised.value)
    assert str(version.parent) not in str(raised.value)


def test_a_newer_metadata_format_is_refused_with_the_remedy(version: Path) -> None:
    metadata = json.loads((version / METADATA_FILE).read_text())
    (version / METADATA_FILE).write_text(json.dumps({"format": 2, "class_names": "of another shape"}))
    sign_again(version)
    with pytest.raises(InvalidVersion, match=r"format 2; this program reads up to 1: update"):
        verify_version(version)
    (version / METADATA_FILE).write_text(json.dumps({**metadata, "of a later program": 1}))
    sign_again(version)
    verify_version(version)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this machine")
def test_sha256sum_itself_reads_the_list(version: Path) -> None:
    check = subprocess.run(
        ["sha256sum", "--check", "--strict", SHA256SUMS_FILE],
        cwd=version,
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr
    assert len(check.stdout.splitlines()) == 3
