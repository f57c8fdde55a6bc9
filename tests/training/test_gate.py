"""The gate, with a live version that was really trained and exported."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.drawing import CLASS_NAMES, draw_photograph, encode
from support.versions import publish_example

from service.data.dataset import Dataset
from service.evaluation.score import Answers
from service.store.layout import METADATA_FILE, PINNED_FILE, SHA256SUMS_FILE, SPLIT_FILE
from service.store.metadata import read_metadata
from service.store.publish import publish_version
from service.training.gate import MIN_PHOTOGRAPHS, Verdict, chance_of_worse, judge
from service.training.run import Run


@pytest.fixture(scope="module")
def answers(dataset: Dataset) -> Answers:
    """Right answers to a hundred photographs, of sixty files. The live version is right on all of them, too."""
    photographs = [*dataset.check.photographs, *dataset.check.photographs][:MIN_PHOTOGRAPHS]
    truth = np.array([CLASS_NAMES.index(photograph.label) for photograph in photographs])
    return Answers(tuple(one.path for one in photographs), np.eye(5, dtype=np.float32)[truth], truth)


def wrong(answers: Answers, number: int) -> Answers:
    probabilities = answers.probabilities.copy()
    probabilities[:number] = np.roll(probabilities[:number], 1, axis=1)
    return replace(answers, probabilities=probabilities)


def judged(
    answers: Answers, dataset: Dataset, store: Path, *, is_finished: bool = True, take: bool | None = None
) -> Verdict:
    run = Run(store.parent / "run", "flowers", store, "cpu")
    return judge(answers, dataset, run, is_finished=is_finished, take=take)


def publish_like(version: Path, store: Path, changes: dict[str, Any] | None = None, *, without: str = "") -> Path:
    """Publish a copy of a version whose metadata differ, without one of its files; returns `store`."""
    with publish_version(store, "flowers") as draft:
        shutil.copytree(version, draft.folder, dirs_exist_ok=True)
        (draft.folder / SHA256SUMS_FILE).unlink()
        if without:
            (draft.folder / without).unlink()
        metadata = read_metadata(draft.folder / METADATA_FILE).model_copy(update=changes)
        (draft.folder / METADATA_FILE).write_text(metadata.model_dump_json(), encoding="utf-8")
    return store


@pytest.fixture
def live(tiny_version: Path) -> Path:
    return tiny_version / "flowers" / "1"


def test_the_first_version_goes_live_once_finished(dataset: Dataset, answers: Answers, tmp_path: Path) -> None:
    store = tmp_path / "store"
    assert judged(answers, dataset, store).is_taken
    unfinished = judged(answers, dataset, store, is_finished=False)
    assert unfinished == Verdict(False, "Its training was not finished. The same command goes on with it.")
    publish_example(store, is_candidate=True)
    assert judged(answers, dataset, store).why == "It is the first version of flowers that can be served."
    publish_example(store)
    (store / "flowers" / "2" / "saved_model.pb").write_bytes(b"damaged")
    assert judged(answers, dataset, store).is_taken


@pytest.mark.parametrize(("take", "why"), [(True, "--take was given."), (False, "--no-take was given.")])
def test_a_flag_overrules_the_gate(
    take: bool, why: str, dataset: Dataset, answers: Answers, tiny_version: Path
) -> None:
    poor = wrong(answers, 0 if not take else 100)
    assert judged(poor, dataset, tiny_version, is_finished=not take, take=take) == Verdict(take, why)


@pytest.mark.parametrize(("num_wrong", "is_taken"), [(0, True), (4, True), (5, False)])
def test_a_significantly_worse_version_becomes_a_candidate(
    num_wrong: int, is_taken: bool, dataset: Dataset, answers: Answers, tiny_version: Path
) -> None:
    verdict = judged(wrong(answers, num_wrong), dataset, tiny_version)
    assert verdict.is_taken is is_taken
    figures = f"It has {100 - num_wrong} of 100 photographs right, where the live version 1 has 100."
    assert figures in verdict.why
    assert ("significantly worse" in verdict.why) is not is_taken


def test_photographs_the_live_version_learned_do_not_count(
    dataset: Dataset, answers: Answers, tiny_version: Path, tmp_path: Path
) -> None:
    (tmp_path / "learned.jpg").write_bytes(encode(draw_photograph(0, 100)))
    (tmp_path / "broken.jpg").write_bytes(b"no photograph")
    for name in ("learned.jpg", "broken.jpg"):
        replaced = replace(answers, paths=(tmp_path / name, *answers.paths[1:]))
        verdict = judged(replaced, dataset, tiny_version)
        assert not verdict.is_taken
        assert verdict.why.startswith("Only 99 test photographs are new to the live version 1, too. At least 100")


@pytest.mark.parametrize(
    ("changes", "without", "why"),
    [
        ({"class_names": [*CLASS_NAMES[:4], "violets"]}, "", "Its classes are not those of the live version 1."),
        ({"split_digest": "5" * 64}, "", "The live version 1 does not say what it has learned from."),
        ({}, SPLIT_FILE, "The live version 1 does not say what it has learned from."),
    ],
    ids=["other classes", "another split list", "no split list"],
)
def test_versions_that_cannot_be_compared_become_candidates(
    changes: dict[str, Any], without: str, why: str, dataset: Dataset, answers: Answers, live: Path, tmp_path: Path
) -> None:
    store = publish_like(live, tmp_path / "store", changes, without=without)
    assert judged(answers, dataset, store) == Verdict(False, why)


def test_a_live_version_of_format_1_is_compared(dataset: Dataset, answers: Answers, live: Path, tmp_path: Path) -> None:
    """Its classes are the same ones in another order, which is that of its answers."""
    names = [*CLASS_NAMES[1:], CLASS_NAMES[0]]  # so that each of its answers is wrong
    older = {"format": 1, "photograph_digest": "decoded-or-srgb", "max_energy": None, "class_names": names}
    store = publish_like(live, tmp_path / "store", older)
    verdict = judged(wrong(answers, 50), dataset, store)
    assert verdict.is_taken
    assert "50 of 100 photographs right, where the live version 1 has 0." in verdict.why


@pytest.mark.parametrize("pinned", ["1", "7", "latest"], ids=["no network", "no version", "no number"])
def test_a_faulty_live_version_fails_no_training(
    pinned: str, dataset: Dataset, answers: Answers, tmp_path: Path
) -> None:
    publish_example(tmp_path / "store")  # its network cannot be loaded
    (tmp_path / "store" / "flowers" / PINNED_FILE).write_text(pinned)
    verdict = judged(answers, dataset, tmp_path / "store")
    assert not verdict.is_taken
    assert verdict.why.startswith("It cannot be compared with the live version. ")
    assert len(verdict.why) > 60


def test_the_pinned_version_is_the_live_one(dataset: Dataset, answers: Answers, live: Path, tmp_path: Path) -> None:
    store = publish_like(live, tmp_path / "store")
    publish_example(store)
    (store / "flowers" / PINNED_FILE).write_text("1")
    assert "the live version 1 has 100" in judged(answers, dataset, store).why


@pytest.mark.parametrize(
    ("num_better", "num_worse", "chance"),
    [(0, 0, 1), (0, 5, 1 / 32), (0, 4, 1 / 16), (1, 7, 9 / 256), (5, 0, 1), (10, 10, 0.588099), (300, 360, 0.010786)],
)
def test_the_chance_is_that_of_a_sign_test(num_better: int, num_worse: int, chance: float) -> None:
    assert chance_of_worse(num_better, num_worse) == pytest.approx(chance, abs=1e-5)
