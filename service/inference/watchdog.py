"""Watchdog of the engine. Calls that hang or keep failing make the service not ready, and then end the process.

A thread that hangs in a runtime cannot be ended in another way.
"""

import asyncio
from collections.abc import Callable

import numpy as np
import structlog

from service.errors import EngineFailed, FlowersError, OutOfMemory, ServiceError
from service.inference.batcher import MicroBatcher
from service.inference.live_model import LiveModel

PROBE_AFTER_S = 1.0  # time without an answered call, after which the watchdog makes one
WEDGED_AFTER_S = 3.0
"""Time after which a call counts as hung. 32 images take a tenth of it. Readiness turns false within 5 s."""

GIVE_UP_AFTER_S = 15.0  # time of trouble after which the process ends
_TICK_S = 0.25
_PART = "engine"

log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Watchdog:
    """Watcher that blocks and clears `engine` in the live model's health. Without traffic it sends its own image.

    `on_fatal` is called with the reason after `GIVE_UP_AFTER_S` of trouble.
    """

    def __init__(self, live_model: LiveModel, batcher: MicroBatcher, on_fatal: Callable[[FlowersError], None]) -> None:
        self._live_model = live_model
        self._health = live_model.health
        self._batcher = batcher
        self._on_fatal = on_fatal
        self._probe: asyncio.Task[None] | None = None
        self._probe_began_at = 0.0
        self._probe_failed = False
        self._in_trouble_since: float | None = None
        self._watch: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start to watch, on the running event loop."""
        self._watch = asyncio.create_task(self._check_again_and_again())

    async def stop(self) -> None:
        """Stop watching. A call of its own that hangs is left behind."""
        tasks = [task for task in (self._watch, self._probe) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def check(self, now: float) -> None:
        """Judge the engine as of `now`, in seconds of the event loop, and send an image if there is no traffic."""
        if self._live_model.current is None:
            return
        reason = self._find_trouble(now)
        if reason is not None:
            self._report_trouble(reason, now)
        elif self._in_trouble_since is not None:
            log.info("engine recovered")
            self._in_trouble_since = None
            self._health.clear(_PART)
        is_stale = now - self._batcher.last_success_at >= PROBE_AFTER_S
        if (is_stale or self._batcher.is_failing) and (self._probe is None or self._probe.done()):
            self._probe_began_at = now
            self._probe = asyncio.get_running_loop().create_task(self._ask())

    def _find_trouble(self, now: float) -> str | None:
        longest_s = self._batcher.longest_call_s(now)
        if longest_s >= WEDGED_AFTER_S:
            return f"The engine has not answered for {longest_s:.0f} s."
        if not self._batcher.is_failing:
            self._probe_failed = False  # a call was answered since
        elif self._probe_failed:
            return "The engine fails on every image."
        is_asking = self._probe is not None and not self._probe.done()
        unanswered_s = now - max(self._probe_began_at, self._batcher.last_success_at)
        if is_asking and not longest_s and unanswered_s >= WEDGED_AFTER_S:
            return f"The watchdog's own image has not been answered for {unanswered_s:.0f} s."
        return None

    def _report_trouble(self, reason: str, now: float) -> None:
        if self._in_trouble_since is None:
            self._in_trouble_since = now
            log.error("engine in trouble", reason=reason)
        self._health.block(_PART, reason)
        if now - self._in_trouble_since >= GIVE_UP_AFTER_S:
            self._on_fatal(EngineFailed(f"{reason} This process ends. Start a new one in its place."))

    async def _ask(self) -> None:
        if (loaded := self._live_model.current) is None:
            return
        size = loaded.rule.image_size
        try:
            with loaded.in_use():
                await self._batcher.submit(np.zeros((size, size, 3), np.uint8), loaded)
            self._probe_failed = False
        except (EngineFailed, OutOfMemory) as error:
            self._probe_failed = True
            log.warning("watchdog prediction failed", reason=str(error), exc_info=error)
        except ServiceError:
            pass  # the queue is full, so there is traffic

    async def _check_again_and_again(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self.check(asyncio.get_running_loop().time())
