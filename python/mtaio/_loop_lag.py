"""Heartbeats of event loops, by which their lag is measured."""

import asyncio
import contextlib
import gc

from . import _rust

# Fifty timers a second; a block is measured to within these 20 ms. A beat costs
# a busy loop microseconds; an idle one it wakes, which the kernel makes under 1 %
# of a processor (see benches/monitoring.py).
BEAT_SECONDS = 0.02


class LoopWatch:
    """Beats on the running loop until closed, or until the loop ends."""

    def __init__(self, sampler: _rust.Sampler, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._sampler = sampler
        self._lag = _rust.LoopLag(name)
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        sampler.watch_loop(self._lag)
        self._beat()
        # `asyncio.run` cancels tasks before it closes the loop: the one moment
        # at which to say that a loop which no longer beats is not late.
        self._guard = self._loop.create_task(self._until_cancelled())

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop that beats."""
        return self._loop

    @property
    def alive(self) -> bool:
        """Whether it still beats."""
        return not self._closed and self._loop.is_running()

    def _beat(self) -> None:
        if not self._closed:
            self._timer = self._loop.call_later(BEAT_SECONDS, self._beat)
            self._lag.beat(BEAT_SECONDS)

    async def _until_cancelled(self) -> None:
        try:
            await self._loop.create_future()
        finally:
            self._end()

    def _end(self) -> None:
        if not self._closed:
            self._closed = True
            self._lag.rest()
            self._sampler.forget_loop(self._lag)

    def close(self) -> None:
        """Stop beating. Callable from any thread, and when the loop is gone."""
        self._end()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        self._guard.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def disown(self) -> None:
        """In a forked child: beat no more, and leave the parent's sampler be."""
        self._closed = True


class GcWatch:
    """Measures the pauses of the garbage collector from `open` to `close`."""

    def __init__(self) -> None:
        self.pauses = _rust.GcPauses()

    def open(self) -> None:
        """Be told of collections."""
        if self.pauses not in gc.callbacks:
            gc.callbacks.append(self.pauses)

    def close(self) -> None:
        """Be told no more."""
        with contextlib.suppress(ValueError):  # not open, or the list was cleared
            gc.callbacks.remove(self.pauses)
