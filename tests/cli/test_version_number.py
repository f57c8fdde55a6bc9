import pytest

from service.cli.version_number import read_number
from service.errors import UsageError


def test_a_number_is_an_integer_from_one() -> None:
    assert read_number("12") == 12
    for text in ("0", "01", "-1", "1.0", "latest", ""):
        with pytest.raises(UsageError, match=r"is no version\. Give its number"):
            read_number(text)
