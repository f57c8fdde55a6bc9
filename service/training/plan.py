"""Plan of a training. It knows the steps, the one at work, and the time left over all of them."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

NETWORK_LEARNS = "network learns"
"""Name of a step whose units are the epochs of an observer's `step` and `epoch`."""


@dataclass(frozen=True)
class Step:
    """Step of a plan.

    `name` is that of the observer's `stage` or `progress`, or NETWORK_LEARNS. `num_units` are its epochs, views or
    whatever its `unit` says. An empty `unit` leaves the number unsaid. `seconds` are those of one unit on this machine,
    or None if they are unknown. `num_done` units are done from before. `note` tells steps of one name apart.
    """

    name: str
    num_units: float = 1
    seconds: float | None = None
    unit: str = ""
    num_done: float = 0
    note: str = ""


@dataclass(frozen=True)
class Budget:
    """Time that a command may take, in minutes since `began`, in seconds of `time.monotonic`."""

    minutes: float
    began: float

    def seconds_left(self, now: float) -> float:
        """Return the seconds left at `now`. They are negative after the end."""
        return self.began + 60 * self.minutes - now


class Plan:
    """Steps of a training in order, and the time left.

    The pace of the step at work is measured, and so is that of later steps with its name. The planned pace weighs as
    much as one unit, or as a twentieth of the step if that is less.

    Args:
        title: Sentences that say which network is trained, and why.
        steps: Steps in order. Several may have one name.
        clock: Function that returns the time in seconds.

    Example:
        plan = Plan("transfer. It is the default for your own classes.", [
            Step("decoding", num_units=300, seconds=0.01),
            Step("last layer learns", num_units=40, seconds=1.5, unit="epoch"),
        ])
        plan.move("decoding", 300)             # all 300 units are done
        plan.move("last layer learns", 20)
        plan.seconds_left()                    # about 30.0
    """

    def __init__(self, title: str, steps: Sequence[Step], clock: Callable[[], float] = time.monotonic) -> None:
        self.title, self.steps, self._clock = title, tuple(steps), clock
        self._done = [step.num_done for step in self.steps]
        self._at = 0
        self._begun: tuple[float, float] | None = None  # time and units done at the first move of the step at work
        self._moved = clock()
        self._measured: dict[str, tuple[float, float | None]] = {}  # of a name: measured and planned pace

    @property
    def place(self) -> int:
        """Number of steps before the one at work."""
        return self._at

    @property
    def step(self) -> Step:
        """The step at work."""
        return self.steps[self._at]

    def move(self, name: str, done: float = 0, total: float | None = None) -> None:
        """Take note that the step of this name has `done` of `total` parts. Without `total`, they are its units.

        Steps before it are done. If `done` is less than before, the next step of this name is at work. A name that is
        not in the plan changes nothing.
        """
        for at in range(self._at, len(self.steps)):
            step, before = self.steps[at], self._done[at]
            units = done if total is None else done * step.num_units / total
            is_here = at == self._at and units == before
            if step.name == name and (is_here or (before <= units and before < step.num_units)):
                self._move_to(at, min(units, step.num_units))
                return

    def _move_to(self, at: int, units: float) -> None:
        now, step = self._clock(), self.steps[at]
        if at != self._at:
            self._done[self._at : at] = [one.num_units for one in self.steps[self._at : at]]
            self._at, self._begun = at, None
        if self._begun is None:
            self._begun = now, units
        elapsed, num_measured = now - self._begun[0], units - self._begun[1]
        if num_measured > 0:
            weight = 0.0 if step.seconds is None else min(1.0, step.num_units / 20)
            pace = (elapsed + weight * (step.seconds or 0.0)) / (num_measured + weight)
            self._measured[step.name] = pace, step.seconds
        self._done[at], self._moved = units, now

    def seconds_left(self) -> float | None:
        """Return the seconds left over all steps, or None while the pace of one of them is unknown."""
        left = [self._seconds_left(at) for at in range(self._at, len(self.steps))]
        since_move = self._clock() - self._moved
        known = [seconds for seconds in left if seconds is not None]
        return max(0.0, known[0] - since_move) + sum(known[1:]) if len(known) == len(left) else None

    def _seconds_left(self, at: int) -> float | None:
        step, num_left = self.steps[at], self.steps[at].num_units - self._done[at]
        if num_left <= 0:
            return 0.0
        pace = step.seconds
        if step.name in self._measured:
            measured, planned = self._measured[step.name]
            pace = measured * step.seconds / planned if step.seconds and planned else measured
        return None if pace is None else num_left * pace

    def lines(self) -> Iterator[str]:
        """Yield the plan as text: the title, a line for each step, and the time of all."""
        yield f"Plan: {self.title}"
        for number, step in enumerate(self.steps, start=1):
            parts = [f"{number:2}. {step.name}", step.note]
            if step.unit:
                parts.append(f"{step.num_units:,.0f} {step.unit}{'' if step.num_units == 1 else 's'}")
            if step.num_done:
                is_whole = step.num_done == step.num_units
                parts.append("done before" if is_whole else f"{step.num_done:,.0f} of them done before")
            left = self._seconds_left(number - 1)
            yield ", ".join(filter(None, parts)) + (f": {describe_seconds(left)}" if left else "")
        left = self.seconds_left()
        yield "The time is measured on the way." if left is None else f"{describe_seconds(left)} in all".capitalize()


def describe_seconds(seconds: float) -> str:
    """Return a duration in words, such as "about 12 min"."""
    if seconds < 90:
        return f"about {math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 90 else f"about {minutes // 60} h {minutes % 60} min"
