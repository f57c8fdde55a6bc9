from concurrent.futures import Future
from pathlib import Path

import pytest

from service.client.results import check_concurrency, list_images, start_in_order
from service.errors import InvalidParameter


def start(item: int) -> "Future[int]":
    """A started future that remembers its item, and is not done."""
    future: Future[int] = Future()
    future.add_done_callback(lambda _: None)
    future.item = item  # type: ignore[attr-defined]
    return future


@pytest.mark.parametrize(("count", "concurrency"), [(0, 3), (2, 3), (3, 3), (10, 3), (10, 1)])
def test_results_keep_the_order_of_the_items(count: int, concurrency: int) -> None:
    started = list(start_in_order(range(count), start, concurrency))
    assert [future.item for future in started] == list(range(count))  # type: ignore[attr-defined]


def test_an_item_is_taken_when_it_starts() -> None:
    items = iter(range(100))
    futures = start_in_order(items, start, 3)
    next(futures)
    next(futures)
    assert next(items) == 4


def test_closing_cancels_what_is_started() -> None:
    started: list[Future[int]] = []

    def note(item: int) -> "Future[int]":
        started.append(start(item))
        return started[-1]

    futures = start_in_order(range(10), note, 3)
    next(futures)
    next(futures)
    futures.close()
    assert [future.cancelled() for future in started] == [False, True, True, True]


@pytest.mark.parametrize("concurrency", [0, -1, 1025])
def test_a_concurrency_out_of_range_is_refused(concurrency: int) -> None:
    with pytest.raises(InvalidParameter, match="concurrency is"):
        check_concurrency(concurrency)
    check_concurrency(1024)


def test_images_of_a_folder_come_sorted(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/a.webp", ".hidden.jpg", "notes.txt", "c.jpg/inside.gif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert names == ["a/a.webp", "a/z.png", "b.JPG", "c.jpg/inside.gif"]


def test_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    for path in (tmp_path / "a.jpg", tmp_path / "missing"):
        with pytest.raises(InvalidParameter, match="is no folder"):
            list_images(path)
