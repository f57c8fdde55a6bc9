"""`split_photographs` and `split.json`: the same everywhere, nobody moves, near-duplicates never apart."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from service.data.check import CheckedPhotograph, DataCheck
from service.data.near_duplicates import NEAR_DUPLICATE_BITS
from service.data.parts import PARTS
from service.data.split import Split, choose_part, parse_split, split_photographs, split_to_json
from service.errors import DatasetError
from service.store.layout import SPLIT_FILE

FRACTIONS = (0.70, 0.15, 0.15)


def _photograph(label: str, number: int, perceptual_hash: int | None = None) -> CheckedPhotograph:
    digest = hashlib.sha256(f"{label}{number}".encode())
    # An unrelated photograph has an unrelated hash: two such are about 128 bits apart.
    hash_value = int.from_bytes(digest.digest()) if perceptual_hash is None else perceptual_hash
    return CheckedPhotograph(Path(f"/data/{label}/{number:04d}.jpg"), label, digest.hexdigest(), hash_value)


def _check(photographs: list[CheckedPhotograph]) -> DataCheck:
    ordered = sorted(photographs, key=lambda photograph: photograph.file)
    return DataCheck(tuple(sorted({photograph.label for photograph in ordered})), tuple(ordered), ())


def _with_near_duplicates(photographs_per_class: int, seed: int = 0) -> DataCheck:
    """Two classes in which some photographs resemble the one before: there are pairs and chains."""
    random = np.random.default_rng(seed)
    photographs: list[CheckedPhotograph] = []
    for label in ("daisy", "roses"):
        for number in range(photographs_per_class):
            photograph = _photograph(label, number)
            if number % 4 in (1, 2) and number % 3:
                flips = random.choice(256, NEAR_DUPLICATE_BITS // 2, replace=False).tolist()
                resembling = photographs[-1].perceptual_hash ^ sum(1 << bit for bit in flips)
                photograph = _photograph(label, number, resembling)
            photographs.append(photograph)
    return _check(photographs)


def _frames(label: str, names: Iterable[str], scene: int) -> list[CheckedPhotograph]:
    """Photographs of one scene, each some 45 bits from the others."""
    base = _photograph("scene", scene).perceptual_hash
    frames = []
    for number, name in enumerate(names):
        flips = np.flatnonzero(np.random.default_rng([scene, number]).random(256) < 0.1).tolist()
        photograph = _photograph(label, 1000 * (scene + 1) + number, base ^ sum(1 << bit for bit in flips))
        frames.append(replace(photograph, path=Path("/data", label, name)))
    return frames


def _part_of(split: Split) -> dict[str, str]:
    return {photograph.file: part for part in PARTS for photograph in split.photographs[part]}


@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 2**31 - 1))
def test_removing_photographs_moves_no_other_from_part_to_part(data: st.DataObject, seed: int) -> None:
    check = _with_near_duplicates(200)  # so many that no part lacks a class by chance
    removed = data.draw(st.sets(st.sampled_from(check.photographs), max_size=40))
    fewer = _check([photograph for photograph in check.photographs if photograph not in removed])
    before, after = _part_of(split_photographs(check, seed)), _part_of(split_photographs(fewer, seed))
    assert {file: before[file] for file in before.keys() & after.keys()} == {
        file: after[file] for file in before.keys() & after.keys()
    }


@settings(deadline=None)
@given(seed=st.integers(0, 2**31 - 1), shape=st.integers(0, 5))
def test_near_duplicates_never_lie_in_two_parts(seed: int, shape: int) -> None:
    check = _with_near_duplicates(60, seed=shape)
    try:
        split = split_photographs(check, seed)
    except DatasetError:
        assume(False)
    for first, second in combinations(PARTS, 2):
        for one in split.photographs[first]:
            for other in split.photographs[second]:
                assert (one.perceptual_hash ^ other.perceptual_hash).bit_count() > NEAR_DUPLICATE_BITS


def test_every_photograph_is_in_a_part_or_named() -> None:
    check = _with_near_duplicates(100)
    split = split_photographs(check, seed=3)
    named = [file for finding in split.set_aside for file in finding.files]
    assert named
    assert sorted([*_part_of(split), *named]) == [photograph.file for photograph in check.photographs]
    assert {finding.kind for finding in split.set_aside} == {"near-duplicates-apart"}


def _group_in(*parts: str) -> list[CheckedPhotograph]:
    """Near-duplicates whose own places with seed 0 are `parts`, in this order of names."""
    group: list[CheckedPhotograph] = []
    number = 5000
    for part in parts:
        while choose_part(0, _photograph("daisy", number).pixels_digest, FRACTIONS) != part:
            number += 1
        group.append(_photograph("daisy", number, perceptual_hash=1 << len(group)))
        number += 1
    return group


@pytest.mark.parametrize(
    ("places", "winner"),
    [
        (["train", "test"], "test"),
        (["validation", "test"], "test"),
        (["train", "validation"], "validation"),
        (["train", "train", "test"], "train"),
        (["test", "validation", "train", "validation"], "validation"),
        (["train", "train"], "train"),
    ],
)
def test_the_part_with_most_of_a_group_keeps_it(places: list[str], winner: str) -> None:
    group = _group_in(*places)
    check = _check([*_with_near_duplicates(60).photographs, *group])
    split = split_photographs(check, seed=0)
    part_of = _part_of(split)
    kept = [part_of.get(photograph.file) for photograph in group]
    assert kept == [winner if place == winner else None for place in places]
    first = next(photograph for photograph, part in zip(group, kept, strict=True) if part)
    lost = [finding for finding in split.set_aside if finding.files[0] in {photograph.file for photograph in group}]
    assert len(lost) == kept.count(None)
    assert all(finding.detail.endswith(f"the same as {first.file} in {winner}.") for finding in lost)


def test_the_place_of_a_photograph_never_changes() -> None:
    # Recorded once: another rule would move photographs that a model was trained on into its test part.
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(12)]
    places = " ".join(choose_part(7, digest, FRACTIONS) for digest in digests)
    assert places == "train train train train validation test train test train train train validation"


def test_each_class_keeps_the_fractions_within_chance() -> None:
    check = _check([_photograph(label, number) for label in ("daisy", "roses") for number in range(2000)])
    split = split_photographs(check, seed=0)
    for part, fraction in zip(PARTS, FRACTIONS, strict=True):
        for label in check.class_names:
            share = sum(photograph.label == label for photograph in split.photographs[part]) / 2000
            assert abs(share - fraction) < 4 * (fraction * (1 - fraction) / 2000) ** 0.5
    other = _part_of(split_photographs(check, seed=1))
    assert sum(part != other[file] for file, part in _part_of(split).items()) > 1000


@pytest.mark.parametrize("per_class", [3, 8, 20])
def test_every_part_has_every_small_class(per_class: int) -> None:
    labels = [f"species_{number:03d}" for number in range(40)]
    check = _check([_photograph(label, number) for label in labels for number in range(per_class)])
    split = split_photographs(check, seed=0)
    part_of = _part_of(split)
    of_class = {label: {part_of[one.file] for one in check.photographs if one.label == label} for label in labels}
    assert all(parts == set(PARTS) for parts in of_class.values())
    by_chance = {one.file: choose_part(0, one.pixels_digest, FRACTIONS) for one in check.photographs}
    moved = {file.split("/")[0] for file, part in part_of.items() if part != by_chance[file]}
    lacking = {
        label
        for label in labels
        if len({part for file, part in by_chance.items() if file.startswith(f"{label}/")}) < len(PARTS)
    }
    assert len(lacking) > 0
    assert moved <= lacking, "only these are cut at the fractions"
    assert _part_of(split_photographs(check, seed=1)) != part_of


def test_a_class_that_cannot_reach_every_part_is_refused() -> None:
    check = _check([*_with_near_duplicates(60).photographs, _photograph("tulips", 0), _photograph("tulips", 1)])
    with pytest.raises(DatasetError, match=r"Too few photographs of tulips \(2\) are usable\. .* Add photographs\."):
        split_photographs(check, seed=0)
    nothing = replace(check, class_names=(*check.class_names, "violets"))
    with pytest.raises(DatasetError):
        split_photographs(nothing, seed=0)


@pytest.mark.parametrize("fractions", [(0.7, 0.3, 0.0), (0.7, 0.2, 0.2), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)])
def test_fractions_that_make_no_split_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(DatasetError, match="three fractions above 0 with sum 1"):
        split_photographs(_with_near_duplicates(60), 0, fractions)


def test_order_and_place_of_data_change_no_byte() -> None:
    check = _check([_photograph(label, number) for label in ("daisy", "roses") for number in range(60)])
    moved = [replace(photograph, path=Path("/elsewhere") / photograph.file) for photograph in check.photographs[::-1]]
    text = split_to_json(split_photographs(check, seed=0))
    assert split_to_json(split_photographs(_check(moved), seed=0)) == text
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "652a2c9c565502a43f699503a5bdc57c7ffcbb6fe12f86880600f049c926d290"
    )
    document = json.loads(text)
    assert (document["seed"], document["fractions"]) == (0, [0.7, 0.15, 0.15])
    files = [entry["file"] for entry in document["photographs"]]
    assert files == sorted(files)
    assert text.count("\n") == len(files) + 4  # one photograph a line


def test_a_stored_list_gives_back_every_part() -> None:
    split = split_photographs(_with_near_duplicates(60), seed=3)
    stored = parse_split(split_to_json(split).encode(), "of a test")
    assert (stored.seed, stored.fractions) == (split.seed, split.fractions)
    for part in PARTS:
        assert [(entry.file, entry.pixels_digest) for entry in stored.part(part)] == [
            (photograph.file, photograph.pixels_digest) for photograph in split.photographs[part]
        ]


def test_a_class_of_one_scene_is_cut_by_name() -> None:
    names = [f"frame_{number}.jpg" for number in range(40)]  # without zeros: frame_10 follows frame_9
    photographs = [frame for label in ("bolt", "ring") for frame in _frames(label, names, scene=1)]
    splits = [split_photographs(_check(photographs), seed) for seed in (0, 1)]
    assert all(split.set_aside == () for split in splits)
    in_order = ["train"] * 28 + ["validation"] * 6 + ["test"] * 6
    for part_of in map(_part_of, splits):
        assert [part_of[f"{label}/{name}"] for label in ("bolt", "ring") for name in names] == in_order * 2


def test_a_class_of_one_scene_moves_no_other_class() -> None:
    ordinary = _with_near_duplicates(60)
    scene = _frames("bench", [f"{number}.jpg" for number in range(30)], scene=1)
    before, after = (
        _part_of(split_photographs(check, 3)) for check in (ordinary, _check([*ordinary.photographs, *scene]))
    )
    assert {file: part for file, part in after.items() if not file.startswith("bench/")} == before
    assert Counter(part for file, part in after.items() if file.startswith("bench/")) == {
        "train": 21, "validation": 4, "test": 5,
    }  # fmt: skip


def test_clips_mixed_by_their_names_stay_whole() -> None:
    clips = [_frames("bolt", [f"{number}_clip_{clip}.jpg" for number in range(10)], clip) for clip in range(10)]
    others = [_photograph("ring", number) for number in range(60)]
    split = split_photographs(_check([*chain.from_iterable(clips), *others]), seed=0)
    part_of = _part_of(split)
    parts = [{part_of[frame.file] for frame in clip} for clip in clips]
    assert parts == [{"train"}] * 7 + [{"validation"}] + [{"test"}] * 2
    assert split.set_aside == ()


@pytest.mark.parametrize("count", [3, 4, 5, 6, 7, 10, 11, 29])
def test_a_small_class_of_one_scene_reaches_every_part(count: int) -> None:
    scene = _frames("bench", [f"{number}.jpg" for number in range(count)], scene=1)
    split = split_photographs(_check([*_with_near_duplicates(60).photographs, *scene]), seed=0)
    assert sum(photograph.label == "bench" for part in PARTS for photograph in split.photographs[part]) == count


def test_a_scene_with_two_photographs_is_refused() -> None:
    scene = _frames("bench", ["1.jpg", "2.jpg"], scene=1)
    with pytest.raises(DatasetError, match=r"Too few photographs of bench \(2\) are usable\. .* Add photographs\."):
        split_photographs(_check([*_with_near_duplicates(60).photographs, *scene]), seed=0)


_ENTRY = {"file": "daisy/1.jpg", "pixels_digest": "0" * 64, "part": "train"}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"{", "is wrong at the document"),
        (b"\xff\xfe", "is wrong at the document"),
        ({"seed": 0, "fractions": [0.7, 0.15, 0.15]}, "is wrong at photographs"),
        (
            {"photographs": [_ENTRY | {"file": "../outside.jpg"}]},
            r"photographs\.0\.file .*<label>/<file name>",
        ),
        ({"photographs": [_ENTRY | {"file": "/etc/passwd"}]}, r"photographs\.0\.file"),
        ({"photographs": [_ENTRY | {"file": "a/../b"}]}, r"photographs\.0\.file"),
        ({"photographs": [_ENTRY | {"file": "a/.hidden"}]}, r"photographs\.0\.file"),
        ({"photographs": [_ENTRY | {"pixels_digest": "abc"}]}, r"photographs\.0\.pixels_digest"),
        ({"photographs": [_ENTRY | {"part": "training"}]}, r"photographs\.0\.part"),
        ({"photographs": [_ENTRY, _ENTRY]}, "names a file twice"),
    ],
)
def test_a_list_that_is_none_is_refused(document: bytes | dict[str, object], message: str) -> None:
    if isinstance(document, dict):
        document = json.dumps({"seed": 0, "fractions": [0.7, 0.15, 0.15]} | document).encode()
    with pytest.raises(DatasetError, match=message):
        parse_split(document, "of a test")


@pytest.mark.photographs
def test_the_shipped_split_list_fits_flower_photos(real_check: DataCheck) -> None:
    (path,) = (REPOSITORY / "model_store" / "flowers").glob(f"*/{SPLIT_FILE}")
    split = parse_split(path.read_bytes(), str(path))
    found = {photograph.file: photograph.pixels_digest for photograph in real_check.photographs}
    assert len(split.photographs) == 3_274
    for entry in split.photographs:
        assert found[entry.file] == entry.pixels_digest
        assert choose_part(split.seed, entry.pixels_digest, split.fractions) == entry.part
    again = split_photographs(real_check, split.seed, split.fractions)
    assert split_to_json(again).encode() == path.read_bytes()


@pytest.mark.photographs
def test_flower_photos_splits_with_few_set_aside(real_check: DataCheck) -> None:
    split = split_photographs(real_check, seed=0)
    assert len(split.set_aside) <= 20
    sizes = [len(split.photographs[part]) for part in PARTS]
    assert sum(sizes) + len(split.set_aside) == len(real_check.photographs)
    assert np.allclose(np.array(sizes) / sum(sizes), FRACTIONS, atol=0.03)
