import pytest

from service.cli.headers import check_headers, split_headers
from service.errors import InvalidParameter


def test_lines_become_names_and_values() -> None:
    lines = ("X-API-Key: garden", "X-More:1:2")
    check_headers(lines)
    assert split_headers(lines) == [("X-API-Key", "garden"), ("X-More", "1:2")]


@pytest.mark.parametrize("line", ["garden", ": garden", "X-Key: gardén", "X-Key: gar\nden"])
def test_a_malformed_line_is_refused_without_its_key(line: str) -> None:
    with pytest.raises(InvalidParameter, match="--header is malformed") as caught:
        check_headers([line])
    assert "gar" not in str(caught.value)
