import io
import os
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from service.cli.main import main
from service.cli.terminal import captured_messages, complain, describe_error, make_progress, print_result, printable
from service.errors import InvalidVersion

ESCAPES = "\x1b[31mred\x9b\x07\u202e"
ESCAPED = r"\x1b[31mred\x9b\x07\u202e"


def test_a_text_keeps_its_letters_and_loses_its_commands() -> None:
    assert printable(ESCAPES) == ESCAPED
    text = "a [final] :rose: $5\n\tگل\u200cسرخ 玫瑰 \u202f"
    assert printable(text) == text


def test_no_escape_sequence_of_a_name_is_printed(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table = Table("file")
    table.add_row(Text(f"{ESCAPES}.jpg"))
    print_result(table)
    assert main(["evaluate", str(tmp_path / ESCAPES)]) == 2
    printed = capsys.readouterr()
    assert r"\x1b[31mred\x9b" in printed.out
    assert ESCAPED in printed.err
    assert "\x1b" not in printed.out + printed.err


def test_a_pipe_gets_the_width_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("file")
    table.add_row("a long name " * 50)
    print_result(table)
    assert "a long name " * 49 in capsys.readouterr().out


def test_of_the_words_of_a_runtime_few_are_shown() -> None:
    error = InvalidVersion("it cannot be loaded")
    error.__cause__ = RuntimeError("x" * 1000 + "\nin a function")
    assert describe_error(error) == f"it cannot be loaded ({'x' * 200})"


@pytest.mark.parametrize("columns", ["1", "2"])
@pytest.mark.parametrize("verb", [[], ["train"]], ids=["flowers", "train"])
def test_help_ends_on_a_terminal_without_width(
    columns: str, verb: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert main([*verb, "--help"]) == 0
    assert "Usage: flowers" in capsys.readouterr().out


def test_messages_of_libraries_are_kept_back(capfd: pytest.CaptureFixture[str]) -> None:
    with captured_messages():
        os.write(2, b"all log messages before\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def test_messages_of_libraries_are_printed_where_they_fail(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        with captured_messages():
            os.write(2, b"no such instruction\n")
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert capfd.readouterr().err == "no such instruction\n"


def test_a_bar_without_an_end_shows_elapsed_time() -> None:
    terminal = io.StringIO()
    with make_progress(Console(file=terminal, force_terminal=True)) as progress:
        task = progress.add_task("[final] decoding", total=None, figures="")
        progress.refresh()
        progress.update(task, total=10, completed=0)
        progress.refresh()
    shown = terminal.getvalue()
    assert "[final] decoding" in shown
    assert "0 s so far" in shown
    assert "0/10" in shown
    assert "?" not in shown.replace("\x1b[?25", "")
    assert "-:--" not in shown
    assert shown.endswith("\x1b[2K"), "it leaves no trace"


def test_a_message_breaks_at_spaces_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    message = "There is no training in /a/folder/with-a-long-name. Begin one with `flowers train`, or name another."
    complain(message)
    assert capsys.readouterr().err == f"flowers: {message}\n", "a program gets one line"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    complain(message)
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 60
    assert " ".join(lines) == f"flowers: {message}"
