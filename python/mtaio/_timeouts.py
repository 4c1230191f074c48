"""Time limits over `asyncio.timeout`.

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
from .exceptions import TimeoutError

__all__ = ("TimeoutContext", "TimeoutManager")

T = TypeVar("T")

_log = logging.getLogger("mtaio.resources")

if sys.version_info >= (3, 12):
    open_scope = asyncio.timeout
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

    def open_scope(delay: float | None) -> asyncio.Timeout:
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
        self._default = seconds("default_timeout", default_timeout)

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
                close(coro)
                raise
        # The identity test spares the common case a slow protocol check.
        if type(coro) is not CoroutineType and not inspect.isawaitable(coro):
            raise TypeError(f"coro must be awaitable, got {coro!r:.80}")
        return bounded(Owned(coro), limit)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def __repr__(self) -> str:
        return f"TimeoutManager(default_timeout={self._default})"


class Owned(Generic[T]):
    """An awaitable given to us; if a coroutine, it will surely be closed.

    A call's own coroutine may be dropped before its first step, its task having
    been cancelled by then, and what it was given with it: that is no coroutine
    the user forgot to await, and must not be warned about as one.
    """

    __slots__ = ("awaitable",)

    def __init__(self, awaitable: Awaitable[T]) -> None:
        self.awaitable = awaitable

    def __del__(self) -> None:
        close(self.awaitable)


async def bounded(owned: Owned[T], limit: float | None) -> T:
    if limit is None:
        return await owned.awaitable
    scope = open_scope(limit)
    await scope.__aenter__()
    try:
        result = await owned.awaitable
    except BaseException as error:
        # Only `__aexit__` itself raises for this limit, so a TimeoutError of
        # the body can't be mistaken for it.
        try:
            await scope.__aexit__(type(error), error, error.__traceback__)
        except builtins.TimeoutError:
            raise TimeoutError(message(limit)) from error
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
        scope = open_scope(self._timeout)
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
        return self._exception_type(self._error_message or message(self._timeout))

    async def _tell(self) -> None:
        if self._on_timeout is None:
            return
        try:
            answer = self._on_timeout()
            if inspect.isawaitable(answer):
                await answer
        except Exception:  # noqa: BLE001  # the limit's error must still be raised
            _log.exception("on_timeout callback %r failed", self._on_timeout)


def seconds(name: str, value: float | None) -> float | None:
    return None if value is None else _rust.non_negative(name, value)


def _check_exception_type(given: object) -> None:
    if not (isinstance(given, type) and issubclass(given, Exception)):
        accepted = "exception_type must be an Exception class"
        raise TypeError(f"{accepted}, got {given!r:.80}")


def message(limit: float | None) -> str:
    return f"timed out after {limit:g} seconds"


def close(coro: object) -> None:
    """Close `coro` if it is a coroutine; nobody else has it to await it."""
    # Nearly always true, and the check of the protocol is slow.
    if type(coro) is CoroutineType or isinstance(coro, Coroutine):
        coro.close()
