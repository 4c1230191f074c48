"""A cache with a time to live per entry, bounded in number and weight.

`TTLCache` keeps its entries in native shards; every call returns at once and may
come from any thread or loop. The awaitable forms exist so that a cache behind a
server can take its place; each has a twin with `_nowait` for synchronous code.
Only `get_or_set`, its form for threads, `@cached` and the snapshots ever wait.
"""

import asyncio
import time
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterable, Mapping
from functools import partial, wraps
from inspect import iscoroutinefunction
from itertools import chain
from os import PathLike
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, overload

from . import _rust, _snapshot
from ._cache_options import (
    CacheStats,
    EvictionPolicy,
    check_cached,
    check_codec,
    check_hooks,
    check_key,
    check_policy,
    key_of_call,
    key_of_calls,
    nothing,
)
from ._single_flight import MISSING, Flights, Job, ListedCache

__all__ = (
    "CacheStats",
    "EvictionPolicy",
    "TTLCache",
    "TTLFIFOCache",
    "TTLLFUCache",
    "TTLLRUCache",
)

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")
Made = TypeVar("Made", bound="TTLCache[Any]")

# Entries that `load` sets between two turns of the loop: under a millisecond.
_TURN = 500


class TTLCache(ListedCache[T]):
    """A cache of `T` by any hashable key; each entry lives `ttl` seconds.

    An expired value is never returned. `len(cache) <= max_size` holds at every
    moment, in any number of threads. Expired entries give their memory back a
    few at a time as entries are set, and every `cleanup_interval` seconds while
    the cache is entered (`async with`) or started.

    No lock is held while `__eq__`, `__hash__`, `__del__` or a callback runs, so
    they may use this cache; an error of `__eq__` or `__hash__` reaches the caller.

    Args:
        default_ttl: Seconds an entry lives, above 0; `None`: for ever.
        max_size: Most entries, 1 or more; `None`: no bound.
        cleanup_interval: Seconds between sweeps while started, above 0.
        eviction_policy: Who leaves when there is no room.
        on_evicted: Called as `on_evicted(key, value, cause)` after an entry left,
            in the thread whose call took it out; `cause` is "size", "expired",
            "replaced" or "deleted". Not called for `pop`. If it raises, that
            goes to `sys.unraisablehook`. Not a coroutine function.
        weigher: `weigher(key, value)` is an entry's weight, an int of 0 or more,
            asked once when it is set. Needs `max_weight`.
        max_weight: Most weight, 1 or more. What is heavier by itself isn't kept;
            what needs the room of many entries evicts them all in its own call.
        shards: Parts with a lock and a share of `max_size` each, 1 to 4096; by
            default one per 52,000 entries of the bound, so that small caches are
            exact. With `max_weight` always one, which grows and shrinks in steps
            of bounded length as well.
        clock: Seconds, monotonic; for tests.

    Raises:
        TypeError: An argument of the wrong type.
        ValueError: An argument out of range.
    """

    # Without a `__dict__` a method is found in a third of the time.
    __slots__ = ("_cleaner", "_cleanup_interval")

    _cleanup_interval: float
    _cleaner: asyncio.Task[None] | None

    def __new__(
        cls,
        default_ttl: float | None = 300.0,
        max_size: int | None = None,
        cleanup_interval: float = 60.0,
        eviction_policy: EvictionPolicy = EvictionPolicy.S3FIFO,
        on_evicted: Callable[[Any, T, str], object] | None = None,
        *,
        weigher: Callable[[Any, T], int] | None = None,
        max_weight: int | None = None,
        shards: int | None = None,
        clock: Callable[[], float] | None = None,
    ) -> Self:
        """Check every argument, then build the native cache."""
        check_policy(eviction_policy)
        check_hooks(on_evicted, weigher, max_weight)
        interval = _rust.positive("cleanup_interval", cleanup_interval)
        self = super().__new__(
            cls,
            default_ttl,
            max_size,
            max_weight=max_weight,
            eviction=eviction_policy.value,
            shards=shards,
            on_evicted=on_evicted,
            weigher=weigher,
            clock=clock,
        )
        self._cleanup_interval = interval
        self._cleaner = None
        self._flights = Flights()
        return self

    async def set(self, key: Hashable, value: T, ttl: float | None = None) -> None:
        """Hold `value` under `key` for `ttl` seconds. Never waits.

        Args:
            key: Any hashable object.
            value: Any object.
            ttl: Seconds, above 0; `None` for the cache's default.

        Raises:
            TypeError: `key` is not hashable, or `ttl` is not a number.
            ValueError: `ttl` is not a finite number above 0.
        """
        self.set_nowait(key, value, ttl)

    async def add(self, key: Hashable, value: T, ttl: float | None = None) -> bool:
        """Store as `set` if `key` has no live value; return whether it did."""
        return self.add_nowait(key, value, ttl)

    async def touch(self, key: Hashable, ttl: float | None = None) -> bool:
        """Give a live entry `ttl` seconds from now; return whether there was one."""
        return self.touch_nowait(key, ttl)

    async def delete(self, key: Hashable) -> bool:
        """Take `key` out; return whether it had a live value."""
        return self.delete_nowait(key)

    async def pop(self, key: Hashable, *default: Any) -> Any:
        """Take `key` out and return its live value, else the default.

        Raises:
            CacheKeyError: It has none, and no default was given.
        """
        return self.pop_nowait(key, *default)

    async def get_many(
        self, keys: Iterable[Hashable], default: Any = None
    ) -> dict[Any, Any]:
        """Return a dict with the live value of each of `keys`, or `default`."""
        return self.get_many_nowait(keys, default)

    async def set_many(self, items: Mapping[Any, T], ttl: float | None = None) -> None:
        """Set every item of `items`, each as `set` would."""
        self.set_many_nowait(items, ttl)

    async def delete_many(self, keys: Iterable[Hashable]) -> int:
        """Take `keys` out; return how many had a live value."""
        return self.delete_many_nowait(keys)

    async def clear(self) -> None:
        """Take everything out at once; what was counted stays counted.

        To drop what was held takes this call time in proportion to it.
        """
        self.clear_nowait()

    async def items(self) -> list[tuple[Any, T]]:
        """Return all live pairs, in no particular order."""
        return self.items_nowait()

    async def get_or_set(
        self,
        key: Hashable,
        factory: Callable[[], Awaitable[T] | T],
        ttl: float | None = None,
        *,
        stale: float = 0.0,
    ) -> T:
        """Return the value of `key`, computing it once for all who ask meanwhile.

        The computation is a task of its own. A caller that is cancelled only
        stops waiting; if all are, the task is cancelled. Callers in other loops
        and threads wait for the same one; if its loop ends before it does, one
        of them computes anew. Where `delete`, `pop` or `clear` takes the key out
        meanwhile, what is computed reaches only those who waited by then and is not
        held; a value that was set meanwhile stays.

        Args:
            key: Any hashable object.
            factory: Called without arguments; may return an awaitable.
            ttl: Seconds the value lives, above 0; `None` for the default.
            stale: For so many seconds past its `ttl` the old value is still
                returned, at once, while one background task computes the new
                one. An error there goes to the loop's exception handler.

        Raises:
            Exception: What `factory` raised, to everyone who waited for it; it
                is not cached.
            CacheError: `factory` asks for the very key it computes, itself or
                through what it started. Of two that were started apart and wait
                for each other's key nobody tells: they wait for ever.
        """
        job = self._job(key, factory, ttl, stale)
        if not job.stale:
            value = self.get_nowait(key, MISSING)
            if value is not MISSING:
                return value
        elif (seen := self._get_stale(key)) is not None:
            value, is_stale = seen
            if is_stale:
                self._flights.refresh(job)
            return value
        return await self._flights.run(job)  # type: ignore[no-any-return]

    def get_or_set_blocking(
        self, key: Hashable, factory: Callable[[], T], ttl: float | None = None
    ) -> T:
        """Return the value of `key` as `get_or_set` does; wait with the thread.

        `factory` is called by the first who asks, in its thread; the others wait
        for it, in other threads and in loops. Where a loop computes the key
        already, this waits for that.

        Args:
            key: Any hashable object.
            factory: Called without arguments; returns the value itself.
            ttl: Seconds the value lives, above 0; `None` for the default.

        Raises:
            Exception: What the factory raised that was waited for.
            CacheError: The factory asks for the very key it computes, or the key
                is computed by the event loop that this call would block.
        """
        job = self._job(key, factory, ttl, 0.0)
        value = self.get_nowait(key, MISSING)
        if value is MISSING:
            value = self._flights.run_here(job)
        return value

    @overload
    def cached(
        self, function: Callable[P, Coroutine[Any, Any, R]]
    ) -> Callable[P, Coroutine[Any, Any, R]]: ...
    @overload
    def cached(self, function: Callable[P, R]) -> Callable[P, R]: ...
    @overload
    def cached(
        self,
        function: None = None,
        *,
        ttl: float | None = None,
        stale: float = 0.0,
        key: Callable[..., Hashable] | None = None,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]: ...
    def cached(
        self,
        function: Callable[..., Any] | None = None,
        *,
        ttl: float | None = None,
        stale: float = 0.0,
        key: Callable[..., Hashable] | None = None,
    ) -> Any:
        """Decorate a function: `get_or_set` around its calls.

        Use as `@cache.cached` or `@cache.cached(ttl=60.0)`. The wrapped function
        keeps its name and signature. A plain function stays one, which computes
        and waits by `get_or_set_blocking`.

        Args:
            function: The function; left out in the second form.
            ttl: As in `get_or_set`.
            stale: As in `get_or_set`; for coroutine functions.
            key: `key(*args, **kwargs)` is the key; not a coroutine function.
                By default it is the function's module and name with its
                arguments, which must be hashable; `f(1)` and `f(x=1)` are two
                keys. In place of the name stands the function itself where
                others may have that name: a local function, lambda, bound method
                or callable object; for a snapshot give those a `key`. See `key_of`.

        Raises:
            TypeError: What is decorated is not a function, or is a generator
                function, whose results can be used only once.
            ValueError: `stale` with a plain function.
        """
        check_key(key)
        self._job(None, nothing, ttl, stale)

        def decorate(function: Callable[..., Any]) -> Any:
            check_cached(function)
            key_of = key or key_of_calls(function)

            @wraps(function)
            async def call(*args: Any, **kwargs: Any) -> Any:
                compute = partial(function, *args, **kwargs)
                return await self.get_or_set(
                    key_of(*args, **kwargs), compute, ttl, stale=stale
                )

            @wraps(function)
            def call_here(*args: Any, **kwargs: Any) -> Any:
                compute = partial(function, *args, **kwargs)
                return self.get_or_set_blocking(key_of(*args, **kwargs), compute, ttl)

            here = not iscoroutinefunction(function)
            if here and stale:
                raise ValueError(f"stale needs a coroutine function, got {function!r}")
            made: Any = call_here if here else call
            made._cache_key_of = key_of
            return made

        return decorate if function is None else decorate(function)

    @staticmethod
    def key_of(
        function: Callable[P, object], /, *args: P.args, **kwargs: P.kwargs
    ) -> Hashable:
        """The key of a call of a function that `cached` made: `delete` takes it.

        Raises:
            TypeError: `function` is no such function.
        """
        return key_of_call(function, *args, **kwargs)

    async def save(
        self,
        path: str | PathLike[str],
        *,
        encode: Callable[[Any], bytes] | None = None,
    ) -> int:
        """Write all live entries with their remaining times to a file.

        The file is written beside `path` in another thread and put in place
        whole, so a crash leaves the old one.

        Args:
            path: Replaced if it is there.
            encode: Gives the bytes of keys and values that are not exactly
                `str`, `bytes` or `int`. Nothing is ever pickled.

        Returns:
            The number of entries written.

        Raises:
            CacheSerializationError: Such a key or value, and no `encode`.
            OSError: The file can't be written.
        """
        check_codec("encode", encode)
        file, wall = Path(path), time.time()
        # One shard after the other, so that no step keeps the loop from its turn.
        shards = range(self._shards)
        records = chain.from_iterable(map(self._records, shards))
        return await asyncio.to_thread(_snapshot.write, file, records, encode, wall)

    async def load(
        self,
        path: str | PathLike[str],
        *,
        decode: Callable[[bytes], Any] | None = None,
    ) -> int:
        """Set the entries of a file that `save` wrote and that still live.

        The time since it was saved counts, by the wall clock. The whole file is
        checked first: after an error in it the cache is as it was.

        Args:
            path: The file.
            decode: Undoes the `encode` it was saved with.

        Returns:
            The number of entries set.

        Raises:
            CacheSerializationError: The file is torn, or not a snapshot.
            OSError: The file can't be read.
        """
        check_codec("decode", decode)
        file, wall = Path(path), time.time()
        records = await asyncio.to_thread(lambda: _snapshot.read(file, decode, wall))
        count, late = 0, 0.0
        for at, (key, value, left) in enumerate(records):
            if at % _TURN == 0:
                await asyncio.sleep(0)
                late = max(0.0, time.time() - wall)  # reading may have taken long
            if left is None or left > late:
                self._set_left(key, value, None if left is None else left - late)
                count += 1
        return count

    def stats(self) -> CacheStats:
        """Return the counters and sizes of now; any thread."""
        return CacheStats(*self._counters())

    async def start(self) -> None:
        """Sweep every `cleanup_interval` seconds in this loop, until `stop`."""
        while self._cleaner is not None:  # also one started meanwhile
            await self.stop()
        self._cleaner = asyncio.get_running_loop().create_task(
            _sweep_for_ever(weakref.ref(self), self._cleanup_interval, self._shards)
        )

    async def stop(self) -> None:
        """Stop sweeping; the entries stay. Harmless if not started."""
        cleaner, self._cleaner = self._cleaner, None
        if cleaner is None or cleaner.get_loop().is_closed():
            return
        if cleaner.get_loop() is asyncio.get_running_loop():
            cleaner.cancel()
            await asyncio.wait([cleaner])
        else:
            cleaner.get_loop().call_soon_threadsafe(cleaner.cancel)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def _job(
        self,
        key: Hashable,
        factory: Callable[[], Any],
        ttl: float | None,
        stale: float,
    ) -> Job:
        if not callable(factory):
            raise TypeError(f"factory must be callable, got {factory!r}")
        if ttl is not None:
            ttl = _rust.positive("ttl", ttl)
        return Job(self, key, factory, ttl, _rust.non_negative("stale", stale))


