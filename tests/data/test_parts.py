import pytest

from service.data.parts import describe_missing_classes, find_part


@pytest.mark.parametrize(
    ("name", "part"),
    [("Train", "train"), ("valid", "validation"), ("TESTING", "test"), ("trains", None), ("dev", None)],
)
def test_a_folder_gives_its_part_in_any_case(name: str, part: str | None) -> None:
    assert find_part(name) == part


def test_each_part_names_the_classes_that_it_lacks() -> None:
    assert describe_missing_classes(("a", "b"), {"train": {"a", "b"}, "test": {"b", "a"}}) is None
    said = describe_missing_classes(("a", "b", "c"), {"train": {"a", "b", "c"}, "validation": {"b"}, "test": set()})
    assert said is not None
    assert "part validation has no usable photograph of a and c. The part test has no usable photograph of a, b" in said
    assert "train has" not in said
