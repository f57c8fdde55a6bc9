"""Class and file names in one Unicode form, and in sentences."""

import unicodedata
from collections.abc import Sequence

_MOST_NAMED = 5


def normalise_name(name: str) -> str:
    """Return a class or file name in Unicode's NFC. macOS may hand out the other form, NFD."""
    return unicodedata.normalize("NFC", name)


def can_be_shown(char: str) -> bool:
    """Return whether a terminal shows a character without harm."""
    # Joiners are letters' own in Persian, Hindi and emoji. A Mac writes a narrow space into the names of screenshots.
    return char.isprintable() or char in "\u200c\u200d" or unicodedata.category(char) == "Zs"


def join_names(names: Sequence[str]) -> str:
    """Join names for a sentence. Of many only the first are named, and the others counted."""
    if len(names) > _MOST_NAMED:
        return f"{', '.join(names[:_MOST_NAMED])} and {len(names) - _MOST_NAMED} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def escape_text(text: str) -> str:
    """Replace control characters and what is not Unicode with escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
