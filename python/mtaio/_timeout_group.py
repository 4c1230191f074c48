"""`TimeoutGroup`: tasks that end with their block, in time."""

import asyncio
import builtins
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from ._timeouts import Owned, bounded, close, message, open_scope, seconds
from .exceptions import TimeoutGroupError

__all__ = ("TimeoutGroup",)

T = TypeVar("T")


class TimeoutGroup:
    """Tasks that end with their block, each with its own time limit.

    ::

        async with TimeoutGroup() as group:
            group.create_task(fetch(a), timeout=5.0)
            group.create_task(fetch(b), timeout=3.0)
            first, second = await group.gather()

    Leaving waits for every task. A task that fails, its limit included, cancels
    the others and the block, and its error is raised on leaving: itself if it
    is the only one, else an `ExceptionGroup`. A cancellation from outside
    cancels them all and goes on as a cancellation.

    `asyncio.TaskGroup` is the model, but can't be the engine: it has no way to
    collect a failure (`return_exceptions`), and before 3.13 it loses an outside
    cancellation that meets one. The `asyncio.timeout` around the block cancels
    it for both reasons, and keeps the task's count of cancellations right.

    Args:
        timeout: Seconds for the block and all its tasks; None sets no limit.

    Raises:
        TimeoutGroupError: On leaving, the group's own limit passed.
        TypeError, ValueError: `timeout` is not a finite number >= 0.
        RuntimeError: Entered twice, or outside a task.
    """

    def __init__(self, timeout: float | None = None) -> None:
        self._timeout = seconds("timeout", timeout)
        self._scope: asyncio.Timeout | None = None
        # All of them for `gather`, in order; and those not known to have ended.
        self._tasks: list[asyncio.Task[Any]] = []
        self._open: set[asyncio.Task[Any]] = set()
        self._failures: list[BaseException] = []
        self._entered = self._aborting = self._collecting = self._leaving = False
        # Whether a failure ended the block, not the group's own limit.
        self._failed = False

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this TimeoutGroup was already entered")
        scope = open_scope(self._timeout)
        await scope.__aenter__()
        self._scope, self._entered = scope, True
        return self

    def create_task(
        self,
        coro: Coroutine[Any, Any, T],
        *,
        timeout: float | None = None,
        name: str | None = None,
    ) -> asyncio.Task[T]:
        """Start `coro` in this group, for `timeout` seconds at most. Never waits.

        Args:
            coro: A coroutine. One that is refused is closed.
            timeout: Seconds, finite and >= 0; None sets no limit of its own.
            name: The task's name.

        Raises:
            TimeoutGroupError: The group is not entered, was left, or is being
                cancelled.
            TypeError, ValueError: `coro` is no coroutine, or `timeout` no such
                number.
        """
        try:
            limit = seconds("timeout", timeout)
            if not asyncio.iscoroutine(coro):
                raise TypeError(f"coro must be a coroutine, got {coro!r:.80}")
            if not self._entered:
                raise TimeoutGroupError("the group is not entered: it takes no task")
            if self._aborting or (self._leaving and not self._open):
                raise TimeoutGroupError("the group has ended: it takes no task")
        except BaseException:
            close(coro)
            raise
        body = coro if limit is None else bounded(Owned(coro), limit)
        task = asyncio.get_running_loop().create_task(body, name=name)
        self._tasks.append(task)
        self._open.add(task)
        task.add_done_callback(self._ended)
        return task

    async def gather(self, *, return_exceptions: bool = False) -> list[Any]:
        """Wait for every task so far; return results in order of creation.

        Args:
            return_exceptions: Failures stand in the list in place of results
                and cancel nobody, from this call on.

        Raises:
            Exception: What a task raised, without `return_exceptions`.
        """
        self._collecting = self._collecting or return_exceptions
        return await asyncio.gather(*self._tasks, return_exceptions=return_exceptions)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._scope is None:
            raise RuntimeError("this TimeoutGroup is not entered")
        self._leaving = True
        if error is not None:
            self._abort()
        stopped = await self._join()
        leaving = error if error is not None else stopped
        del stopped
        try:
            await self._scope.__aexit__(
                type(leaving) if leaving else None, leaving, trace
            )
        except builtins.TimeoutError:
            if not self._failed:
                late = TimeoutGroupError(message(self._timeout))
                late.__cause__ = leaving
                self._failures.insert(0, late)
            leaving = None
        finally:
            # It holds the task, whose error may hold this group: no such cycle.
            self._scope = None
        try:
            self._surface(error, leaving)
        finally:
            del error, leaving

    async def _join(self) -> BaseException | None:
        """Wait until no task runs; return the cancellation that came meanwhile."""
        stopped = None
        try:
            while self._open:
                try:
                    await asyncio.wait(tuple(self._open))
                except asyncio.CancelledError as error:
                    # From 3.14 on the frame of `wait` holds the task it was
                    # called in, and that task this error: no such cycle.
                    stopped = error.with_traceback(None)
                    self._abort()
            return stopped
        finally:
            del stopped

    def _surface(
        self, error: BaseException | None, leaving: BaseException | None
    ) -> None:
        """Raise what leaving must raise, if it isn't simply the block's `error`."""
        failures = [f for f in self._failures if f is not error]
        if failures or error is not None or leaving is not None:
            # What is raised holds this group by its traceback: no cycle.
            self._failures, self._tasks = [], []
        if isinstance(leaving, asyncio.CancelledError):
            try:
                _report_lost(failures)
                if leaving is not error:
                    raise leaving
                return
            finally:
                del failures, error, leaving
        if error is not None and not isinstance(error, asyncio.CancelledError):
            failures.insert(0, error)
        try:
            if len(failures) > 1:
                raise BaseExceptionGroup(f"{len(failures)} failures", failures)
            if failures and failures[0] is not error:
                raise failures[0]
        finally:
            del failures, error, leaving

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._open.discard(task)
        if task.cancelled() or self._collecting:
            return
        error = task.exception()
        if error is not None:
            self._failures.append(error)
            if self._scope is not None and not self._scope.expired():
                self._failed = True
            self._abort()

    def _abort(self) -> None:
        scope = self._scope
        if scope and not (self._aborting or self._leaving or scope.expired()):
            # Cancel the block: it may wait for what will now never come.
            scope.reschedule(asyncio.get_running_loop().time())
        self._aborting = True
        for task in tuple(self._open):
            task.cancel()


def _report_lost(failures: list[BaseException]) -> None:
    """Tell the loop of failures that a cancellation of the caller hides."""
    for error in failures:
        asyncio.get_running_loop().call_exception_handler(
            {"message": "a task failed while being cancelled", "exception": error}
        )
