"""Gate of a new version. It goes live, or becomes a candidate that nothing serves."""

import math
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from service.data.dataset import Dataset
from service.engines.open_version import open_stored
from service.engines.wish import EngineWish
from service.errors import FlowersError
from service.evaluation.score import Answers, score_each
from service.evaluation.seen import find_learned
from service.store.versions import StoredVersion, find_served, list_stored
from service.training.run import Run

MIN_PHOTOGRAPHS = 100
"""Photographs that both versions must be new to. Fewer cannot tell a worse version from a better one."""

_SIGNIFICANCE = 0.05


@dataclass(frozen=True)
class Verdict:
    """Whether a version goes live, and the reason as sentences."""

    is_taken: bool
    why: str


def judge(answers: Answers, dataset: Dataset, run: Run, *, is_finished: bool, take: bool | None) -> Verdict:
    """Judge a new version by its answers to the test part, which it has not learned.

    The first version of a model goes live if its training was finished. A later one must not be significantly worse
    than the live one, by a paired test on photographs that neither has learned from. `take` overrules if it is given.
    """
    if take is not None:
        return Verdict(take, "--take was given." if take else "--no-take was given.")
    if not is_finished:
        return Verdict(False, "Its training was not finished. The same command goes on with it.")
    try:
        live = find_served(run.store, run.model).stored if list_stored(run.store, run.model) else None
        if live is None:
            return Verdict(True, f"It is the first version of {run.model} that can be served.")
        return _compare(answers, dataset, run, live)
    except FlowersError as error:
        return Verdict(False, f"It cannot be compared with the live version. {error}")


def _compare(answers: Answers, dataset: Dataset, run: Run, live: StoredVersion) -> Verdict:
    wish = EngineWish(engine="savedmodel", device="cpu")  # as the new version has answered
    with closing(open_stored(run.store, run.model, wish, live.version)) as opened:
        if set(opened.metadata.class_names) != set(dataset.class_names):
            return Verdict(False, f"Its classes are not those of the live version {live.version}.")
        learned = find_learned(opened)
        if learned is None:
            return Verdict(False, f"The live version {live.version} does not say what it has learned from.")
        scored = list(score_each(opened.engine, answers.paths, opened.rule, dataset.limits, is_learned=learned.include))
        names = opened.metadata.class_names
    rows = {
        place: one.probabilities
        for place, one in enumerate(scored)
        if one.probabilities is not None and not one.is_learned
    }
    if len(rows) < MIN_PHOTOGRAPHS:
        return Verdict(
            False,
            f"Only {len(rows)} test photographs are new to the live version {live.version}, too. At least "
            f"{MIN_PHOTOGRAPHS} are needed to compare the two.",
        )
    truth = [dataset.class_names[index] for index in answers.class_indices]
    ours = np.array([dataset.class_names[answers.probabilities[place].argmax()] == truth[place] for place in rows])
    others = np.array([names[row.argmax()] == truth[place] for place, row in rows.items()])
    figures = f"{ours.sum()} of {len(rows)} photographs right, where the live version {live.version} has {others.sum()}"
    if chance_of_worse(int((ours & ~others).sum()), int((others & ~ours).sum())) < _SIGNIFICANCE:
        return Verdict(False, f"It is significantly worse. It has {figures}.")
    return Verdict(True, f"It has {figures}. Neither has learned from these.")


def chance_of_worse(num_better: int, num_worse: int) -> float:
    """Return the probability of at least `num_worse` losses among all changes, if both versions were as good.

    `num_better` photographs are right with the new version alone, `num_worse` with the old one alone. Source: McNemar
    (1947), "Note on the sampling error of the difference between correlated proportions", in its exact form.
    """
    changes = num_better + num_worse
    return float(sum(math.comb(changes, losses) for losses in range(num_worse, changes + 1)) / 2**changes)
