"""Number of a version, as a person writes it."""

from service.errors import UsageError
from service.store.layout import parse_version


def read_number(text: str) -> int:
    """Return the number that an argument means. Raises `UsageError`."""
    number = parse_version(text)
    if number is None:
        raise UsageError(f"{text!r} is no version. Give its number, as `flowers models list` shows it.")
    return number
