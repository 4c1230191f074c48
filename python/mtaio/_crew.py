"""The tasks of one call: all succeed, or all end.

The caller only waits here, so unlike in `asyncio.TaskGroup` nothing ever has to
cancel the caller's own task, and its count of cancellations is not touched.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from typing import Any, TypeVar

from .exceptions import ExecutionError

T = TypeVar("T")

# Workers share one slice of the loop's time between two of its turns.
_SLICE_SECONDS = 0.001
_STRAYED = "a task was cancelled by its own code, not by its caller"


class Crew:
    """Tasks that end together, and take turns on the loop.

    Belongs to the loop and task that made it. A worker sets `current` to itself
    before each item; if it still is afterwards, the item never gave up the loop,
    and the worker looks at the clock (`pause`). So items that wait pay nothing.
    """

    __slots__ = (
        "_parked",
        "_reason",
        "_ticking",
        "_waiter",
        "changed",
        "current",
        "deadline",
        "errors",
        "loop",
        "stopping",
        "tasks",
    )

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        # Called when a task has ended.
        self.changed: Callable[[], None] | None = None
        self.tasks: set[asyncio.Task[Any]] = set()
        self._waiter: asyncio.Future[None] | None = None
        self._parked: deque[asyncio.Future[None]] = deque()
        self._ticking = False
        self.current: object = None
        self.deadline = time.monotonic() + _SLICE_SECONDS
        self.errors: list[BaseException] = []
        # What the caller is told of tasks that were stopped, not failed.
        self._reason: str | None = None
        # Set once: no worker takes another item.
        self.stopping = False

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def __enter__(self) -> None:
        """Begin the body of one worker, inside its task."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """End it: a failure stops the others in this very turn of the loop."""
        if error is None or self.stopping:
            return
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is None or task.cancelling():
                return
            self.stop()
            raise ExecutionError(_STRAYED) from error
        self.stop()

    async def only(self, work: Coroutine[Any, Any, T]) -> T:
        """Run one task and return its result; else raise as `join` does."""
        task = self.start(work)
        try:
            await self.join()
            return task.result()
        finally:
            # An error holds this frame by its traceback: no cycle through it.
            del task

    def close(self, reason: str) -> None:
        """Cancel every task; the caller gets `reason` as an `ExecutionError`."""
        self._reason = reason
        self.stop()

    def stop(self) -> None:
        """Cancel every task that still runs; each call cancels once more."""
        self.stopping = True
        # Makes a worker that is never suspended look up, and see `stopping`.
        self.deadline = 0.0
        current = asyncio.current_task()
        for task in tuple(self.tasks):
            if task is not current:
                task.cancel()

    async def join(self) -> None:
        """Wait until no task runs, then raise what failed.

        Raises:
            CancelledError: The caller was cancelled, and so were the tasks.
            BaseException: The error of the only task that failed.
            BaseExceptionGroup: Several failed.
        """
        cancelled = await self._outlast()
        try:
            if cancelled is not None:
                self._report_lost()
                raise cancelled
        finally:
            del cancelled
        if self._reason is not None and not self.errors:
            raise ExecutionError(self._reason)
        self._surface()

    async def abandon(self) -> None:
        """Cancel every task and wait for their end; report what fails at that.

        For a caller that is already leaving by an error of its own.
        """
        self.stop()
        cancelled = await self._outlast()
        self._report_lost()
        try:
            if cancelled is not None:
                raise cancelled
        finally:
            del cancelled

    async def _outlast(self) -> asyncio.CancelledError | None:
        """Wait until no task runs; return the caller's cancellation meanwhile."""
        cancelled = None
        try:
            while self.tasks:
                self._waiter = self.loop.create_future()
                try:
                    await self._waiter
                except asyncio.CancelledError as error:
                    cancelled = error
                    self.stop()
            return cancelled
        finally:
            del cancelled

    def _surface(self) -> None:
        errors, self.errors = self.errors, []
        try:
            if len(errors) > 1:
                raise BaseExceptionGroup(f"{len(errors)} tasks failed", errors)
            if errors:
                raise errors[0]
        finally:
            del errors

    def _report_lost(self) -> None:
        for error in self.errors:
            self.loop.call_exception_handler(
                {"message": "a task failed while being cancelled", "exception": error}
            )
        self.errors.clear()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if task.cancelled():
            if not self.stopping:
                self.close(_STRAYED)
        elif (error := task.exception()) is not None:
            self.errors.append(error)
        if not self.tasks and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self.changed is not None:
            self.changed()

    async def pause(self) -> None:
        """Let the loop turn; return when it is this worker's time again.

        One worker a turn goes on, with a fresh slice: workers between two items
        are alike, so waking more would only cost turns.

        Raises:
            CancelledError: No item may be taken any more.
        """
        if self.stopping:
            raise asyncio.CancelledError
        place = self.loop.create_future()
        self._parked.append(place)
        if not self._ticking:
            self._ticking = True
            self.loop.call_soon(self._tick)
        await place
        if self.stopping:
            raise asyncio.CancelledError
        self.deadline = time.monotonic() + _SLICE_SECONDS

    def _tick(self) -> None:
        while self._parked:
            place = self._parked.popleft()
            if not place.done():
                place.set_result(None)
                break
        self._ticking = bool(self._parked)
        if self._ticking:
            self.loop.call_soon(self._tick)


async def close_all(crews: Collection[Crew], reason: str) -> None:
    """Close the crews and wait until no task of theirs runs but the caller.

    Cancelled meanwhile, it cancels them again, and still waits.
    """
    for crew in crews:
        crew.close(reason)
    cancelled = None
    current = asyncio.current_task()
    try:
        while others := {task for crew in crews for task in crew.tasks} - {current}:
            try:
                await asyncio.wait(others)
            except asyncio.CancelledError as error:
                cancelled = error
                for crew in crews:
                    crew.stop()
        if cancelled is not None:
            raise cancelled
    finally:
        del cancelled
