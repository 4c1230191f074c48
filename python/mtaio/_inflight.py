"""Requests under way, so that a stop can wait for them."""

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from .exceptions import ApplicationError

if TYPE_CHECKING:
    from collections.abc import Callable


class Inflight:
    """Counts requests between `enter` and `leave`; of one event loop."""

    def __init__(self) -> None:
        self._tasks: dict[object, asyncio.Task[object] | None] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.total = 0

    def __len__(self) -> int:
        return len(self._tasks)

    def enter(self) -> object:
        """Count one request in, worked on by the current task."""
        ticket = object()
        self._tasks[ticket] = asyncio.current_task()
        self._idle.clear()
        self.total += 1
        return ticket

    def leave(self, ticket: object) -> None:
        """Count it out."""
        del self._tasks[ticket]
        if not self._tasks:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until no request is under way."""
        await self._idle.wait()

    def cancel(self) -> int:
        """Cancel the tasks of all requests under way; how many requests there were."""
        for task in set(self._tasks.values()):
            if task is not None:
                task.cancel("the grace period is over")
        return len(self._tasks)


class Request:
    """One request: `async with` counts it in and out. Made by `Application.request`."""

    __slots__ = ("_accepts", "_inflight", "_ticket")

    def __init__(self, inflight: Inflight, accepts: "Callable[[], str | None]") -> None:
        self._inflight = inflight
        self._accepts = accepts
        self._ticket: object = None

    async def __aenter__(self) -> None:
        if refusal := self._accepts():
            raise ApplicationError(refusal)
        self._ticket = self._inflight.enter()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._inflight.leave(self._ticket)
