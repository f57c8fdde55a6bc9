import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.versions import example_metadata, publish_example

from service.errors import ChangedVersion, InvalidVersion
from service.files import digest_file
from service.store.layout import CPU_MODEL_FILES, METADATA_FILE, SHA256SUMS_FILE, SPLIT_FILE
from service.store.verify import list_files, verify_version


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
    assert verify_version(version).metadata == example_metadata()


def test_one_changed_bit_names_its_file(version: Path) -> None:
    for file in (SPLIT_FILE, *CPU_MODEL_FILES.values()):
        (version / file).write_bytes(file.encode())
    sign_again(version)
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
def test_a_damaged_version_is_refused_without_its_path(
    version: Path, damage: Callable[[Path], None], named: str
) -> None:
    damage(version)
    with pytest.raises(InvalidVersion) as raised:
        verify_version(version)
    assert named in str(raised.value)
    assert "version 1" in str(raised.value).lower()
    assert str(version.parent) not in str(raised.value)


def test_a_newer_metadata_format_is_refused_with_the_remedy(version: Path) -> None:
    metadata = json.loads((version / METADATA_FILE).read_text())
    (version / METADATA_FILE).write_text(json.dumps({"format": 3, "class_names": "of another shape"}))
    sign_again(version)
    with pytest.raises(InvalidVersion, match=r"format 3\. This program reads up to 2\. Update"):
        verify_version(version)
    (version / METADATA_FILE).write_text(json.dumps({**metadata, "of a later program": 1}))
    sign_again(version)
    verify_version(version)


def test_bytes_that_are_read_are_the_verified_ones(version: Path) -> None:
    verified = verify_version(version)
    assert verified.read("saved_model.pb") == b"no network"
    with pytest.raises(InvalidVersion, match=r"has no assets\.extra/cpu_model\.onnx"):
        verified.read("assets.extra/cpu_model.onnx")


def replace_by_other_bytes(path: Path) -> None:
    path.write_bytes(b"an attack!")  # as long


def replace_by_more_bytes(path: Path) -> None:
    path.write_bytes(b"an attack, which is longer")


def replace_by_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_by_a_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


@pytest.mark.parametrize(
    "replace", [replace_by_other_bytes, replace_by_more_bytes, replace_by_a_pipe, replace_by_a_link, Path.unlink]
)
def test_a_file_replaced_after_verification_is_found(version: Path, replace: Callable[[Path], None]) -> None:
    verified = verify_version(version)
    verified.check_unchanged()
    replace(version / "saved_model.pb")
    with pytest.raises(ChangedVersion, match=r"saved_model\.pb of version 1 was changed"):
        verified.read("saved_model.pb")
    with pytest.raises(ChangedVersion, match="of version 1 was changed"):
        verified.check_unchanged()


def swap_a_file(version: Path) -> None:
    (version / "saved_model.pb").rename(version.parent / "aside")
    (version / "saved_model.pb").write_bytes(b"an attack!")
    (version.parent / "aside").replace(version / "saved_model.pb")


def swap_a_folder(version: Path) -> None:
    (version / "variables").rename(version.parent / "aside")
    (version.parent / "aside").rename(version / "variables")


def swap_the_version(version: Path) -> None:
    version.rename(version.parent / "aside")
    (version.parent / "aside").rename(version)


def add_a_folder(version: Path) -> None:
    (version / "variables" / "empty").mkdir()


@pytest.mark.parametrize("change", [swap_a_file, swap_a_folder, swap_the_version, add_a_folder, add_a_file])
def test_what_was_replaced_and_put_back_is_found(version: Path, change: Callable[[Path], None]) -> None:
    verified = verify_version(version)
    change(version)
    with pytest.raises(ChangedVersion, match="was changed while the version was loaded"):
        verified.check_unchanged()


def test_metadata_replaced_while_they_are_verified_are_not_taken(
    version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are parsed from the bytes whose digest was compared."""

    def replace_then_digest(path: Path, max_bytes: int, **options: bool) -> str:
        (version / METADATA_FILE).write_text(example_metadata(temperature=9.0).model_dump_json())
        return digest_file(path, max_bytes, **options)

    monkeypatch.setattr("service.store.verify.digest_file", replace_then_digest)
    verified = verify_version(version)
    assert verified.metadata == example_metadata()
    with pytest.raises(ChangedVersion):
        verified.check_unchanged()


def test_a_pipe_in_a_file_place_blocks_nothing(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(list_files(version))
    replace_by_a_pipe(version / "saved_model.pb")
    monkeypatch.setattr("service.store.verify.list_files", lambda _: iter(names))
    with pytest.raises(InvalidVersion, match=r"saved_model\.pb cannot be read \(it is no regular file"):
        verify_version(version)


def test_a_huge_list_or_huge_metadata_are_refused(version: Path) -> None:
    for file in (SHA256SUMS_FILE, METADATA_FILE):
        original = (version / file).read_bytes()
        os.truncate(version / file, 2**31)
        with pytest.raises(InvalidVersion, match="has more than 1,048,576 bytes"):
            verify_version(version)
        (version / file).write_bytes(original)


def test_a_version_of_too_many_bytes_is_not_read(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Terabytes of zeros take no room on the disk, and hours to read."""
    monkeypatch.setattr("service.store.verify.MAX_VERSION_BYTES", 2**20)
    os.truncate(version / "saved_model.pb", 2**20 + 1)
    with pytest.raises(InvalidVersion, match="Its files have more than 1,048,576 bytes"):
        verify_version(version)


def test_a_file_that_grows_is_not_read_on(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = list(list_files(version))

    def grow_then_list(_: Path) -> Iterator[str]:
        os.truncate(version / "saved_model.pb", 2**20)
        return iter(names)

    monkeypatch.setattr("service.store.verify.list_files", grow_then_list)
    with pytest.raises(InvalidVersion, match=r"saved_model\.pb cannot be read \(it has more than"):
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


def test_the_list_may_be_that_of_binary_files(version: Path) -> None:
    """So does `sha256sum --binary` write it."""
    sums = version / SHA256SUMS_FILE
    sums.write_text(sums.read_text().replace("  ", " *"))
    assert verify_version(version).metadata == example_metadata()


def test_a_folder_that_cannot_be_listed_is_refused(version: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unlisted file could lie in it."""
    (version / "more").mkdir()
    scandir = os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "more":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InvalidVersion, match=r"more cannot be read \(Permission denied\)"):
        verify_version(version)
