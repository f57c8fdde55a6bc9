import threading
from collections.abc import Iterator

import numpy as np
import pytest

from service.data.batches import LabelledPixels, epoch_batches, make_views, one_ahead
from service.imaging.pixels import Pixels

NUM_PHOTOGRAPHS = 10
IMAGES = [np.full((4, 4, 3), index, np.uint8) for index in range(NUM_PHOTOGRAPHS)]


def plain_view(image: Pixels, random: np.random.Generator) -> Pixels:
    return image


def noisy_view(image: Pixels, random: np.random.Generator) -> Pixels:
    return random.integers(0, 256, image.shape, np.uint8)


def test_every_photograph_comes_once_an_epoch_and_says_which_it_is() -> None:
    batches = list(epoch_batches(IMAGES, plain_view, batch_size=5, epoch=0, seed=1))
    photographs = np.concatenate([batch.photographs for batch in batches])
    assert sorted(photographs) == list(range(NUM_PHOTOGRAPHS))
    images = np.concatenate([batch.images for batch in batches])
    np.testing.assert_array_equal(images[:, 0, 0, 0], photographs)


@pytest.mark.parametrize("workers", [1, 4])
def test_an_epoch_depends_on_seed_and_number_alone_not_on_threads(workers: int) -> None:
    reference = list(epoch_batches(IMAGES, noisy_view, batch_size=3, epoch=2, seed=1, workers=2, ahead=1))
    again = list(epoch_batches(IMAGES, noisy_view, batch_size=3, epoch=2, seed=1, workers=workers, ahead=9))
    assert len(reference) == 3  # the tenth is left out
    for batch, same in zip(reference, again, strict=True):
        np.testing.assert_array_equal(batch.images, same.images)
        np.testing.assert_array_equal(batch.photographs, same.photographs)


def test_another_epoch_has_another_order_and_other_views() -> None:
    first, second = (next(epoch_batches(IMAGES, noisy_view, batch_size=10, epoch=e, seed=1)) for e in (0, 1))
    assert not np.array_equal(first.photographs, second.photographs)
    one, other = (batch.images[np.argsort(batch.photographs)] for batch in (first, second))
    assert not np.array_equal(one, other)


def test_a_counted_number_of_views_is_taken_in_turn_and_each_can_be_made_again() -> None:
    seen = set()
    for epoch in range(6):
        for batch in epoch_batches(IMAGES, noisy_view, batch_size=5, epoch=epoch, seed=1, num_views=3):
            again = make_views(IMAGES, batch.photographs, batch.views, noisy_view, seed=1)
            np.testing.assert_array_equal(again, batch.images)
            seen |= set(zip(batch.photographs.tolist(), batch.views.tolist(), strict=True))
    assert seen == {(photograph, view) for photograph in range(NUM_PHOTOGRAPHS) for view in range(3)}


def test_repeated_photographs_keep_their_labels_and_have_views_of_their_own() -> None:
    pixels = LabelledPixels(IMAGES, np.arange(NUM_PHOTOGRAPHS)).repeated(3)
    np.testing.assert_array_equal([image[0, 0, 0] for image in pixels.images], pixels.class_indices)
    (batch,) = epoch_batches(pixels.images, noisy_view, batch_size=30, epoch=0, seed=1)
    views = {batch.images[k].tobytes() for k in range(30)}
    assert len(views) == 30


def test_fewer_photographs_than_a_batch_make_one_smaller_batch() -> None:
    batches = list(epoch_batches(IMAGES, plain_view, batch_size=64, epoch=0, seed=0))
    assert [len(batch.images) for batch in batches] == [NUM_PHOTOGRAPHS]


def test_a_view_that_fails_fails_the_epoch() -> None:
    def broken(image: Pixels, random: np.random.Generator) -> Pixels:
        raise ValueError("broken view")

    with pytest.raises(ValueError, match="broken view"):
        next(epoch_batches(IMAGES, broken, batch_size=5, epoch=0, seed=0))


def test_one_ahead_makes_the_next_while_the_last_is_used_and_raises_in_its_place() -> None:
    is_made = [threading.Event() for _ in range(3)]

    def make() -> Iterator[int]:
        for number in range(3):
            is_made[number].set()
            yield number
        raise ValueError("the fourth")

    items = one_ahead(make())
    for number in range(3):
        assert next(items) == number
        assert all(event.wait(10) for event in is_made[: number + 2])
    with pytest.raises(ValueError, match="the fourth"):
        next(items)
