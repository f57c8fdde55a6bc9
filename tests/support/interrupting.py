"""Another process that acts between two steps of the code under test."""

from collections.abc import Callable
from pathlib import Path

import pytest


def interrupt_rename(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let another process act at the worst moment, just before the next `Path.rename`."""
    real_rename = Path.rename

    def rename(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", real_rename)
        act()
        return real_rename(path, target)

    monkeypatch.setattr(Path, "rename", rename)
