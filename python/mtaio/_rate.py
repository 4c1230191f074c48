"""Rate limiters: so many tokens per second, first come, first served."""

import functools
import inspect
import math
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar, overload

from . import _rust
from ._waiting import Lanes, LoopTimer, exact_timer

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RateLimiterStats:
    """What a rate limiter did since it was made.

    Attributes:
        granted: Tokens granted.
        refused: Requests refused by `try_acquire` or for their `timeout`.
        waiting: Callers that wait now.
        waited: Seconds waited by all callers that were granted, together.
    """

    granted: int
    refused: int
    waiting: int
    waited: float


def check_made(limiter: object, made: object, given: object) -> None:
    """Refuse what would be ignored: the native half was made by `__new__`."""
    if made != given:
        name = type(limiter).__name__
        raise TypeError(
            f"{name}.__init__ changes the arguments {name} was made with: a subclass"
            " must do so in __new__ too"
        )


def check_async(func: object) -> None:
    """Refuse to decorate what surely can't be awaited."""
    if not callable(func) or inspect.isasyncgenfunction(func):
        raise TypeError(f"limit decorates an async function, got {func!r}")


def _burst(rate: float, burst: int | None) -> int:
    return math.ceil(rate) if burst is None else burst


class RateLimiter(_rust.TokenBucket):
    """At most `burst` tokens at once and `rate` tokens per second in the long run.

    In every window of T seconds at most `burst + rate * T` tokens fall due, to
    callers in any thread and any event loop together, in the order of their
    calls. GCRA (ITU-T I.371); the bucket starts full.

    A timer calls late, and a bucket that is full by then loses what would flow
    in. So who waited counts as granted when the bucket was full, at most half a
    token and a millisecond ago: the rate is kept, and by the clock at the grant
    a window may hold half a token more. A `clock` given, `time.monotonic` too,
    turns that off: no window holds more, and lateness costs rate.

    A forked child goes on with a bucket of its own, filled as it was then, and
    without those who wait: they are its parent's.

    A subclass with arguments of its own overrides `__new__` as well as `__init__`.

    Args:
        rate: Tokens per second, from 1e-6 to 1e9.
        burst: Tokens that may be taken at once, 1 or more. By default those of
            one second, rounded up.
        clock: Seconds on a monotonic clock; the system's by default. Tests pass
            their own.

    Raises:
        ValueError: `rate` or `burst` is out of range.
        TypeError: `rate` or `burst` is not a number, or a subclass changes them
            in `__init__` alone.

    Example:
        limiter = RateLimiter(rate=100, burst=20)
        await limiter.acquire()
        async with limiter: ...
    """

    __slots__ = ("_lanes",)

    def __init__(
        self,
        rate: float,
        burst: int | None = None,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        made = (self.rate, self.burst, self._native_clock)
        check_made(self, made, (rate, _burst(rate, burst), clock is None))
        # Another clock may be a loop's virtual time, which only its timers follow.
        self._lanes = Lanes(self, exact_timer if self._native_clock else LoopTimer)

    def retry_after(self, tokens: int = 1) -> float:
        """Seconds until `tokens` asked now would be granted; 0.0 is at once.

        Counts those who wait already. Takes nothing, never waits; any thread.

        Raises:
            ResourceLimitError: More than `burst` tokens are asked.
        """
        self._lanes.drop_closed()
        return self._retry_after(tokens)

    def stats(self) -> RateLimiterStats:
        """The counts so far, all of one moment. Never waits; any thread."""
        return RateLimiterStats(*self._counts())

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
        """Decorate an async function: each call first acquires `tokens`.

        `@limiter.limit` or `@limiter.limit(tokens=3)`. Name, signature and
        docstring stay.

        Raises:
            ResourceLimitError: `tokens` is above `burst`.
            TypeError: What is decorated is not callable, or an async generator.
        """
        self._retry_after(tokens)  # Checks `tokens` now, not at the first call.
        if func is None:
            return functools.partial(self._limited, tokens)
        return self._limited(tokens, func)

    def _limited(
        self, tokens: int, func: Callable[P, Awaitable[T]]
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        check_async(func)

        @functools.wraps(func)
        async def limited(*args: P.args, **kwargs: P.kwargs) -> T:
            await self.acquire(tokens)
            return await func(*args, **kwargs)

        return limited

    def _wait(self, tokens: int, timeout_ns: int | None) -> Coroutine[Any, Any, None]:
        """Called by `acquire` when it can't take the tokens at once."""
        return self._lanes.wait(
            lambda lane: self._join(lane, tokens, timeout_ns),
            functools.partial(self._refund, tokens),
        )

    def _tend(self) -> None:
        """Called by `try_acquire` when there are tokens but also a line."""
        self._lanes.tend()


class KeyedRateLimiter(_rust.KeyedBuckets):
    """A `RateLimiter` for each key, in bounded memory.

    A key costs a few dozen bytes from its first use until its bucket is full
    again. At most `max_keys` are remembered; one that owes tokens is never
    forgotten, so while `max_keys` owe, a new key is refused.

    Args:
        rate: Tokens per second and key, from 1e-6 to 1e9.
        burst: Tokens that may be taken at once for a key, 1 or more. By default
            those of one second, rounded up.
        max_keys: Keys remembered at most, 1 or more.
        clock: Seconds on a monotonic clock; the system's by default.

    Raises:
        ValueError: An argument is out of range.
        TypeError: An argument is not a number.

    Example:
        limiter = KeyedRateLimiter(rate=5, burst=10, max_keys=100_000)
        await limiter.acquire(client_address)
    """

    __slots__ = ("_lanes",)

    def __init__(
        self,
        rate: float,
        burst: int | None = None,
        *,
        max_keys: int = 100_000,
        clock: Callable[[], float] | None = None,
    ) -> None:
        made = (self.rate, self.burst, self.max_keys, self._native_clock)
        most = _rust.whole("max_keys", max_keys)
        check_made(self, made, (rate, _burst(rate, burst), most, clock is None))
        # As in RateLimiter.
        timer = exact_timer if self._native_clock else LoopTimer
        self._lanes = Lanes(self, timer, in_order=False)

    def retry_after(self, key: Hashable, tokens: int = 1) -> float:
        """Seconds until `tokens` asked now for `key` would be granted.

        As `RateLimiter.retry_after`.
        """
        self._lanes.drop_closed()
        return self._retry_after(key, tokens)

    def stats(self) -> RateLimiterStats:
        """The counts of all keys so far. Never waits; any thread."""
        return RateLimiterStats(*self._counts())

    def limit(
        self, key: Callable[P, Hashable], *, tokens: int = 1
    ) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
        """Decorate an async function: each call first acquires `tokens`.

        Args:
            key: Called with the arguments of each call; returns the key. Not a
                coroutine function.
            tokens: 1 to `burst`.

        Raises:
            ResourceLimitError: `tokens` is above `burst`.
            TypeError: `key` or what is decorated is not such a callable.
        """
        if not callable(key) or inspect.iscoroutinefunction(key):
            raise TypeError(f"key must be a plain callable, got {key!r}")
        self._retry_after(None, tokens)  # Checks `tokens` now.

        def decorate(
            func: Callable[P, Awaitable[T]],
        ) -> Callable[P, Coroutine[Any, Any, T]]:
            check_async(func)

            @functools.wraps(func)
            async def limited(*args: P.args, **kwargs: P.kwargs) -> T:
                await self.acquire(key(*args, **kwargs), tokens)
                return await func(*args, **kwargs)

            return limited

        return decorate

    def _wait(
        self, key: Hashable, tokens: int, timeout_ns: int | None
    ) -> Coroutine[Any, Any, None]:
        """Called by `acquire` when it can't take the tokens at once."""
        return self._lanes.wait(
            lambda lane: self._join(lane, key, tokens, timeout_ns),
            functools.partial(self._refund, key, tokens),
        )

    def _tend(self) -> None:
        """Called by `try_acquire` when someone waits for the key."""
        self._lanes.tend()
