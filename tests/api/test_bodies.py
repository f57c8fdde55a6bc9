"""Bodies as they arrive: pieces, images and forms, without a connection."""

import pytest

from service.api.bodies import Form, Pieces, Raw
from service.errors import ImageBytesTooLarge, MalformedRequest, MissingImage, TooManyImages, UnsupportedMediaType

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
    assert pieces.join() == expected


@pytest.mark.parametrize(("body", "is_refused"), [(b"a=b", True), (b"\xff\xd8\xff", False), (b"x" * 512 + b"\n", True)])
def test_a_url_encoded_form_is_told_from_an_image(body: bytes, is_refused: bool) -> None:
    raw = Raw(is_perhaps_a_form=True)
    raw.write(body)
    if is_refused:
        with pytest.raises(UnsupportedMediaType):
            raw.finish()
    else:
        assert raw.finish().image == body


def test_a_form_has_an_image_and_parameters() -> None:
    form = Form(b"b", 100)
    for byte in PART % (b"top_k", b"2") + PART % (b"note", b"x") + PART % (b"file", b"image") + END:
        form.write(bytes([byte]))
    upload = form.finish()
    assert (upload.image, upload.parameters) == (b"image", {"top_k": ["2"]})


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
