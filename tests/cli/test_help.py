"""Help texts: a stranger at a terminal of 80 columns."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from service.cli.help import GROUPS, VERBS, Verb, describe_usage
from service.cli.main import main
from service.settings import PROGRAMS


@pytest.fixture
def read_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    monkeypatch.setenv("COLUMNS", "80")

    def read(*words: str) -> str:
        assert main(list(words)) == 0
        return capsys.readouterr().out

    return read


def test_every_setting_is_in_one_group() -> None:
    grouped = [field for fields in GROUPS.values() for field in fields]
    assert sorted(grouped) == sorted({field for program in PROGRAMS for field in program.model_fields})


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_help_has_examples_and_fits_80_columns(verb: Verb, read_help: Callable[..., str]) -> None:
    text = read_help(verb.name, "--help")
    assert text.startswith(f"Usage: {describe_usage(verb.name)}\n")
    assert max(len(line) for line in text.splitlines()) <= 80
    assert not re.findall(r"--[\w-]+\.\w+", text), "parts of a value are no flags"


def test_settings_stand_in_groups_with_their_variables(read_help: Callable[..., str]) -> None:
    text = read_help("serve", "--help")
    titles = re.findall(r"╭─ ([\w ]+) ─", text)
    assert set(titles) <= GROUPS.keys()
    assert {"Model", "Queue", "Access", "Protocols"} <= set(titles)
    assert "FLOWERS_MAX_QUEUE_SIZE" in text
    assert "Usage: flowers train [OPTIONS] [FOLDER]" in read_help("train", "--help")


def test_the_verbs_stand_in_the_order_of_use(read_help: Callable[..., str]) -> None:
    listed = re.findall(r"│ (\w+) +(.+?) +│", read_help("--help"))
    assert listed == [(verb.name, verb.word) for verb in VERBS]


def test_the_shell_completes_verbs_and_flags(
    tmp_path: Path, read_help: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    read_help("--install-completion")
    (script,) = tmp_path.glob(".local/share/bash-completion/completions/flowers")
    assert str(script) in (tmp_path / ".bashrc").read_text()
    lines = f"""
        source {script}
        COMP_WORDS=(flowers ev) COMP_CWORD=1; _flowers flowers ev flowers; echo "${{COMPREPLY[@]}}"
        COMP_WORDS=(flowers serve --max-q) COMP_CWORD=2; _flowers flowers --max-q serve; echo "${{COMPREPLY[@]}}"
    """
    shell = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True)
    assert shell.stdout.splitlines() == ["evaluate", "--max-queue-size --max-queue-bytes"]
