"""Requests under way, so that a stop can wait for them."""

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType

from .exceptions import ApplicationError


class Inflight:
    """The requests between their `async with` in and out; of one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[Request, asyncio.Task[object] | None] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.total = 0

    def __len__(self) -> int:
        return sum(not request.nested for request in self._tasks)

    def enter(self, request: "Request") -> None:
        """Count a request in, worked on by the current task."""
        self._tasks[request] = asyncio.current_task()
        self._idle.clear()
        self.total += not request.nested

    def leave(self, request: "Request") -> None:
        """Count it out."""
        del self._tasks[request]
        if not self._tasks:
            self._idle.set()

    def __contains__(self, request: "Request") -> bool:
        return request in self._tasks

    async def wait_idle(self) -> None:
        """Wait until no request is under way."""
        await self._idle.wait()

    def cancel(self) -> int:
        """Cancel the tasks of all requests under way; how many requests there were."""
        for task in set(self._tasks.values()):
            if task is not None:
                task.cancel("the grace period is over")
        return len(self)


class Request:
    """One request: `async with` counts it in and out. Made by `Application.request`.

    One inside another, also in a task that the other started, is part of it: it
    is let in whenever the other was, and not counted again.
    """

    __slots__ = ("_accepts", "_inflight", "_outer", "nested")

    def __init__(self, inflight: Inflight, accepts: Callable[[], str | None]) -> None:
        self._inflight = inflight
        self._accepts = accepts
        self._outer: Request | None = None
        self.nested = False

    async def __aenter__(self) -> None:
        self._outer = _under_way(_current.get())
        self.nested = self._is_part_of_another()
        if not self.nested and (refusal := self._accepts()):
            raise ApplicationError(refusal)
        self._inflight.enter(self)
        _current.set(self)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _current.set(self._outer)
        self._inflight.leave(self)

    def _is_part_of_another(self) -> bool:
        """Of the same application; those of others may lie between."""
        found = False
        outer = self._outer
        while outer is not None:
            found |= outer in self._inflight
            # What has ended must not be kept by a long line of heirs.
            outer._outer = _under_way(outer._outer)
            outer = outer._outer
        return found


def _under_way(request: Request | None) -> Request | None:
    """The innermost that has not ended, from `request` outwards."""
    while request is not None and request not in request._inflight:
        request = request._outer
    return request


# The request that the current task works on, inherited by tasks it starts.
_current: ContextVar[Request | None] = ContextVar("mtaio_request", default=None)
