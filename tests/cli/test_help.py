"""Help texts: a stranger at a terminal of 80 columns."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from service.cli.help import GROUPS, VERBS, describe_usage
from service.settings import PROGRAMS


def read_help(*words: str, home: Path | None = None) -> str:
    environment = {**os.environ, "COLUMNS": "80", **({"HOME": str(home), "SHELL": "/bin/bash"} if home else {})}
    process = subprocess.run(
        [sys.executable, "-m", "service", *words], capture_output=True, text=True, check=True, env=environment
    )
    return process.stdout


def test_every_setting_is_in_one_group() -> None:
    grouped = [field for fields in GROUPS.values() for field in fields]
    assert sorted(grouped) == sorted({field for program in PROGRAMS for field in program.model_fields})


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_help_has_examples_and_fits_80_columns(verb: object) -> None:
    name = str(getattr(verb, "name", ""))
    text = read_help(name, "--help")
    assert text.startswith(f"Usage: {describe_usage(name)}\n")
    assert max(len(line) for line in text.splitlines()) <= 80


def test_settings_stand_in_groups_with_their_variables() -> None:
    text = read_help("serve", "--help")
    titles = re.findall(r"╭─ ([\w ]+) ─", text)
    assert titles[0] == "Parameters" or set(titles) <= GROUPS.keys()
    assert {"Model", "Queue", "Access", "Protocols"} <= set(titles)
    assert "FLOWERS_MAX_QUEUE_SIZE" in text
    assert "Usage: flowers train [OPTIONS] [FOLDER]" in read_help("train", "--help")


def test_the_verbs_stand_in_the_order_of_use() -> None:
    listed = re.findall(r"│ (\w+) +(.+?) +│", read_help("--help"))
    assert listed == [(verb.name, verb.word) for verb in VERBS]


def test_the_shell_completes_verbs_and_flags(tmp_path: Path) -> None:
    read_help("--install-completion", home=tmp_path)
    (script,) = tmp_path.glob(".local/share/bash-completion/completions/flowers")
    assert str(script) in (tmp_path / ".bashrc").read_text()
    lines = f"""
        source {script}
        COMP_WORDS=(flowers ev) COMP_CWORD=1; _flowers flowers ev flowers; echo "${{COMPREPLY[@]}}"
        COMP_WORDS=(flowers serve --max-q) COMP_CWORD=2; _flowers flowers --max-q serve; echo "${{COMPREPLY[@]}}"
    """
    shell = subprocess.run(["bash", "-c", lines], capture_output=True, text=True, check=True)
    assert shell.stdout.splitlines() == ["evaluate", "--max-queue-size --max-queue-bytes"]
