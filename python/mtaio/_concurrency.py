"""`ConcurrencyLimiter`: so many at once. `ResourceLimiter`: that, and a rate."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, overload

from . import _rust
from ._rate import RateLimiter, check_async, check_made
from ._timeouts import open_scope
from ._waiting import Lanes, LoopTimer
from .exceptions import ResourceTimeoutError

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ConcurrencyLimiterStats:
    """What a concurrency limiter does now and did since it was made.

    Attributes:
        limit: How many may hold a permit at once.
        in_use: Permits taken now.
        waiting: Callers that wait now.
        waited: Seconds waited by all callers that were granted, together.
    """

    limit: int
    in_use: int
    waiting: int
    waited: float


def _limited(
    context: AbstractAsyncContextManager[None], func: Callable[P, Awaitable[T]]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """`func`, each call inside `context`, which can be entered many times."""
    check_async(func)

    @functools.wraps(func)
    async def limited(*args: P.args, **kwargs: P.kwargs) -> T:
        async with context:
            return await func(*args, **kwargs)

    return limited


class Acquisition:
    """What `ConcurrencyLimiter.acquire()` returns: await it, or `async with` it.

    Nothing is taken before that. After `await`, call `release()` of the limiter;
    `async with` does so itself.
    """

    __slots__ = ("_limiter", "_timeout")

    def __init__(self, limiter: "ConcurrencyLimiter", timeout: float | None) -> None:
        self._limiter = limiter
        self._timeout = timeout

    def __await__(self) -> Generator[Any, Any, None]:
        return self.__aenter__().__await__()

    def __aenter__(self) -> Awaitable[None]:
        if self._timeout is None:
            return self._limiter.__aenter__()
        return self._within(self._timeout)

    def __aexit__(self, *exc: object) -> Awaitable[None]:
        return self._limiter.__aexit__(*exc)

    async def _within(self, timeout: float) -> None:
        try:
            async with open_scope(timeout):
                await self._limiter.__aenter__()
        except TimeoutError as error:
            counts = self._limiter.stats()
            raise ResourceTimeoutError(
                f"no permit in {timeout} s: {counts.in_use} of {counts.limit} in use,"
                f" {counts.waiting} waiting"
            ) from error


class ConcurrencyLimiter(_rust.Permits):
    """At most `limit` callers at once, first come, first served.

    The permits are shared by all threads and event loops; the counts are exact.
    A caller cancelled while it waits, at any instant, loses none.

    In a forked child all permits are free: those who hold them, or wait, are its
    parent's. A permit taken before the fork is not the child's to release.

    Args:
        limit: Permits, 1 or more.

    Raises:
        ValueError: `limit` is below 1.
        TypeError: `limit` is not an int.

    Example:
        limiter = ConcurrencyLimiter(limit=50)
        async with limiter: ...
        async with limiter.acquire(timeout=2.0): ...
    """

    __slots__ = ("_lanes",)

    def __init__(self, limit: int) -> None:
        check_made(self, self._counts()[0], limit)
        self._lanes = Lanes(self, LoopTimer, after_fork=self._free_all)

    def acquire(self, *, timeout: float | None = None) -> Acquisition:
        """A permit: `async with limiter.acquire():`, or await it and `release()`.

        Args:
            timeout: Longest wait in seconds, 0 or more; by default no limit.

        Raises:
            ResourceTimeoutError: On entering, if `timeout` passed without one.
            ValueError: `timeout` is negative or not finite.
        """
        if timeout is not None:
            timeout = _rust.non_negative("timeout", timeout)
        return Acquisition(self, timeout)

    def stats(self) -> ConcurrencyLimiterStats:
        """The counts, all of one moment. Never waits; any thread."""
        return ConcurrencyLimiterStats(*self._counts())

    def limit(
        self, func: Callable[P, Awaitable[T]], /
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        """Decorate an async function: each call holds a permit while it runs.

        Name, signature and docstring stay.

        Raises:
            TypeError: What is decorated is not callable, or an async generator.
        """
        return _limited(self, func)

    def _wait(self) -> Coroutine[Any, Any, None]:
        """Called when no permit is free at once."""
        return self._lanes.wait(self._join, self._refund)

    def _tend(self) -> None:
        """Called by `release` when someone waits for the permit."""
        self._lanes.tend()


class ResourceLimiter:
    """A rate and a number at once, together: either may be left out.

    A caller first waits for a permit, then for its tokens, so that what starts
    keeps to the rate however long permits were waited for.

    Args:
        rate: Tokens per second; see `RateLimiter`. None: no limit.
        concurrency: Permits; see `ConcurrencyLimiter`. None: no limit.
        burst: Tokens that may be taken at once; by default those of one second.

    Raises:
        ValueError: An argument is out of range, both limits are None, or `burst`
            is given without `rate`.
        TypeError: An argument is not a number.
    """

    __slots__ = ("__weakref__", "_concurrency", "_rate")

    def __init__(
        self,
        rate: float | None = None,
        concurrency: int | None = None,
        *,
        burst: int | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if rate is None and concurrency is None:
            raise ValueError("rate or concurrency must be given, got None for both")
        if rate is None and burst is not None:
            raise ValueError(f"burst must be None without a rate, got {burst!r}")
        self._rate = None if rate is None else RateLimiter(rate, burst, clock=clock)
        self._concurrency = (
            None if concurrency is None else ConcurrencyLimiter(concurrency)
        )

    @property
    def rate_limiter(self) -> RateLimiter | None:
        """The rate's half."""
        return self._rate

    @property
    def concurrency_limiter(self) -> ConcurrencyLimiter | None:
        """The concurrency's half."""
        return self._concurrency

    def acquire(self, tokens: int = 1, *, timeout: float | None = None) -> "Holding":
        """For `async with`: a permit while it lasts, and `tokens` spent.

        Args:
            tokens: Spent from the rate and not given back, 1 to `burst`.
            timeout: Longest wait in seconds for both together; by default no
                limit.

        Raises:
            ResourceLimitError: At once, if `tokens` is above the burst.
            ResourceTimeoutError: On entering, if no permit was free in time.
            RateLimitError: On entering, if the tokens aren't due in what is left
                of the time.
            ValueError: `tokens` or `timeout` is out of range.
        """
        _rust.whole("tokens", tokens)
        if timeout is not None:
            timeout = _rust.non_negative("timeout", timeout)
        if self._rate is not None:
            self._rate.retry_after(tokens)  # Refuses more than the burst.
        return Holding(self, tokens, timeout)

    def try_acquire(self, tokens: int = 1) -> bool:
        """Take a permit and `tokens` now, or nothing. Never waits; any thread.

        Each True needs one `release()`.
        """
        _rust.whole("tokens", tokens)
        if self._concurrency is not None and not self._concurrency.try_acquire():
            return False
        try:
            if self._rate is None or self._rate.try_acquire(tokens):
                return True
        except BaseException:
            self.release()
            raise
        self.release()
        return False

    def release(self) -> None:
        """Give the permit back; the tokens are spent. Any thread."""
        if self._concurrency is not None:
            self._concurrency.release()

    async def __aenter__(self) -> None:
        await self._enter(1, None)

    async def __aexit__(self, *exc: object) -> None:
        self.release()

    @overload
    def limit(
        self, func: Callable[P, Awaitable[T]]
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def limit(
        self, func: None = None, *, tokens: int = 1
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]: ...
    def limit(
        self, func: Callable[P, Awaitable[T]] | None = None, *, tokens: int = 1
    ) -> Any:
        """Decorate an async function: each call is made inside `acquire(tokens)`.

        `@limiter.limit` or `@limiter.limit(tokens=3)`. Name, signature and
        docstring stay.

        Raises:
            ResourceLimitError: `tokens` is above the burst.
            TypeError: What is decorated is not callable, or an async generator.
        """
        holding = self.acquire(tokens)
        if func is None:
            return functools.partial(_limited, holding)
        return _limited(holding, func)

    async def _enter(self, tokens: int, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        if self._concurrency is not None:
            await self._concurrency.acquire(timeout=timeout)
        if self._rate is None:
            return
        try:
            left = None if deadline is None else max(0.0, deadline - loop.time())
            await self._rate.acquire(tokens, timeout=left)
        except BaseException:
            self.release()
            raise


class Holding:
    """What `ResourceLimiter.acquire()` returns; may be entered many times."""

    __slots__ = ("_limiter", "_timeout", "_tokens")

    def __init__(
        self, limiter: ResourceLimiter, tokens: int, timeout: float | None
    ) -> None:
        self._limiter = limiter
        self._tokens = tokens
        self._timeout = timeout

    async def __aenter__(self) -> None:
        await self._limiter._enter(self._tokens, self._timeout)

    async def __aexit__(self, *exc: object) -> None:
        self._limiter.release()
