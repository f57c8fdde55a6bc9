import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from service.errors import TrainingError
from service.training.run import PUBLISHED_FILE, open_run

HOLD = """
import sys, time
from pathlib import Path
from service.training.run import open_run
with open_run(Path(sys.argv[1]), "garden-1", lambda _: True) as run:
    print(run.folder, flush=True)
    sys.stdin.read()
"""


def is_there(_: dict[str, Any]) -> bool:
    return True


def finish(folder: Path, **more: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PUBLISHED_FILE).write_text(json.dumps({"model": "garden", "version": 3, **more}), encoding="utf-8")


def test_a_second_training_is_refused_with_a_sentence_until_the_first_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == f"{tmp_path / 'garden-1'}\n"
        try:
            with pytest.raises(TrainingError, match=rf"process {first.pid}\) is at work .* another --seed"):
                open_run(tmp_path, "garden-1", is_there).__enter__()
            with open_run(tmp_path, "garden-2", is_there) as other:
                assert other.folder == tmp_path / "garden-2"
        finally:
            first.kill()
    with open_run(tmp_path, "garden-1", is_there) as run:
        assert (run.folder, run.published) == (tmp_path / "garden-1", None)
        assert (run.folder / "lock").read_text() == f"{os.getpid()}\n"


def test_a_finished_training_is_found_and_trained_again_only_on_request(tmp_path: Path) -> None:
    finish(tmp_path / "garden")
    with open_run(tmp_path, "garden", is_there) as run:
        assert run.folder == tmp_path / "garden"
        assert run.published is not None
        assert run.published["version"] == 3
    with open_run(tmp_path, "garden", is_there, again=True) as run:
        assert (run.folder, run.published) == (tmp_path / "garden-2", None)
    with open_run(tmp_path, "garden", is_there) as run:
        assert (run.folder, run.published) == (tmp_path / "garden-2", None), "it was begun, and goes on"


def test_a_finished_training_whose_version_was_removed_is_trained_anew(tmp_path: Path) -> None:
    finish(tmp_path / "garden")
    with open_run(tmp_path, "garden", lambda _: False) as run:
        assert (run.folder, run.published) == (tmp_path / "garden-2", None)


def test_a_training_that_published_when_interrupted_goes_on(tmp_path: Path) -> None:
    finish(tmp_path / "garden", finished=False)
    with open_run(tmp_path, "garden", is_there) as run:
        assert (run.folder, run.published) == (tmp_path / "garden", None)


@pytest.mark.parametrize("content", ["", "[]", "5", "{}", '{"model": "garden", "version": "x"}'])
def test_a_damaged_list_of_what_was_published_is_named_with_a_remedy(content: str, tmp_path: Path) -> None:
    (tmp_path / "garden").mkdir()
    (tmp_path / "garden" / PUBLISHED_FILE).write_text(content)
    with pytest.raises(TrainingError, match=r"published\.json cannot be read, or is damaged: remove"):
        open_run(tmp_path, "garden", is_there).__enter__()
