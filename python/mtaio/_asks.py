"""What was asked of an application from outside: to stop, and to hurry at it."""

import asyncio
from collections import deque
from collections.abc import Awaitable


class StopAsks:
    """The first ask is to stop, every later one to skip what is still waited for.

    `put` may be called from any thread and from a signal handler; all else, and
    the loop's looks at what was put by `take`, belong to the loop's thread.
    """

    def __init__(self) -> None:
        self._put: deque[None] = deque()
        self._first = asyncio.Event()
        self._later = asyncio.Event()

    def put(self) -> None:
        """Ask; heard at the next `take`."""
        self._put.append(None)

    def take(self) -> None:
        """Hear what was put."""
        while self._put:
            self._put.popleft()
            if self._first.is_set():
                self._later.set()
            self._first.set()

    def is_asked(self) -> bool:
        """Whether a stop was asked for."""
        return self._first.is_set()

    def stop(self) -> None:
        """Stop for a reason from inside, which hurries nobody."""
        self._first.set()

    async def wait(self) -> None:
        """Wait until a stop is asked for."""
        await self._first.wait()

    async def unless_hurried(
        self, wait: Awaitable[object], timeout: float | None = None
    ) -> None:
        """Await `wait`, for `timeout` seconds at most and until it is asked again."""
        waits = {
            asyncio.ensure_future(wait),
            asyncio.ensure_future(self._later.wait()),
        }
        try:
            await asyncio.wait(
                waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for each in waits:
                each.cancel()
