"""Hands alerts to callbacks: in order to each, none in another's way."""

import asyncio
import collections
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from .exceptions import AlertError

logger = logging.getLogger("mtaio.monitoring")

AlertCallback: TypeAlias = Callable[[str, float, float], Awaitable[object] | object]
Alert: TypeAlias = tuple[str, float, float]

# What waits for a callback that never returns must not fill the memory.
_MOST_WAITING = 1000


class Listener:
    """One callback and the alerts that wait for it. Of one event loop."""

    def __init__(self, callback: AlertCallback) -> None:
        if not callable(callback):
            raise TypeError(f"callback must be callable, got {callback!r}")
        self.callback = callback
        self.failures = 0
        self._waiting: collections.deque[Alert] = collections.deque()
        self._task: asyncio.Task[None] | None = None

    def notify(self, alert: Alert) -> None:
        """Call it soon, after the alerts before; never waits, never raises."""
        if len(self._waiting) >= _MOST_WAITING:
            self._report(alert, AlertError(f"{_MOST_WAITING} alerts wait already"))
            return
        self._waiting.append(alert)
        if self.delivery is None:
            self._task = asyncio.get_running_loop().create_task(self._deliver())

    async def _deliver(self) -> None:
        while self._waiting:
            alert = self._waiting.popleft()
            try:
                result = self.callback(*alert)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001 - theirs, whatever it is
                self._report(alert, error)

    def _report(self, alert: Alert, error: Exception) -> None:
        self.failures += 1
        metric, value, threshold = alert
        told = AlertError(f"callback failed for {metric} = {value} (at {threshold})")
        told.__cause__ = error
        logger.error("%s: %r", told, self.callback, exc_info=told)

    @property
    def delivery(self) -> asyncio.Task[None] | None:
        """The call under way on the running loop, if any.

        One of a loop that ended, or of the process this one was forked from, is
        under way no more.
        """
        task = self._task
        if task is None or task.done():
            return None
        return task if task.get_loop() is asyncio.get_running_loop() else None


async def finish(listeners: Iterable[Listener], within: float) -> None:
    """Wait for calls under way, that long in all; then cancel and report them."""
    asking = asyncio.current_task()  # may be a callback itself
    busy = {
        one.delivery: one.callback
        for one in listeners
        if one.delivery and one.delivery is not asking
    }
    if not busy:
        return
    _, late = await asyncio.wait(busy, timeout=within)
    for task in late:
        task.cancel()
        logger.error("alert callback %r did not end within %s s", busy[task], within)
    if late:
        await asyncio.wait(late, timeout=within)
