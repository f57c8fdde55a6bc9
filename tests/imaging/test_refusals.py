"""Sentences of refusals: what is wrong, and what to do."""

import pytest

from service.errors import InvalidImage, UnsupportedImageFormat
from service.imaging.refusals import cut_short, in_words, not_read, out_of_proportion


def test_a_refusal_names_the_format_and_the_remedy() -> None:
    assert str(cut_short("GIF")) == "The GIF image is cut short. Send the whole file again."
    assert str(out_of_proportion("PNG", "texts")).startswith("The PNG image holds more texts than it needs")
    assert str(not_read("BMP", "is rare")) == (
        "The BMP image is rare. This kind is not read here. Send it as JPEG or PNG."
    )
    assert isinstance(cut_short("GIF"), InvalidImage)
    assert isinstance(not_read("BMP", "is rare"), UnsupportedImageFormat)


@pytest.mark.parametrize(
    ("pixels", "words"),
    [(999_999, "999,999"), (1_000_000, "1 million"), (81_000_000, "81 million"), (70_588_235, "70.5882 million")],
)
def test_pixels_are_told_in_millions(pixels: int, words: str) -> None:
    assert in_words(pixels) == words
