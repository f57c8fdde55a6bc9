import numpy as np
import pytest
from support.drawing import draw_photograph, encode
from support.icc import matrix_profile

from service.data.check import pixels_digest
from service.evaluation.score import Answers
from service.evaluation.seen import LearnedPhotographs, count_apart, describe_seen
from service.imaging.decode import decode_image
from service.imaging.profiles import to_srgb

ANSWERS = Answers((), np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]], np.float32), np.array([0, 1, 1, 0]))


def test_a_learned_photograph_is_known_in_another_format() -> None:
    image = draw_photograph(0, seed=1)
    digest = pixels_digest(decode_image(encode(image, "PNG")).pixels)
    learned = LearnedPhotographs(frozenset([digest]), may_be_srgb=False)
    assert learned.include(decode_image(encode(image, "BMP")))
    assert not learned.include(decode_image(encode(draw_photograph(0, seed=2), "PNG")))


@pytest.mark.parametrize("may_be_srgb", [False, True])
def test_an_srgb_digest_counts_in_the_older_format(may_be_srgb: bool) -> None:
    image = draw_photograph(0, seed=1, size=(64, 48))
    tagged = decode_image(encode(image, "PNG", icc_profile=matrix_profile(2.2)))
    learned = LearnedPhotographs(frozenset([pixels_digest(to_srgb(tagged))]), may_be_srgb)
    assert learned.include(tagged) is may_be_srgb


def test_unseen_and_learned_answers_are_counted_apart() -> None:
    counted = count_apart(ANSWERS, np.array([False, False, True, False]))
    assert counted.to_dict() == {
        "unseen": {"num_photographs": 3, "num_correct": 2, "accuracy": 2 / 3},
        "learned": {"num_photographs": 1, "num_correct": 1, "accuracy": 1.0},
    }
    assert count_apart(ANSWERS, np.zeros(4, bool)).to_dict()["learned"] == {
        "num_photographs": 0, "num_correct": 0, "accuracy": None,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("is_learned", "said"),
    [
        (
            [True, False, False, False],
            "Unseen 2 of 3 right (66.7%, 95 % interval 20.8% to 93.9%). The figures below are theirs. "
            "The 1 learned photographs are counted apart, 1 of 1 right.",
        ),
        ([False] * 4, "Version 7 has learned from none of these photographs."),
        (
            [True] * 4,
            "WARNING: version 7 has learned from all 4 photographs. The accuracy says nothing about new ones.",
        ),
        (None, "So it is unknown which photographs it has learned from."),
    ],
)
def test_the_report_says_whose_accuracy_it_states(is_learned: list[bool] | None, said: str) -> None:
    counted = None if is_learned is None else count_apart(ANSWERS, np.array(is_learned))
    assert said in describe_seen(7, counted)
    assert bool(counted and counted.is_all_learned) is ("WARNING" in said)
