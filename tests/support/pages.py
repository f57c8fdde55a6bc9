"""Fenced blocks of the documents, for tests that run them."""

import re

from conftest import REPOSITORY


def read_block(page: str, heading: str, language: str, url: str = "") -> str:
    """The first block of a language below a heading. It asks the service at `url`, if there is one."""
    text = (REPOSITORY / "docs" / page).read_text(encoding="utf-8")
    section = re.split(r"^## ", text.split(f"\n## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    block = re.search(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert block is not None, f"{page} has no {language} under {heading}"
    if not url:
        return block[1]
    address = url.removeprefix("http://")
    assert "localhost:8000" in block[1]
    return block[1].replace("localhost:8000", address)