class TTLLRUCache(TTLCache[T]):
    """A `TTLCache` of at most `max_size` entries that evicts the least recent."""

    __slots__ = ()

    def __new__(cls, max_size: int, **options: Any) -> Self:
        """Take the options of `TTLCache` but its policy."""
        return _with_policy(cls, EvictionPolicy.LRU, max_size, options)


class TTLLFUCache(TTLCache[T]):
    """A `TTLCache` of at most `max_size` entries that evicts the least used."""

    __slots__ = ()

    def __new__(cls, max_size: int, **options: Any) -> Self:
        """Take the options of `TTLCache` but its policy."""
        return _with_policy(cls, EvictionPolicy.LFU, max_size, options)


class TTLFIFOCache(TTLCache[T]):
    """A `TTLCache` of at most `max_size` entries that evicts the oldest."""

    __slots__ = ()

    def __new__(cls, max_size: int, **options: Any) -> Self:
        """Take the options of `TTLCache` but its policy."""
        return _with_policy(cls, EvictionPolicy.FIFO, max_size, options)


def _with_policy(
    cls: type[Made], policy: EvictionPolicy, max_size: int, options: dict[str, Any]
) -> Made:
    # `TTLCache` takes no bound; the caches named by a policy need one.
    _rust.whole("max_size", max_size)
    return TTLCache.__new__(cls, max_size=max_size, eviction_policy=policy, **options)


async def _sweep_for_ever(
    cache: "weakref.ref[TTLCache[Any]]", interval: float, shards: int
) -> None:
    """Sweep until the cache is gone, one bounded step per turn of the loop."""
    while True:
        await asyncio.sleep(interval)
        for at in range(shards):
            done = False
            while not done:
                held = cache()
                if held is None:
                    return
                done = held._sweep(at)
                del held
                await asyncio.sleep(0)
