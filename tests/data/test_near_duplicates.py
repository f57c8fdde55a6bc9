"""Near-duplicates: the hash that never changes, the groups and their bounds, and what the search costs."""

import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

from service.data.near_duplicates import (
    find_near_duplicates,
    near_duplicate_groups,
    perceptual_hash,
)


def _unrelated(count: int, seed: int = 0) -> list[int]:
    """Hashes that are about 128 bits apart."""
    random = np.random.default_rng(seed)
    return [int.from_bytes(random.bytes(32)) for _ in range(count)]


def _alike(base: int, count: int, seed: int = 0) -> list[int]:
    """Hashes that are about 25 bits from `base`, and 45 from each other."""
    random = np.random.default_rng(seed)
    return [base ^ _flips(np.flatnonzero(random.random(256) < 0.1)) for _ in range(count)]


def _flips(bits: Sequence[int] | np.ndarray[tuple[int, ...], np.dtype[np.intp]]) -> int:
    return sum(1 << int(bit) for bit in bits)


def test_the_perceptual_hash_of_an_image_never_changes() -> None:
    ramp = np.add.outer(np.arange(100) * 2, np.arange(120)).astype(np.uint8)
    image = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], axis=2)
    # Recorded once: another value would move photographs in and out of every split.
    assert f"{perceptual_hash(image):064x}" == "04c4dcdc4cce4acc68ccaccc2d4da54474cc74ae76ae32c6a2d4a2563344d74a"
    assert perceptual_hash(np.zeros((1, 1, 3), np.uint8)) == 0


@pytest.mark.parametrize("distances_at_once", [300, 250_000])
def test_the_search_finds_what_a_plain_comparison_finds(distances_at_once: int) -> None:
    random = np.random.default_rng(0)
    hashes = _unrelated(60)
    # The last but one joins two groups that were apart: 20 with 61, and 39 with 62.
    for base, distance in ((0, 0), (20, 1), (39, 72), (57, 73)):
        hashes.append(hashes[base] ^ _flips(random.choice(256, distance, replace=False)))
    assert near_duplicate_groups(hashes, distances_at_once=distances_at_once) == [[0, 60], [20, 61], [39, 62]]
    apart = np.flatnonzero([(hashes[61] ^ hashes[62]) >> bit & 1 for bit in range(256)])
    for count in range(60, len(apart), 60):  # steps of 60 bits from one to the other
        hashes.append(hashes[61] ^ _flips(apart[:count]))
    assert near_duplicate_groups(hashes, distances_at_once=distances_at_once) == [
        [0, 60],
        [20, 39, 61, 62, *range(64, len(hashes))],
    ]
    assert near_duplicate_groups([]) == near_duplicate_groups([1]) == []


def test_groups_never_span_two_classes() -> None:
    one, other = _unrelated(2)
    hashes = [*_alike(one, 3), *_alike(other, 2), *_unrelated(20, seed=1), *_alike(one, 3, seed=1), *_unrelated(20, 2)]
    found = find_near_duplicates(["a"] * 25 + ["b"] * 23, hashes)
    assert found.groups == ((0, 1, 2), (3, 4), (25, 26, 27))
    assert found.across == ((0, 1, 2, 25, 26, 27),)
    assert found.sequences == ()


def test_a_group_joined_by_another_class_falls_apart() -> None:
    steps = [0, _flips(range(60)), _flips(range(120))]
    found = find_near_duplicates(
        ["a"] * 12 + ["b"] * 11, [steps[0], steps[2], *_unrelated(10), steps[1], *_unrelated(10, 1)]
    )
    assert found.groups == ()
    assert found.across == ((0, 1, 12),)


@pytest.mark.parametrize(
    ("group_sizes", "num_others", "is_sequence", "kept_sizes"),
    [
        ([100], 0, True, []),  # one scene
        ([20] * 5, 0, True, [20] * 5),  # five clips: each fits into a part
        ([25] * 4, 0, True, []),
        ([10] * 10, 0, True, [10] * 10),  # bursts
        ([51], 49, True, []),
        ([50], 50, False, [50]),  # the others suffice for every part
        ([2] * 50, 0, False, [2] * 50),  # each with a copy: the vote serves every part
        ([4] * 25, 0, False, [4] * 25),
        ([5] * 11, 45, True, [5] * 11),
        ([4], 0, True, []),  # few, but most of the class
        ([2], 2, False, [2]),
    ],
)
def test_a_class_mostly_in_large_groups_is_a_sequence(
    group_sizes: list[int], num_others: int, is_sequence: bool, kept_sizes: list[int]
) -> None:
    hashes = _unrelated(num_others)
    for number, (base, size) in enumerate(zip(_unrelated(len(group_sizes), seed=1), group_sizes, strict=True)):
        hashes += _alike(base, size, seed=number)
    others = _unrelated(40, seed=2)
    found = find_near_duplicates(["a"] * len(hashes) + ["b"] * 40, [*hashes, *others])
    assert found.sequences == (("a",) if is_sequence else ())
    assert [len(group) for group in found.groups] == kept_sizes


def test_one_scene_in_all_classes_leaves_no_group() -> None:
    labels = [label for label in "abc" for _ in range(30)]
    found = find_near_duplicates(labels, _alike(0, 90))
    assert (found.groups, found.across, found.sequences) == ((), (), ("a", "b", "c"))


def test_the_search_of_alike_photographs_takes_little_memory() -> None:
    hashes = _alike(0, 4000)
    tracemalloc.start()
    try:
        assert near_duplicate_groups(hashes) == [list(range(4000))]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16e6  # a list of the pairs would take 500 MB


def test_a_photograph_has_a_bounded_number_of_comparisons() -> None:
    hashes = _unrelated(400)
    hashes[150], hashes[399] = hashes[50], hashes[0]
    assert near_duplicate_groups(hashes, most_compared=100, distances_at_once=1000) == [[50, 150]]  # rows of ten
