import pytest

from service.training.plan import NETWORK_LEARNS, Budget, Plan, Step, describe_seconds


class Clock:
    """A clock that the test sets, in seconds."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def plan_of(*steps: Step) -> tuple[Plan, Clock]:
    clock = Clock()
    return Plan("Tiny learns the labels.", steps, clock), clock


DECODING = Step("decoding", 200, 0.05)
LEARNING = Step(NETWORK_LEARNS, 40, 2.0, "epoch")
EXPORTING = Step("exporting", seconds=20.0)


def test_the_time_left_is_of_all_steps() -> None:
    plan, _ = plan_of(DECODING, LEARNING, EXPORTING)
    assert plan.seconds_left() == pytest.approx(10 + 80 + 20)
    plan.move("decoding", 200)
    assert plan.seconds_left() == pytest.approx(80 + 20)
    plan.move(NETWORK_LEARNS, 10)
    assert plan.seconds_left() == pytest.approx(60 + 20)


def test_a_later_step_ends_those_before() -> None:
    plan, _ = plan_of(DECODING, LEARNING, EXPORTING)
    plan.move("exporting")
    assert plan.step is EXPORTING
    assert plan.seconds_left() == pytest.approx(20)


def test_time_passes_within_a_step_without_progress() -> None:
    plan, clock = plan_of(EXPORTING)
    plan.move("exporting")
    clock.now += 15
    assert plan.seconds_left() == pytest.approx(5)
    clock.now += 15
    assert plan.seconds_left() == 0


def test_the_measured_pace_replaces_the_planned_one() -> None:
    plan, clock = plan_of(LEARNING, EXPORTING)
    plan.move(NETWORK_LEARNS, 0.5)  # whatever it took to come here, such as a compilation, counts for nothing
    for epoch in range(1, 21):
        clock.now += 10
        plan.move(NETWORK_LEARNS, epoch)
    assert plan.seconds_left() == pytest.approx(20 * 10 + 20, rel=0.05)


def test_first_batches_alone_change_little() -> None:
    plan, clock = plan_of(LEARNING)
    plan.move(NETWORK_LEARNS, 0.01)
    clock.now += 1
    plan.move(NETWORK_LEARNS, 0.02)  # at this pace an epoch takes 100 s
    assert plan.seconds_left() == pytest.approx(40 * 3, rel=0.05)


def test_later_steps_of_a_name_share_its_pace() -> None:
    bigger = Step(NETWORK_LEARNS, 40, 3.0, "epoch", note="second network")
    plan, clock = plan_of(LEARNING, bigger)
    plan.move(NETWORK_LEARNS, 0)
    clock.now += 40 * 4 + 2  # twice as slow as planned, once the planned epoch is counted
    plan.move(NETWORK_LEARNS, 40)
    assert plan.step is LEARNING
    assert plan.seconds_left() == pytest.approx(40 * 6, rel=0.02)
    plan.move(NETWORK_LEARNS, 0.1)
    assert plan.step is bigger


def test_resumed_work_is_neither_counted_nor_measured() -> None:
    plan, clock = plan_of(
        Step(NETWORK_LEARNS, 40, 2.0, "epoch", num_done=40), Step(NETWORK_LEARNS, 40, 2.0, num_done=30)
    )
    assert plan.seconds_left() == pytest.approx(20)
    clock.now += 60
    plan.move(NETWORK_LEARNS, 30.1)
    assert plan.step.num_done == 30
    assert plan.seconds_left() == pytest.approx(9.9 * 2)


def test_an_unknown_pace_is_measured_on_the_way() -> None:
    plan, clock = plan_of(Step(NETWORK_LEARNS, 4, None, "epoch"))
    assert plan.seconds_left() is None
    assert list(plan.lines())[-1] == "The time is measured on the way."
    plan.move(NETWORK_LEARNS, 1)
    clock.now += 5
    plan.move(NETWORK_LEARNS, 2)
    assert plan.seconds_left() == pytest.approx(2 * 5)


def test_an_unplanned_name_changes_nothing() -> None:
    plan, _ = plan_of(DECODING, LEARNING)
    plan.move("calibrating")
    assert plan.step is DECODING
    assert plan.seconds_left() == pytest.approx(90)


def test_progress_counts_in_parts_of_its_own() -> None:
    plan, _ = plan_of(Step("teacher answers", 16, 10.0, "view"))
    plan.move("teacher answers", 500, 1000)
    assert plan.seconds_left() == pytest.approx(80)


def test_the_plan_is_printed_with_its_times() -> None:
    plan, _ = plan_of(
        DECODING, Step("teacher learns", 6, 30.0, "epoch", 6),
        Step(NETWORK_LEARNS, 320, 8.0, "epoch", 20, "first network"),
    )  # fmt: skip
    assert list(plan.lines()) == [
        "Plan: Tiny learns the labels.",
        " 1. decoding: about 10 s",
        " 2. teacher learns, 6 epochs, done before",
        " 3. network learns, first network, 320 epochs, 20 of them done before: about 40 min",
        "About 40 min in all",
    ]


def test_a_budget_counts_from_the_start_of_the_command() -> None:
    assert Budget(10, began=50.0).seconds_left(now=110.0) == pytest.approx(540)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "about 1 s"),
        (89, "about 89 s"),
        (100, "about 2 min"),
        (7200, "about 2 h 0 min"),
        (7290, "about 2 h 2 min"),
    ],
)
def test_durations_are_said_in_words(seconds: float, words: str) -> None:
    assert describe_seconds(seconds) == words
