"""JPEGs larger than anybody needs are decoded smaller, by the decoder itself: sooner, and to the same square."""

import io

import numpy as np
import pytest
from PIL import Image
from support.drawing import draw_photograph

from service.imaging.decode import decode_image
from service.imaging.pixels import Pixels
from service.imaging.resize import resize


def jpeg(width: int, height: int, mode: str = "RGB", **options: object) -> bytes:
    stream = io.BytesIO()
    image = draw_photograph(2, 7).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    image.save(stream, "JPEG", quality=90, **options)
    return stream.getvalue()


def whole(data: bytes) -> Pixels:
    """Decoded at full size."""
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1023, 1500), (1023, 1500)),
        ((1024, 1500), (512, 750)),
        ((4000, 3000), (1000, 750)),
        ((4096, 9000), (512, 1125)),
    ],
)
def test_the_shorter_side_stays_at_512_or_more(size: tuple[int, int], expected: tuple[int, int]) -> None:
    height, width, _ = decode_image(jpeg(*size)).pixels.shape
    assert (width, height) == expected


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_a_large_photograph_s_square_nears_the_full_decode(mode: str, options: dict[str, object]) -> None:
    data = jpeg(4001, 3003, mode, **options)
    difference = np.abs(resize(decode_image(data)).astype(int) - resize(whole(data)))
    assert difference.mean() < 1
    assert difference.max() <= 32  # at edges


def test_small_photographs_are_decoded_bit_for_bit() -> None:
    data = jpeg(1000, 800)
    np.testing.assert_array_equal(decode_image(data).pixels, whole(data))


def test_the_turn_of_a_large_photograph_is_kept() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    height, width, _ = decode_image(jpeg(4000, 3000, exif=exif)).pixels.shape
    assert (width, height) == (750, 1000)
