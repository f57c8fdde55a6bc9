from dataclasses import dataclass, field

import pytest

from service.client.retries import Call, Retries
from service.errors import AnswerLost, ClientTimeout, InvalidParameter

pytestmark = pytest.mark.anyio
LOST = AnswerLost("lost")


@dataclass
class Time:
    """A clock that moves by sleeping only."""

    now: float = 100.0
    pauses: list[float] = field(default_factory=list)

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


def begin(time: Time, timeout_s: float = 60.0, random: float = 1.0, max_retries: int = 3) -> Call:
    retries = Retries(max_retries, 0.25, 4.0, lambda: random, time.clock, time.sleep)
    return Call(retries, timeout_s)


async def test_a_call_is_repeated_three_times_at_most() -> None:
    time = Time()
    call = begin(time)
    for _ in range(3):
        await call.pause(LOST)
    with pytest.raises(AnswerLost):
        await call.pause(LOST)
    assert time.pauses == [0.25, 0.5, 1.0]


async def test_the_jitter_is_full() -> None:
    time = Time()
    await begin(time, random=0.0).pause(LOST)
    await begin(time, random=0.5).pause(LOST)
    assert time.pauses == [0.0, 0.125]


async def test_pauses_stop_growing() -> None:
    time = Time()
    call = begin(time, timeout_s=86_400, max_retries=2000)
    for _ in range(2000):
        await call.pause(LOST)
    assert time.pauses[4:] == [4.0] * 1996


async def test_jitter_comes_on_top_of_retry_after() -> None:
    time = Time()
    await begin(time).pause(LOST, 5.0)
    assert time.pauses == [5.25]


@pytest.mark.parametrize("retry_after_s", [9.9, 10.0, 1e300])
async def test_no_pause_goes_beyond_the_deadline(retry_after_s: float) -> None:
    time = Time()
    with pytest.raises(AnswerLost):
        await begin(time, timeout_s=10).pause(LOST, retry_after_s)
    assert time.pauses == []


async def test_uncounted_retries_end_with_the_deadline() -> None:
    time = Time()
    call = begin(time, timeout_s=30)
    for _ in range(9):  # 0.25 to 4 s, which are 23.75 s together
        await call.pause(LOST, is_counted=False)
    await call.pause(LOST, is_counted=True)
    with pytest.raises(AnswerLost):
        await call.pause(LOST, is_counted=False)
    assert len(time.pauses) == 10
    assert time.now <= 130
    assert call.left_s() == pytest.approx(130 - time.now)


async def test_a_passed_deadline_is_said_in_seconds() -> None:
    time = Time()
    call = begin(time, timeout_s=2.5)
    await time.sleep(2.5)
    with pytest.raises(ClientTimeout, match=r"within 2\.5 s"):
        call.left_s()


@pytest.mark.parametrize("timeout_s", [0, -1, 86_401, float("inf"), float("nan")])
async def test_a_timeout_out_of_range_is_refused(timeout_s: float) -> None:
    with pytest.raises(InvalidParameter, match="timeout_s is"):
        begin(Time(), timeout_s)
