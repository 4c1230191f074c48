"""Time limits over `asyncio.timeout` and `asyncio.TaskGroup`.

`asyncio.timeout` already tells its own expiry from a cancellation that came
from outside, and takes back the cancellation it asked for. What is added here:
our `TimeoutError` (also the builtin's) with a message in seconds, raised for
this limit only, never for a `TimeoutError` of the code inside.
"""

import asyncio
import builtins
import inspect
import logging
import sys
from collections.abc import Awaitable, Callable, Coroutine
from types import CoroutineType, TracebackType
from typing import Any, Generic, Self, TypeVar

from . import _rust
from .exceptions import TimeoutError, TimeoutGroupError

__all__ = ("TimeoutContext", "TimeoutGroup", "TimeoutManager")

T = TypeVar("T")

_log = logging.getLogger("mtaio.resources")

if sys.version_info >= (3, 12):
    _open = asyncio.timeout
else:

    class _Scope(asyncio.Timeout):  # type: ignore[misc]  # final for checkers only
        """3.11 knows no expiry in a task that is already being cancelled."""

        async def __aenter__(self) -> Self:
            task = asyncio.current_task()
            self._cancels_before = task.cancelling() if task else 0
            await super().__aenter__()
            return self

        async def __aexit__(
            self,
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            await super().__aexit__(kind, error, trace)
            if self.expired() and isinstance(error, asyncio.CancelledError):
                task = asyncio.current_task()
                if task is not None and task.cancelling() <= self._cancels_before:
                    raise builtins.TimeoutError from error

    def _open(delay: float | None) -> asyncio.Timeout:
        now = asyncio.get_running_loop().time()
        return _Scope(None if delay is None else now + delay)


class TimeoutManager:
    """Runs awaitables under a time limit; holds the default one.

    Works entered or not: entering reserves nothing and leaving releases
    nothing, since each `run` ends what it began. May be shared by any number of
    tasks, loops and threads.

    Args:
        default_timeout: Seconds for every `run` without its own; finite and
            >= 0. None sets no limit.

    Raises:
        TypeError, ValueError: `default_timeout` is not such a number.
    """

    __slots__ = ("_default",)

    def __init__(self, default_timeout: float | None = None) -> None:
        self._default = _seconds("default_timeout", default_timeout)

    @property
    def default_timeout(self) -> float | None:
        """Seconds given to a `run` that names none; None is no limit."""
        return self._default

    def run(
        self, coro: Awaitable[T], *, timeout: float | None = None
    ) -> Coroutine[Any, Any, T]:
        """Await `coro` in the calling task, for `timeout` seconds at most.

        The arguments are checked by the call itself, before anything is
        awaited; a coroutine that is refused is closed.

        Args:
            coro: A coroutine or any other awaitable. It is cancelled at the limit.
            timeout: Seconds, finite and >= 0; None takes the default. With 0
                only what never has to wait succeeds.

        Returns:
            An awaitable of what `coro` returns.

        Raises:
            TimeoutError: The limit passed. A `TimeoutError` that `coro` raises
                by itself comes through as it is.
            TypeError, ValueError: `coro` can't be awaited, or `timeout` is no
                such number.
        """
        if timeout is None:
            limit = self._default
        else:
            try:
                limit = _rust.non_negative("timeout", timeout)
            except BaseException:
                _close(coro)
                raise
        # The identity test spares the common case a slow protocol check.
        if type(coro) is not CoroutineType and not inspect.isawaitable(coro):
            raise TypeError(f"coro must be awaitable, got {coro!r:.80}")
        return _bounded(_Owned(coro), limit)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def __repr__(self) -> str:
        return f"TimeoutManager(default_timeout={self._default})"


class _Owned(Generic[T]):
    """An awaitable given to us; if a coroutine, it will surely be closed.

    A call's own coroutine may be dropped before its first step, its task having
    been cancelled by then, and what it was given with it: that is no coroutine
    the user forgot to await, and must not be warned about as one.
    """

    __slots__ = ("awaitable",)

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self.awaitable = awaitable

    def __del__(self) -> None:
        _close(self.awaitable)


async def _bounded(owned: _Owned[T], limit: float | None) -> T:
    scope = _open(limit)
    await scope.__aenter__()
    try:
        result = await owned.awaitable
    except BaseException as error:
        # Only `__aexit__` itself raises for this limit, so a TimeoutError of
        # the body can't be mistaken for it.
        try:
            await scope.__aexit__(type(error), error, error.__traceback__)
        except builtins.TimeoutError:
            raise TimeoutError(_message(limit)) from error
        finally:
            # It holds the task, whose error holds this frame: no such cycle.
            del scope
        raise
    await scope.__aexit__(None, None, None)
    return result


class TimeoutContext:
    """A time limit on a block: `async with TimeoutContext(5.0) as limit:`.

    Limits nest: whichever passes first ends its own block. One context serves
    one task at a time and may be entered again once left.

    Args:
        timeout: Seconds for the block; finite and >= 0.
        on_timeout: Called without arguments once the block has been stopped by
            this limit, before the error is raised; awaited if it returns an
            awaitable. What it raises is logged.
        exception_type: What to raise, built from the message alone.
        error_message: Replaces the message, which names the limit in seconds.

    Raises:
        TimeoutError: On leaving, the limit passed (or `exception_type`).
        TypeError, ValueError: `timeout` is not such a number, `on_timeout` not
            callable, `exception_type` not an exception class.
        RuntimeError: Entered twice at once, or outside a task.
    """

    def __init__(
        self,
        timeout: float,
        *,
        on_timeout: Callable[[], Awaitable[object] | object] | None = None,
        exception_type: type[Exception] = TimeoutError,
        error_message: str | None = None,
    ) -> None:
        if on_timeout is not None and not callable(on_timeout):
            raise TypeError(f"on_timeout must be callable, got {on_timeout!r:.80}")
        if exception_type is not TimeoutError:
            _check_exception_type(exception_type)
        if error_message is not None:
            error_message = _rust.text("error_message", error_message)
        self._timeout = _rust.non_negative("timeout", timeout)
        self._on_timeout = on_timeout
        self._exception_type = exception_type
        self._error_message = error_message
        self._scope: asyncio.Timeout | None = None
        self._expired = False

    @property
    def timeout(self) -> float:
        """The limit in seconds."""
        return self._timeout

    def remaining(self) -> float | None:
        """Seconds left, 0.0 once passed; None while not entered. Never waits."""
        when = None if self._scope is None else self._scope.when()
        if when is None:
            return None
        return max(0.0, when - asyncio.get_running_loop().time())

    def has_expired(self) -> bool:
        """Whether the limit has passed, in this or the last use. Never waits."""
        return self._expired or self.remaining() == 0.0

    async def check(self) -> None:
        """Raise what the limit raises if it has passed; else return at once.

        For code that computes long without waiting, where nothing can stop it.
        """
        if self.has_expired():
            self._expired = True
            raise self._error()

    async def __aenter__(self) -> Self:
        if self._scope is not None:
            raise RuntimeError("this TimeoutContext is already entered")
        scope = _open(self._timeout)
        await scope.__aenter__()
        self._scope, self._expired = scope, False
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        scope, self._scope = self._scope, None
        if scope is None:
            raise RuntimeError("this TimeoutContext is not entered")
        try:
            await scope.__aexit__(kind, error, trace)
        except builtins.TimeoutError:
            self._expired = True
            await self._tell()
            raise self._error() from error

    def _error(self) -> Exception:
        return self._exception_type(self._error_message or _message(self._timeout))

    async def _tell(self) -> None:
        if self._on_timeout is None:
            return
        try:
            answer = self._on_timeout()
            if inspect.isawaitable(answer):
                await answer
        except Exception:  # noqa: BLE001  # the limit's error must still be raised
            _log.exception("on_timeout callback %r failed", self._on_timeout)


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
        self._timeout = _seconds("timeout", timeout)
        self._scope: asyncio.Timeout | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._failures: list[BaseException] = []
        self._entered = self._aborting = self._collecting = self._leaving = False

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this TimeoutGroup was already entered")
        scope = _open(self._timeout)
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
            limit = _seconds("timeout", timeout)
            if not asyncio.iscoroutine(coro):
                raise TypeError(f"coro must be a coroutine, got {coro!r:.80}")
            if not self._entered:
                raise TimeoutGroupError("the group is not entered: it takes no task")
            if self._aborting or (self._leaving and not self._running()):
                raise TimeoutGroupError("the group has ended: it takes no task")
        except BaseException:
            _close(coro)
            raise
        body = coro if limit is None else _bounded(_Owned(coro), limit)
        task = asyncio.get_running_loop().create_task(body, name=name)
        self._tasks.append(task)
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
            if not self._failures:
                raise TimeoutGroupError(_message(self._timeout)) from leaving
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
            while running := self._running():
                try:
                    await asyncio.wait(running)
                except asyncio.CancelledError as error:
                    stopped = error
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
                if leaving is not error:
                    raise leaving
                return
            finally:
                del failures, error, leaving
        if error is not None and not isinstance(error, asyncio.CancelledError):
            failures.insert(0, error)
        try:
            if len(failures) > 1:
                message = "several tasks of the group failed"
                raise BaseExceptionGroup(message, failures)
            if failures and failures[0] is not error:
                raise failures[0]
        finally:
            del failures, error, leaving

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or self._collecting:
            return
        error = task.exception()
        if error is not None:
            self._failures.append(error)
            self._abort()

    def _abort(self) -> None:
        scope = self._scope
        if scope and not (self._aborting or self._leaving or scope.expired()):
            # Cancel the block: it may wait for what will now never come.
            scope.reschedule(asyncio.get_running_loop().time())
        self._aborting = True
        for task in self._running():
            task.cancel()

    def _running(self) -> list[asyncio.Task[Any]]:
        return [task for task in self._tasks if not task.done()]


def _seconds(name: str, value: float | None) -> float | None:
    return None if value is None else _rust.non_negative(name, value)


def _check_exception_type(given: object) -> None:
    if not (isinstance(given, type) and issubclass(given, Exception)):
        accepted = "exception_type must be an Exception class"
        raise TypeError(f"{accepted}, got {given!r:.80}")


def _message(limit: float | None) -> str:
    return f"timed out after {limit:g} seconds"


def _close(coro: object) -> None:
    """Close `coro` if it is a coroutine; nobody else has it to await it."""
    # Nearly always true, and the check of the protocol is slow.
    if type(coro) is CoroutineType or isinstance(coro, Coroutine):
        coro.close()
