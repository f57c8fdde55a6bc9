import pytest

from service.api.accept import prefers


@pytest.mark.parametrize(
    ("accept", "is_preferred"),
    [
        ("application/json", True),
        ("APPLICATION/JSON", True),
        ("application/json; charset=utf-8", True),
        ("application/*", True),
        ("application/json, */*;q=0.8", True),
        ("image/png;q=0.2, application/json;q=0.5", True),
        ("*/*, image/*;q=0.1", True),
        ("application/json;q=0.3;level=1, image/png; Q=0.2", True),
        ("", False),
        ("*/*", False),
        ("image/png", False),
        ("application/json, image/png", False),
        ("application/json, text/plain, */*", False),
        ("application/json;q=0, */*", False),
        ("application/json;q=0.1, image/*", False),
        ("application/problem+json", False),
        ("text/html", False),
        (",;q=,/;;q=9", False),
    ],
)
def test_json_is_preferred_by_quality(accept: str, is_preferred: bool) -> None:
    assert prefers(accept, "application/json", "image/png") is is_preferred
