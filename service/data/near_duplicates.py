"""Perceptual hash, and groups of photographs that look nearly the same."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.imaging.pixels import Pixels

NEAR_DUPLICATE_BITS = 72
"""Near-duplicates differ in at most this many of 255 bits.

In flower_photos all 33 pairs up to 72 bits show one scene. The first pair of different flowers has 76. Photographs
saved at JPEG quality 40, halved, made grey, brightened by a quarter, or cropped by 3 % at each edge stay within 69.
"""

LARGE_GROUP = 5
"""Least size of a large group. The split gives 49 % of the pairs to training, but 84 % of the groups of five."""

_MOST_IN_LARGE_GROUPS = 0.5  # of a class: then every part still has at least half of what its fraction promises
_MOST_IN_ONE_GROUP = 0.2  # of a class: five such groups still fill three parts
_SIDE = 32  # pixels per side of the small grey image
_FREQUENCIES = 16  # lowest frequencies per axis that are kept
_WORDS = _FREQUENCIES * _FREQUENCIES // 64
_DISTANCES_AT_ONCE = 250_000  # of 8 bytes each, so that they fit into a core's cache: twice as fast
_MOST_COMPARED = 50_000  # photographs that one is compared with, which bounds the time

# The cosine transform in whole numbers: their sums are the same on every machine, and so is the split.
_DCT = np.rint(4096 * np.cos(np.pi * np.outer(np.arange(_FREQUENCIES), 2 * np.arange(_SIDE) + 1) / (2 * _SIDE))).astype(
    np.int64
)


def perceptual_hash(image: Pixels) -> int:
    """Return the signs of the lowest 16 x 16 cosine frequencies of the image, grey, at 32 x 32, as 256 bits.

    The image is uint8, shape (height, width, 3), RGB. The bit of its mean brightness is always 0.

    Source: Zauner 2010, "Implementation and Benchmarking of Perceptual Image Hash Functions" (DCT hash). It has 8 x 8
    frequencies, whose 64 bits do not tell similar from same photographs.
    """
    grey = Image.fromarray(image).convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
    coefficients = _DCT @ np.asarray(grey, dtype=np.int64) @ _DCT.T
    bits = (coefficients > 0).reshape(-1)
    bits[0] = False
    return int.from_bytes(np.packbits(bits).tobytes())


@dataclass(frozen=True)
class NearDuplicates:
    """Photographs that look nearly the same, as indices.

    Each of `groups` is of one class, and must stay in one part of the split. The groups `across` span classes.
    `sequences` are classes with more than half of their photographs in large groups, such as those of a fixed camera.
    Their groups of more than a fifth of the class are not in `groups`.
    """

    groups: tuple[tuple[int, ...], ...]
    across: tuple[tuple[int, ...], ...]
    sequences: tuple[str, ...]


def find_near_duplicates(labels: Sequence[str], hashes: Sequence[int]) -> NearDuplicates:
    """Find the near-duplicates of photographs by their labels and perceptual hashes."""
    sizes, in_large_groups = Counter(labels), Counter[str]()
    groups: list[tuple[int, ...]] = []
    across: list[tuple[int, ...]] = []
    for alike in near_duplicate_groups(hashes):
        if len({labels[index] for index in alike}) == 1:
            groups.append(tuple(alike))
        else:
            across.append(tuple(alike))
            groups += _divide_by_class(alike, labels, hashes)
    for group in groups:
        label = labels[group[0]]
        # A group of most of its class leaves too little for the other parts, however few it has.
        if len(group) >= LARGE_GROUP or len(group) > _MOST_IN_LARGE_GROUPS * sizes[label]:
            in_large_groups[label] += len(group)
    sequences = {label for label in sizes if in_large_groups[label] > _MOST_IN_LARGE_GROUPS * sizes[label]}

    def has_bound(group: tuple[int, ...]) -> bool:
        label = labels[group[0]]
        return label not in sequences or len(group) <= _MOST_IN_ONE_GROUP * sizes[label]

    return NearDuplicates(
        tuple(sorted(filter(has_bound, groups))),
        # Of a scene that a class shows again and again, photographs of all classes are alike.
        tuple(group for group in across if sequences.isdisjoint(labels[index] for index in group)),
        tuple(sorted(sequences)),
    )


def near_duplicate_groups(
    hashes: Sequence[int], *, most_compared: int = _MOST_COMPARED, distances_at_once: int = _DISTANCES_AT_ONCE
) -> list[list[int]]:
    """Group the indices of `hashes`, so that every near-duplicate of a member is a member.

    Each hash is compared with the `most_compared` that follow it, so the time is linear beyond. `distances_at_once`
    changes the time and the memory alone. A group is ascending. Groups are ordered by their first index.
    """
    words = np.ascontiguousarray(_as_words(hashes).T)
    parents = np.arange(len(hashes))
    rows = max(1, distances_at_once // max(1, min(len(hashes), most_compared)))
    for start in range(0, len(hashes), rows):
        block, others = words[:, start : start + rows], words[:, start : start + rows + most_compared]
        distances = np.zeros((block.shape[1], others.shape[1]), dtype=np.uint16)
        for word in range(_WORDS):
            distances += np.bitwise_count(block[word, :, None] ^ others[word])
        is_near = distances <= NEAR_DUPLICATE_BITS
        for row in np.flatnonzero(np.count_nonzero(is_near, axis=1) > 1):  # each is near itself
            _join(parents, start + np.flatnonzero(is_near[row]))
    groups: dict[int, list[int]] = {}
    for index, root in enumerate(_find_roots(parents, parents).tolist()):
        groups.setdefault(root, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def _divide_by_class(alike: Sequence[int], labels: Sequence[str], hashes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Divide a group by class. Without the other classes it may fall apart."""
    members: dict[str, list[int]] = {}
    for index in alike:
        members.setdefault(labels[index], []).append(index)
    for indices in members.values():
        for group in near_duplicate_groups([hashes[index] for index in indices]):
            yield tuple(indices[place] for place in group)


def _join(parents: NDArray[np.intp], members: NDArray[np.intp]) -> None:
    """Make `members` and their groups one group. Its root is its first index."""
    roots = _find_roots(parents, members)
    if roots.min() != roots.max():
        parents[members] = parents[roots] = roots.min()


def _find_roots(parents: NDArray[np.intp], members: NDArray[np.intp]) -> NDArray[np.intp]:
    roots = parents[members]
    while not np.array_equal(above := parents[roots], roots):
        roots = above
    return roots


def _as_words(hashes: Sequence[int]) -> NDArray[np.uint64]:
    data = b"".join(value.to_bytes(_WORDS * 8) for value in hashes)
    return np.frombuffer(data, dtype=np.uint64).reshape(-1, _WORDS)
