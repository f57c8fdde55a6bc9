"""Screenshot of the command line: `python -m docs.terminal`. The commands run in a terminal of 80 columns."""

import io
import os
import pty
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).resolve().parent
_NUM_COLUMNS = 80
_COMMANDS = (["--help"], ["predict", "--sample", "--top-k", "1"], ["models", "list"])


def run(arguments: list[str]) -> str:
    """Run `flowers` in a terminal, and return what it writes."""
    written = bytearray()

    def read(descriptor: int) -> bytes:
        piece = os.read(descriptor, 65536)
        written.extend(piece)
        return b"\0" if piece else b""  # keeps it from the real terminal

    os.environ["COLUMNS"] = str(_NUM_COLUMNS)
    pty.spawn([sys.executable, "-m", "service", *arguments], read)
    return written.decode().replace("\r\n", "\n")


def main() -> None:
    """Write the screenshot."""
    console = Console(record=True, width=_NUM_COLUMNS, file=io.StringIO(), force_terminal=True)
    for arguments in _COMMANDS:
        console.print(Text(f"$ flowers {' '.join(arguments)}", style="bold"))
        console.print(Text.from_ansi(run(arguments)))
    svg = re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title="flowers"), flags=re.DOTALL)  # it loads nothing
    (DOCS / "images" / "terminal.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
