"""An event loop on which time passes only when nothing else is to be done.

`asyncio.sleep(3600)` returns at once and `loop.time()` has moved by an hour, so
tests of timing are exact and instant. Real file descriptors still work: while
any callback is ready or a descriptor is, time stands still.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: "VirtualClock") -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            # Only another thread or a descriptor can wake this loop.
            return super().select(5.0)
        self._clock.advance(timeout)
        return ready


class VirtualClock:
    """Seconds that move only by `advance`; pass it as `clock=`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A selector loop whose `time()` is `clock()`."""

    def __init__(self, clock: VirtualClock | None = None) -> None:
        self.clock = clock or VirtualClock()
        super().__init__(_Selector(self.clock))
        # Timers due within one resolution run together; keep them exact.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.clock()


def run(main: Coroutine[Any, Any, T], clock: VirtualClock | None = None) -> T:
    """`asyncio.run` on a `VirtualTimeLoop`."""
    with asyncio.Runner(loop_factory=lambda: VirtualTimeLoop(clock)) as runner:
        return runner.run(main)
