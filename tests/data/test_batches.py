import numpy as np
import pytest

from service.data.batches import LabelledPixels, epoch_batches
from service.imaging.pixels import Pixels

NUM_PHOTOGRAPHS = 10
PIXELS = LabelledPixels(
    [np.full((4, 4, 3), index, np.uint8) for index in range(NUM_PHOTOGRAPHS)],
    np.arange(NUM_PHOTOGRAPHS, dtype=np.int64),
)


def plain_view(image: Pixels, random: np.random.Generator) -> Pixels:
    return image


def noisy_view(image: Pixels, random: np.random.Generator) -> Pixels:
    return random.integers(0, 256, image.shape, np.uint8)


def test_every_photograph_comes_once_an_epoch_with_its_own_label() -> None:
    batches = list(epoch_batches(PIXELS, plain_view, batch_size=5, epoch=0, seed=1))
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert sorted(labels) == list(range(NUM_PHOTOGRAPHS))
    np.testing.assert_array_equal(images[:, 0, 0, 0], labels)


@pytest.mark.parametrize("workers", [1, 4])
def test_an_epoch_depends_on_seed_and_number_alone_not_on_threads(workers: int) -> None:
    reference = list(epoch_batches(PIXELS, noisy_view, batch_size=3, epoch=2, seed=1, workers=2, ahead=1))
    again = list(epoch_batches(PIXELS, noisy_view, batch_size=3, epoch=2, seed=1, workers=workers, ahead=9))
    assert len(reference) == 3  # the tenth is left out
    for (images, labels), (images_again, labels_again) in zip(reference, again, strict=True):
        np.testing.assert_array_equal(images, images_again)
        np.testing.assert_array_equal(labels, labels_again)


def test_another_epoch_has_another_order_and_other_views() -> None:
    first, second = (next(epoch_batches(PIXELS, noisy_view, batch_size=10, epoch=e, seed=1)) for e in (0, 1))
    assert not np.array_equal(first[1], second[1])
    assert not np.array_equal(first[0][np.argsort(first[1])], second[0][np.argsort(second[1])])


def test_fewer_photographs_than_a_batch_make_one_smaller_batch() -> None:
    batches = list(epoch_batches(PIXELS, plain_view, batch_size=64, epoch=0, seed=0))
    assert [len(images) for images, _ in batches] == [NUM_PHOTOGRAPHS]


def test_a_view_that_fails_fails_the_epoch() -> None:
    def broken(image: Pixels, random: np.random.Generator) -> Pixels:
        raise ValueError("broken view")

    with pytest.raises(ValueError, match="broken view"):
        next(epoch_batches(PIXELS, broken, batch_size=5, epoch=0, seed=0))
