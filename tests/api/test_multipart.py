"""Forms as they arrive: their images, their parameters, and what is refused."""

import tracemalloc

import pytest

from service.api.multipart import Form, Pieces, Upload
from service.errors import ImageBytesTooLarge, MalformedRequest, MissingImage, TooManyImages

PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n'
END = b"--b--\r\n"


@pytest.mark.parametrize("sizes", [[1], [4095, 4096, 1], [10_000]])
def test_pieces_keep_their_order(sizes: list[int]) -> None:
    pieces, expected = Pieces(), b""
    for number, size in enumerate(sizes * 3):
        piece = bytes([number]) * size
        pieces.write(piece)
        expected += piece
    assert pieces.num_bytes == len(expected)
    assert pieces.finish() == Upload(expected)


def test_a_form_has_an_image_and_parameters() -> None:
    form = Form(b"b", 100)
    for byte in PART % (b"top_k", b"2") + PART % (b"note", b"x") + PART % (b"file", b"image") + END:
        form.write(bytes([byte]))
    assert form.finish() == Upload(b"image", ("2",))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (PART % (b"file", b"x" * 101) + END, ImageBytesTooLarge),
        (PART % (b"file", b"x") * 2 + END, TooManyImages),
        (PART % (b"note", b"x") * 33 + END, MalformedRequest),
        (PART % (b"file", b"x"), MalformedRequest),
        (PART % (b"note", b"x") + END, MissingImage),
    ],
    ids=["large", "two images", "many parts", "cut short", "no image"],
)
def test_a_wrong_form_is_refused(body: bytes, error: type[Exception]) -> None:
    form = Form(b"b", 100)

    def parse() -> None:
        form.write(body)
        form.finish()

    with pytest.raises(error):
        parse()


@pytest.mark.parametrize("boundary", [b"", b"x" * 1000])
def test_a_wrong_boundary_is_refused(boundary: bytes) -> None:
    with pytest.raises(MalformedRequest, match="Content-Type"):
        Form(boundary, 100)


def test_text_before_the_first_delimiter_takes_no_memory() -> None:
    form = Form(b"b", 100)
    tracemalloc.start()
    try:
        for _ in range(10):
            form.write(b"\r\n--bX no delimiter\r\n" * 10_000)
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()
    with pytest.raises(MalformedRequest, match="closing boundary"):
        form.finish()


def test_a_part_without_a_name_is_no_second_image() -> None:
    form = Form(b"b", 100)
    form.write(PART % (b"file", b"image") + b"--b\r\nContent-Type: text/plain\r\n\r\nnote\r\n" + END)
    assert form.finish() == Upload(b"image")


def test_a_part_s_header_is_read_in_any_case() -> None:
    form = Form(b"b", 100)
    form.write((PART % (b"file", b"image")).replace(b"Content-Disposition", b"content-DISPOSITION") + END)
    assert form.finish() == Upload(b"image")


@pytest.mark.parametrize("name", [b"\xff\xfe", b"x" * 2000], ids=["no text", "long"])
def test_an_unknown_field_is_named_in_few_letters(name: bytes) -> None:
    form = Form(b"b", 100)
    form.write(PART % (name, b"x") + END)
    with pytest.raises(MissingImage) as caught:
        form.finish()
    assert len(str(caught.value)) < 200


def test_a_parameter_that_is_no_text_is_kept() -> None:
    form = Form(b"b", 100)
    form.write(PART % (b"top_k", b"\xff") + PART % (b"file", b"image") + END)
    assert form.finish() == Upload(b"image", ("\ufffd",))
