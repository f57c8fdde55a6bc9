"""`flowers models pack` and `pull`, as a person uses them on two machines."""

import json
import os
import shlex
import shutil
import signal
import tempfile
from pathlib import Path
from typing import IO

import pytest
from support.versions import publish_example

from service.cli.main import main
from service.files import digest_file

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def packed(tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> str:
    """The command that `pack` prints, in the folder of the archive. The environment names another, empty store."""
    monkeypatch.chdir(tmp_path)
    assert main(["models", "pack", "1", "--model-store", str(store)]) == 0
    monkeypatch.setenv("FLOWERS_MODEL_STORE", str(tmp_path / "other"))
    said, command = capsys.readouterr().out.splitlines()
    assert said == "Version 1 of flowers is packed in flowers-1.tar.gz, 0.0 MB."
    return command


def run(command: str, *more: str, capsys: Capture) -> tuple[int, str, str]:
    exit_code = main([*shlex.split(command)[1:], *more])
    captured = capsys.readouterr()
    return exit_code, captured.out, captured.err


def test_the_printed_command_pulls_the_archive(packed: str, tmp_path: Path, capsys: Capture) -> None:
    assert packed == f"flowers models pull flowers-1.tar.gz --sha256 {digest_file(tmp_path / 'flowers-1.tar.gz')}"
    said = "Version 1 of flowers is pulled. Next: flowers serve --model flowers\n"
    assert run(packed, capsys=capsys) == (0, said, "")
    again = "Version 1 of flowers is in the store already. Next: flowers serve --model flowers\n"
    words, digest = packed.rsplit(" ", 1)
    assert run(f"{words} {digest.upper()}", capsys=capsys) == (0, again, "")
    assert main(["models", "verify", "1"]) == 0


def test_a_candidate_says_how_to_take_it(packed: str, tmp_path: Path, capsys: Capture) -> None:
    publish_example(tmp_path / "other", temperature=1.5)
    said = "Candidate 2 of flowers is pulled. No service serves it. Take it with `flowers models take 2`.\n"
    assert run(packed, capsys=capsys) == (0, said, "")


@pytest.mark.parametrize(("flags", "state"), [([], "candidate"), (["--take"], "version"), (["--no-take"], "candidate")])
def test_programs_are_told_what_was_pulled(
    packed: str, tmp_path: Path, flags: list[str], state: str, capsys: Capture
) -> None:
    publish_example(tmp_path / "other", temperature=1.5)
    exit_code, out, err = run(packed, "--json", *flags, capsys=capsys)
    assert json.loads(out) == {"model": "flowers", "version": 2, "state": state, "is_new": True}
    assert (exit_code, err) == (0, "")


def test_programs_are_told_what_was_packed(store: Path, tmp_path: Path, capsys: Capture) -> None:
    target = tmp_path / "a b.tar.gz"
    command = ["models", "pack", "1", "--model-store", str(store), "--to", str(target), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == {
        "model": "flowers", "version": 1, "file": str(target), "sha256": digest_file(target),
        "size_bytes": target.stat().st_size,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["pull", "flowers-1.tar.gz"], 2, "--sha256"),
        (["pull", "flowers-1.tar.gz", "--sha256", "5" * 63], 2, "is no sha256. Give 64"),
        (["pull", "flowers-1.tar.gz", "--sha256", "5" * 64], 1, "Nothing of it was kept"),
        (["pull", "http://example.org/a", "--sha256", "5" * 64], 2, "An archive comes by https"),
        (["pull", "missing.tar.gz", "--sha256", "5" * 64], 1, "missing.tar.gz cannot be read"),
        (["pack", "newest"], 2, "'newest' is no version"),
        (["pack", "1"], 1, "Model flowers is not in the store"),
    ],
)
def test_what_cannot_be_done_leaves_nothing(
    packed: str, tmp_path: Path, arguments: list[str], exit_code: int, said: str, capsys: Capture
) -> None:
    code, out, err = run("flowers models", *arguments, capsys=capsys)
    assert (code, out) == (exit_code, "")
    assert said in err
    assert not (tmp_path / "other").exists()


def test_model_names_the_model_that_the_archive_holds(packed: str, tmp_path: Path, capsys: Capture) -> None:
    exit_code, _, err = run(packed, "--model", "birds", capsys=capsys)
    assert exit_code == 1
    assert "a version of flowers, not of birds" in err
    assert run(packed, "--model", "flowers", capsys=capsys)[0] == 0


def test_sigterm_ends_a_pull_and_leaves_nothing(
    packed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def terminate(source: IO[bytes], target: IO[bytes], length: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.setattr(shutil, "copyfileobj", terminate)
    before = signal.getsignal(signal.SIGTERM)
    assert run(packed, capsys=capsys)[0] == 130
    assert signal.getsignal(signal.SIGTERM) is before
    assert not [*scratch.iterdir(), *(tmp_path / "other").rglob("*")]
