import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.drawing import draw_photograph, encode
from support.icc import cmyk_profile, matrix_profile

from service.data.batches import (
    LabelledPixels,
    epoch_batches,
    load_full_images,
    load_squares,
    made_ahead,
    order_by_blocks,
)
from service.data.check import CheckedPhotograph
from service.data.stored import Photographs, StoredPixels, to_record
from service.data.views import Batch, MakeView, View, Views
from service.errors import DatasetError, OutOfMemory
from service.imaging.decode import decode_image, decode_square
from service.imaging.limits import ImageLimits, ResizeRule
from service.imaging.resize import resize_shorter_side

NUM_PHOTOGRAPHS = 10
IMAGES = [np.full((4, 4, 3), index, np.uint8) for index in range(NUM_PHOTOGRAPHS)]


def plain_view(photographs: Photographs, number: int, random: np.random.Generator) -> View:
    return View(photographs[number], number, 1.0)


def noisy_view(photographs: Photographs, number: int, random: np.random.Generator) -> View:
    return View(random.integers(0, 256, photographs[number].shape, np.uint8), number, 1.0)


def batches_of(make: MakeView, *, batch_size: int, epoch: int = 0, seed: int = 1, workers: int = 2) -> list[Batch]:
    views = Views(IMAGES, make, seed)
    return list(epoch_batches(views, batch_size=batch_size, epoch=epoch, workers=workers))


def test_every_photograph_comes_once_an_epoch_with_its_number() -> None:
    batches = batches_of(plain_view, batch_size=5)
    photographs = np.concatenate([batch.photographs for batch in batches])
    assert sorted(photographs) == list(range(NUM_PHOTOGRAPHS))
    images = np.concatenate([batch.images for batch in batches])
    np.testing.assert_array_equal(images[:, 0, 0, 0], photographs)


@pytest.mark.parametrize("workers", [1, 4])
def test_an_epoch_depends_on_seed_and_number_alone(workers: int) -> None:
    reference = batches_of(noisy_view, batch_size=3, epoch=2)
    again = batches_of(noisy_view, batch_size=3, epoch=2, workers=workers)
    assert len(reference) == 3  # the tenth is left out
    for batch, same in zip(reference, again, strict=True):
        np.testing.assert_array_equal(batch.images, same.images)
        np.testing.assert_array_equal(batch.photographs, same.photographs)


