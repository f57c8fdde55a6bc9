import errno
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pytest

from service import __version__
from service.cli.help import VERBS
from service.cli.main import main

NOWHERE = ["--host", "192.0.2.1"]  # no machine's (RFC 5737): a `serve` that ought to be refused ends all the same
OF_A_MODEL = (
    *(["serve", *NOWHERE], ["doctor"], ["predict", "tulip.jpg"], ["evaluate", "photos"]),
    *(["models", "list"], ["models", "show"], ["models", "verify"]),
    *(["models", verb, "1"] for verb in ("use", "take", "remove")),
)


def test_python_m_service_is_flowers_and_lists_every_verb() -> None:
    process = subprocess.run([sys.executable, "-m", "service", "--help"], capture_output=True, text=True, check=True)
    for verb in VERBS:
        assert re.search(rf"│ {verb.name} +{verb.word} +│", process.stdout)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["paint"], "paint"),
        (["doctor", "--modle", "x"], "--model"),
        (["serve", "--port", "70000"], "--port (FLOWERS_PORT)"),
        (["serve", "--max-queue-size", "many"], "--max-queue-size"),
        (["train", "--recipe", "secret"], "default"),
        (["serve", "extra", *NOWHERE], "'extra' is one word too many. See `flowers serve --help`"),
        (["train", "photos", "other"], "'other' is one word too many"),
        (["doctor", "extra"], "'extra' is one word too many"),
        (["evaluate", "photos", "other"], "'other' is one word too many"),
        (["serve", "--version"], "--version"),
        (["serve", "--cors-origins", "not an origin", *NOWHERE], "--cors-origins"),
        *(
            ([*verb, "--model", "../x"], "--model (FLOWERS_MODEL) is '../x'. Give 1 to 64 letters")
            for verb in OF_A_MODEL
        ),
    ],
)
def test_asking_wrongly_is_one_sentence_and_exit_code_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert "Traceback" not in error


def test_an_unknown_variable_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWERS_MAX_QEUE_SIZE", "3")
    assert main(["doctor"]) == 2
    assert "FLOWERS_MAX_QUEUE_SIZE" in capsys.readouterr().err


@pytest.mark.parametrize("verb", [("doctor", "--json"), ("models", "list", "--json")], ids=" ".join)
def test_a_reader_that_has_read_enough_is_no_error(verb: tuple[str, ...]) -> None:
    """What is short is written at the end, what is long as it comes."""
    command = [sys.executable, "-m", "service", *verb]
    as_users_have_it = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=as_users_have_it)
    assert process.stdout is not None
    process.stdout.close()
    _, error = process.communicate()
    assert (process.returncode, error) == (1, "")


def test_a_full_disk_is_one_sentence_with_code_1() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this machine has no /dev/full")
    for verb in ("doctor", "--help"):
        with full.open("w") as output:
            process = subprocess.run(
                [sys.executable, "-m", "service", verb], stdout=output, stderr=subprocess.PIPE, text=True, check=False
            )
        assert process.returncode == 1
        assert process.stderr.startswith("flowers: The result cannot be written (No space left on device). Make room")
        assert process.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["EDQUOT", "EFBIG"])
def test_a_spent_quota_is_one_sentence_with_code_1(name: str) -> None:
    program = (
        "import errno, os, sys; from unittest.mock import Mock; from service.cli import doctor, main\n"
        f"full = OSError(errno.{name}, os.strerror(errno.{name}), 'report.json')\n"
        "doctor.find_packages = Mock(side_effect=full); sys.exit(main.main(['doctor']))"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert process.stderr.startswith("flowers: report.json cannot be written (")
    assert process.stderr.count("\n") == 1


def test_a_verb_works_without_standard_output() -> None:
    process = subprocess.run(
        [sys.executable, "-m", "service", "--version"],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        preexec_fn=lambda: os.close(1),
    )
    assert (process.returncode, process.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
@pytest.mark.parametrize(
    ("verb", "prepare", "exit_code"),
    [
        (["models", "list", "--model-store", "/nowhere"], lambda: os.dup2(os.open("/dev/full", os.O_WRONLY), 2), 0),
        (["paint"], lambda: os.close(2), 2),
    ],
    ids=["full", "closed"],
)
def test_an_unwritable_message_changes_no_exit_code(
    verb: list[str], prepare: Callable[[], object], exit_code: int
) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "service", *verb], stdout=subprocess.PIPE, check=False, preexec_fn=prepare
    )
    assert (process.returncode, process.stdout) == (exit_code, b"")


def test_a_verb_without_a_result_writes_nothing_to_stdout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that has hung up or is stopped takes not even an empty text."""

    class HungUp(io.StringIO):
        def write(self, _: str) -> int:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("sys.stdout", HungUp())
    assert main(["models", "list", "--model-store", "/nowhere"]) == 0


def test_an_unexpected_system_error_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("service.cli.doctor.find_packages", fail)
    with pytest.raises(OSError, match="Bad file descriptor"):
        main(["doctor"])


def test_ctrl_c_is_said_and_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("service.cli.doctor.find_packages", interrupt)
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "flowers: interrupted\n"


def test_the_version_flag_stands_before_any_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


@pytest.mark.parametrize("library", ["keras", "onnx", "tf2onnx"])
def test_training_without_its_libraries_names_the_command(library: str, drawn_folder: Path) -> None:
    program = (
        f"import sys; sys.modules[{library!r}] = None; from service.cli.main import main\n"
        "sys.exit(main(['train', sys.argv[1], '--name', 'flowers']))"
    )
    process = subprocess.run(
        [sys.executable, "-c", program, str(drawn_folder)], capture_output=True, text=True, check=False
    )
    assert process.returncode == 1
    assert f"This command needs {library}" in process.stderr
    assert re.search(r"Run `make .*install-training( VENV=\S+)?`", process.stderr)
    assert "Traceback" not in process.stderr


def test_the_light_verbs_import_neither_tensorflow_nor_fastapi() -> None:
    program = (
        "import sys; from service.cli.main import main; main(['models', 'list', '--model-store', '/nowhere'])\n"
        "heavy = {'tensorflow', 'keras', 'fastapi'} & set(sys.modules); sys.exit(str(heavy) if heavy else 0)"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr


def test_want_of_memory_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("service.cli.doctor.find_packages", Mock(side_effect=MemoryError))
    assert main(["doctor"]) == 1
    assert capsys.readouterr().err == (
        "flowers: There is not enough memory. Close other programs, or raise the limit of this one.\n"
    )
