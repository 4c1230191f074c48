"""asyncio's own queues under 0.1.0's names, and a latch."""

import asyncio
import contextlib
import itertools
import math
from typing import Any, NamedTuple, TypeVar, cast

from . import _rust
from .resources import TimeoutManager

__all__ = ("AsyncQueue", "LIFOQueue", "Latch", "PriorityQueue")

T = TypeVar("T")


class AsyncQueue(asyncio.Queue[T]):
    """`asyncio.Queue`: first in, first out.

    Args:
        maxsize: How many items `put` lets in before it waits; 0 is no bound.

    Raises:
        TypeError, ValueError: `maxsize` is not an int >= 0.
    """

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(_rust.whole("maxsize", maxsize, 0))


class LIFOQueue(AsyncQueue[T], asyncio.LifoQueue[T]):
    """`asyncio.LifoQueue`: last in, first out. See `AsyncQueue`."""


class _Ranked(NamedTuple):
    """An item in the heap; `order` keeps equal priorities first in, first out."""

    priority: float
    order: int
    item: Any


class PriorityQueue(AsyncQueue[T], asyncio.PriorityQueue[T]):  # type: ignore[type-var]  # ranked
    """`asyncio.PriorityQueue` whose items need no order of their own.

    The lowest priority comes out first, equal ones as they went in. See
    `AsyncQueue`.
    """

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self._order = itertools.count()

    async def put(self, item: T, priority: float = 0.0) -> None:
        """Add `item`; wait while the queue is full.

        Raises:
            TypeError, ValueError: `priority` is not a finite number.
        """
        await super().put(self._ranked(item, priority))

    def put_nowait(self, item: T, priority: float = 0.0) -> None:
        """Add `item` at once, else raise `asyncio.QueueFull`.

        Raises:
            TypeError, ValueError: `priority` is not a finite number.
        """
        # `asyncio.Queue.put` ends here too, with what `put` has ranked.
        ranked = item if isinstance(item, _Ranked) else self._ranked(item, priority)
        super().put_nowait(ranked)

    def _ranked(self, item: T, priority: float) -> T:
        accepted = "priority must be a finite number"
        if isinstance(priority, bool) or not isinstance(priority, int | float):
            raise TypeError(f"{accepted}, got {priority!r:.80}")
        # An int is finite however large, too large for `isfinite` as well.
        if isinstance(priority, float) and not math.isfinite(priority):
            raise ValueError(f"{accepted}, got {priority!r}")
        return cast("T", _Ranked(priority, next(self._order), item))

    def _get(self) -> T:
        ranked = cast("_Ranked", super()._get())
        return cast("T", ranked.item)


class Latch:
    """Opens, once and for all, when it has been counted down to 0.

    Args:
        count: How many times; 0 is open from the start.

    Raises:
        TypeError, ValueError: `count` is not an int >= 0.
    """

    def __init__(self, count: int) -> None:
        self._count = _rust.whole("count", count, 0)
        self._open = asyncio.Event()
        if self._count == 0:
            self._open.set()

    async def count_down(self) -> None:
        """Count one down, and open at 0. Never waits; below 0 does nothing."""
        self.count_down_nowait()

    def count_down_nowait(self) -> None:
        """Do what `count_down` does, without `await`, on the same loop."""
        if self._count > 0:
            self._count -= 1
            if self._count == 0:
                self._open.set()

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until the latch is open.

        Args:
            timeout: Seconds, finite and >= 0; None waits for ever.

        Returns:
            False if it was still closed after `timeout` seconds.
        """
        if timeout is not None:
            timeout = _rust.non_negative("timeout", timeout)
        if not self._open.is_set():
            with contextlib.suppress(TimeoutError):
                await TimeoutManager().run(self._open.wait(), timeout=timeout)
        return self._open.is_set()

    def get_count(self) -> int:
        """How many times it must still be counted down."""
        return self._count
