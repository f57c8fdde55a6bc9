"""Rule of retries: exponential backoff with full jitter, within the deadline of a call.

Source: Brooker (2015), "Exponential Backoff And Jitter", AWS Architecture Blog.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from service.errors import ClientError, ClientTimeout, InvalidParameter

_MAX_TIMEOUT_S = 86_400.0
_MAX_DOUBLINGS = 16


@dataclass(frozen=True)
class Retries:
    """Rule of retries.

    Attributes:
        max_retries: Number of retries of one call. 0 means none.
        first_pause_s: Longest pause before the first retry, in seconds. It doubles with each retry.
        max_pause_s: Longest pause, in seconds. What Retry-After says comes on top.
        random: Source of numbers in [0, 1).
        clock: Source of seconds that only grow.
        sleep: Wait for some seconds.
    """

    max_retries: int = 3
    first_pause_s: float = 0.25
    max_pause_s: float = 4.0
    random: Callable[[], float] = field(default=random.random, repr=False)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    sleep: Callable[[float], Awaitable[None]] = field(default=asyncio.sleep, repr=False)


class Call:
    """One call with its deadline, which holds for all its tries together.

    Raises `InvalidParameter` if `timeout_s` is not above 0 and at most a day.
    """

    def __init__(self, retries: Retries, timeout_s: float) -> None:
        if not 0 < timeout_s <= _MAX_TIMEOUT_S:
            raise InvalidParameter(f"timeout_s is {timeout_s}. Give seconds above 0 and up to {_MAX_TIMEOUT_S:,.0f}.")
        self._retries = retries
        self._timeout_s = timeout_s
        self._ends_at = retries.clock() + timeout_s
        self._num_pauses = 0
        self._num_retries = 0

    def left_s(self) -> float:
        """Return the seconds that are left. Raises `ClientTimeout` if there are none."""
        left_s = self._ends_at - self._retries.clock()
        if left_s <= 0:
            raise self.timeout()
        return left_s

    def timeout(self) -> ClientTimeout:
        """Return the error of a deadline that has passed."""
        return ClientTimeout(
            f"The service gave no answer within {self._timeout_s:g} s. Send it again later, or raise timeout_s."
        )

    async def pause(self, error: ClientError, retry_after_s: float = 0.0, *, is_counted: bool = True) -> None:
        """Wait before the next try. Raises `error` if there is no retry left, or no time for it.

        A retry that is not counted has the deadline as its only limit.
        """
        if is_counted and self._num_retries == self._retries.max_retries:
            raise error
        longest_s = min(
            self._retries.max_pause_s, self._retries.first_pause_s * 2 ** min(self._num_pauses, _MAX_DOUBLINGS)
        )
        pause_s = retry_after_s + self._retries.random() * longest_s
        if pause_s >= self._ends_at - self._retries.clock():
            raise error
        self._num_pauses += 1
        self._num_retries += is_counted
        await self._retries.sleep(pause_s)