def test_the_shares_of_all_processes_make_the_whole_batch() -> None:
    views = Views(IMAGES, noisy_view, 1)
    whole = list(epoch_batches(views, batch_size=4, epoch=1))
    shares = [list(epoch_batches(views, batch_size=4, epoch=1, share=(process, 2))) for process in range(2)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert [len(part.photographs) for part in parts] == [2, 2]
        for process, part in enumerate(parts):
            np.testing.assert_array_equal(part.photographs, batch.photographs[process::2])
            np.testing.assert_array_equal(part.images, batch.images[process::2])


def test_photographs_in_memory_have_an_unbounded_order() -> None:
    (batch,) = epoch_batches(Views(IMAGES * 10, plain_view, 7), batch_size=100, epoch=2)
    assert batch.photographs.tolist() == np.random.default_rng((7, 2)).permutation(100).tolist()


def test_photographs_in_a_file_come_by_blocks(tmp_path: Path) -> None:
    path = tmp_path / "photographs"
    path.write_bytes(b"".join(map(to_record, IMAGES)) * 10)
    stored = StoredPixels(path.open("rb"), [(4, 4)] * 100)
    (batch,) = epoch_batches(Views(stored, plain_view, 7), batch_size=100, epoch=2)
    np.testing.assert_array_equal(batch.images[:, 0, 0, 0], batch.photographs % NUM_PHOTOGRAPHS)
    assert batch.photographs.tolist() == order_by_blocks(100, np.random.default_rng((7, 2))).tolist()


@pytest.mark.parametrize("number", [1, 7, 100, 1003])
def test_an_order_by_blocks_has_each_number_once(number: int) -> None:
    order = order_by_blocks(number, np.random.default_rng(1), block=8, window=4)
    assert sorted(order.tolist()) == list(range(number))


def test_a_window_holds_whole_blocks_from_all_over() -> None:
    first, second = (order_by_blocks(1024, np.random.default_rng(seed), block=8, window=4) for seed in (1, 2))
    assert first.tolist() != second.tolist()
    for window in np.split(first, 1024 // 32):
        assert sorted(window.tolist()) != window.tolist()
        blocks, counts = np.unique(window // 8, return_counts=True)
        assert counts.tolist() == [8] * 4
        assert np.ptp(blocks) > 4


def test_another_epoch_has_another_order_and_other_views() -> None:
    (first,), (second,) = (batches_of(noisy_view, batch_size=10, epoch=epoch) for epoch in (0, 1))
    assert not np.array_equal(first.photographs, second.photographs)
    one, other = (batch.images[np.argsort(batch.photographs)] for batch in (first, second))
    assert not np.array_equal(one, other)


def test_a_counted_number_of_views_is_taken_in_turn() -> None:
    views = Views(IMAGES, noisy_view, 1, num_views=3)
    seen = set()
    for epoch in range(6):
        for batch in epoch_batches(views, batch_size=5, epoch=epoch):
            seen |= set(zip(batch.photographs.tolist(), batch.views.tolist(), strict=True))
    assert seen == {(photograph, view) for photograph in range(NUM_PHOTOGRAPHS) for view in range(3)}


def test_repeated_photographs_have_views_of_their_own() -> None:
    pixels = LabelledPixels(IMAGES, np.arange(NUM_PHOTOGRAPHS)).repeated(3)
    np.testing.assert_array_equal([image[0, 0, 0] for image in pixels.images], pixels.class_indices)
    (batch,) = epoch_batches(Views(pixels.images, noisy_view, 1), batch_size=30, epoch=0)
    assert len({batch.images[k].tobytes() for k in range(30)}) == 30


def test_taken_and_sampled_photographs_keep_their_classes() -> None:
    pixels = LabelledPixels(IMAGES, np.arange(NUM_PHOTOGRAPHS))
    taken = pixels.take([7, 2, 2]).with_others(pixels.take([9]))
    assert taken.class_indices.tolist() == [7, 2, 2, 9]
    assert [image[0, 0, 0] for image in taken.images] == [7, 2, 2, 9]
    for number, expected in ((10, 10), (5, 5), (4, 4), (3, 3)):
        some = pixels.sample(number)
        assert len(some.images) == expected
        assert np.asarray(some.images)[:, 0, 0, 0].tolist() == some.class_indices.tolist()


def test_fewer_photographs_than_a_batch_make_one_smaller_batch() -> None:
    assert [len(batch.images) for batch in batches_of(plain_view, batch_size=64)] == [NUM_PHOTOGRAPHS]


def test_a_view_that_fails_fails_the_epoch() -> None:
    def broken(photographs: Photographs, number: int, random: np.random.Generator) -> View:
        if number == 3:
            raise ValueError("broken view")
        return plain_view(photographs, number, random)

    with pytest.raises(ValueError, match="broken view"):
        batches_of(broken, batch_size=5)


def test_items_made_ahead_come_in_order_with_errors() -> None:
    is_made = [threading.Event() for _ in range(8)]

    def make(number: int) -> int:
        is_made[number].set()
        if number == 5:
            raise ValueError("the sixth")
        return number

    made = made_ahead(make, range(8), workers=2)
    for number in range(5):
        assert next(made) == number
        assert all(event.wait(10) for event in is_made[: number + 4])
    with pytest.raises(ValueError, match="the sixth"):
        next(made)


def test_loaded_photographs_have_the_exact_pixels_of_serving(tmp_path: Path) -> None:
    files = {
        "plain": encode(draw_photograph(2, seed=3)),
        "rgb": encode(draw_photograph(2, seed=3), icc_profile=matrix_profile(2.2)),
        "ink": encode(draw_photograph(2, seed=3).convert("CMYK"), icc_profile=cmyk_profile()),
    }
    photographs = []
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        photographs.append(CheckedPhotograph(tmp_path / name, "b", "", 0))
    rule, limits = ResizeRule(64, 72), ImageLimits()
    squares = load_squares(photographs, ("a", "b"), rule, limits)
    np.testing.assert_array_equal(squares.images, [decode_square(data, rule) for data in files.values()])
    whole = load_full_images(photographs, ("a", "b"), rule, limits)
    assert [image.shape for image in whole.images] == [(72, 96, 3)] * 3
    for image, data in zip(whole.images, files.values(), strict=True):
        np.testing.assert_array_equal(image, resize_shorter_side(decode_image(data), 72))
    assert (squares.images[0] != squares.images[1]).any()
    assert squares.class_indices.tolist() == [1, 1, 1]


def test_a_class_index_is_its_place_among_names(tmp_path: Path) -> None:
    names = ("a", "b", "c")
    for name in names:
        (tmp_path / name).write_bytes(encode(draw_photograph(0, seed=3)))
    photographs = [CheckedPhotograph(tmp_path / name, name, "", 0) for name in ("c", "a", "b")]
    for load in (load_full_images, load_squares):
        assert load(photographs, names, ResizeRule(), ImageLimits()).class_indices.tolist() == [2, 0, 1]


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _replace_by_text(path: Path) -> None:
    path.write_text("a placeholder")


def _replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (Path.unlink, "cannot be read any more (No such file or directory)"),
        (_replace_by_pipe, "cannot be read any more (it is no regular file)"),
        (_cut, "cut short"),
        (_empty, "no bytes"),
        (_replace_by_text, "text"),
    ],
)
def test_a_photograph_that_changes_after_the_check_is_named(
    spoil: Callable[[Path], object], why: str, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.jpg" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(encode(draw_photograph(2, seed=number)))
    photographs = [CheckedPhotograph(path, "b", "", 0) for path in paths]
    spoil(paths[1])
    with pytest.raises(DatasetError) as of_whole:
        load_full_images(photographs, ("a", "b"), ResizeRule(64, 72), ImageLimits())
    with pytest.raises(DatasetError) as of_squares:
        load_squares(photographs, ("a", "b"), ResizeRule(64, 72), ImageLimits())
    for message in (str(of_whole.value), str(of_squares.value)):
        assert message.startswith(f"{paths[1]} has changed since it was checked.")
        assert why in message
        assert message.endswith("Put it back, and give the command again.")


def test_want_of_memory_names_the_photograph_without_blame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: object) -> None:
        raise OutOfMemory("There is no memory.")

    (tmp_path / "1.jpg").write_bytes(b"x")
    monkeypatch.setattr("service.data.batches.decode_image", decode)
    with pytest.raises(OutOfMemory, match=r"1\.jpg: There is no memory"):
        load_full_images([CheckedPhotograph(tmp_path / "1.jpg", "a", "", 0)], ("a", "b"), ResizeRule(), ImageLimits())
