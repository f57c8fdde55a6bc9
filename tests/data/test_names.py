from service.data.names import escape_text, join_names, normalise_name


def test_a_name_has_one_form() -> None:
    assert normalise_name("rose\u0301") == normalise_name("ros\u00e9") == "ros\u00e9"


def test_many_names_are_counted() -> None:
    assert [join_names("abcdefg"[:count]) for count in (0, 1, 2, 3, 7)] == [
        "", "a", "a and b", "a, b and c", "a, b, c, d, e and 2 more",
    ]  # fmt: skip


def test_a_control_character_becomes_an_escape() -> None:
    assert escape_text("ro\x1b[31msé \udcff") == r"ro\x1b[31msé \udcff"
