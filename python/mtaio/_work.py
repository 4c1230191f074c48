"""How the arguments of one call become work: what is read, what is awaited."""

import asyncio
import inspect
import logging
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Sized,
)
from concurrent.futures import Future
from contextvars import ContextVar
from typing import Any, TypeAlias, TypeVar

from . import _rust
from ._crew import Crew
from ._stream import Source
from .resources import ConcurrencyLimiter

T = TypeVar("T")

Progress: TypeAlias = Callable[[int, int | None], object]

_END: Any = object()

_log = logging.getLogger("mtaio.core")


class Place:
    """One `run` of an executor; of none once that has ended."""

    __slots__ = ("executor",)

    def __init__(self, executor: object) -> None:
        self.executor: object = executor


# The places in which the current code runs: waiting for another place of the same
# executor, while its `run` waits for us, could wait for ever. A task that outlives
# the `run` that started it has that one's context, but no place any more.
_held: ContextVar[tuple[Place, ...]] = ContextVar("mtaio_places_held", default=())


async def in_place(
    executor: object, places: ConcurrencyLimiter, coro: Awaitable[T]
) -> T:
    """Await `coro` in a place of `executor`; in this task's, if it has one."""
    if held := _held.get():
        held = tuple(place for place in held if place.executor is not None)
        if any(place.executor is executor for place in held):
            return await coro
    async with places:
        place = Place(executor)
        # This task's own context, which ends with it.
        _held.set((*held, place))
        try:
            return await coro
        finally:
            place.executor = None


def worker_count(most: int, limit: int | None, sources: tuple[Any, ...]) -> int:
    """How many workers a call gets: no more than it can ever use."""
    if not sources:
        raise TypeError("sources must be one iterable or more, got none")
    if limit is not None:
        most = min(most, _rust.whole("limit", limit))
    if any(isinstance(source, AsyncIterable) for source in sources):
        return most  # The length of a channel is what waits in it now.
    length = _length(sources)
    return most if length is None else min(most, length)


def prepared(
    func: Callable[..., Any],
    sources: tuple[Any, ...],
    in_thread: Callable[..., Awaitable[Any]],
    return_exceptions: bool,
    on_progress: Progress | None,
) -> Callable[..., Awaitable[Any]]:
    """What a worker awaits for each item: `func` with all that was asked of it."""
    if not callable(func):
        raise TypeError(f"func must be callable, got {func!r:.80}")
    if on_progress is not None and (
        not callable(on_progress) or _is_async(on_progress)
    ):
        accepted = "on_progress must be a plain callable"
        raise TypeError(f"{accepted}, got {on_progress!r:.80}")
    work = func if _is_async(func) else _threaded(in_thread, func)
    if return_exceptions:
        work = _forgiving(work)
    if on_progress is not None:
        work = _counted(work, on_progress, _length(sources))
    return work


async def itself(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _threaded(
    in_thread: Callable[..., Awaitable[Any]], func: Callable[..., Any]
) -> Callable[..., Awaitable[Any]]:
    """`func` in a thread; what it returns is awaited if it can be."""

    async def work(*arguments: Any) -> Any:
        answer = await in_thread(func, *arguments)
        return await answer if inspect.isawaitable(answer) else answer

    return work


def _forgiving(work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """`work` that returns what it raises."""

    async def forgiven(*arguments: Any) -> Any:
        try:
            return await work(*arguments)
        except Exception as error:  # noqa: BLE001  # it is the result
            return error
        except asyncio.CancelledError as error:
            if being_cancelled():
                raise
            return error

    return forgiven


def _counted(
    work: Callable[..., Awaitable[Any]], on_progress: Progress, total: int | None
) -> Callable[..., Awaitable[Any]]:
    """`work` that reports each item done."""
    done = 0

    async def counted(*arguments: Any) -> Any:
        nonlocal done
        result = await work(*arguments)
        done += 1
        on_progress(done, total)
        return result

    return counted


def _length(sources: Iterable[object]) -> int | None:
    """How many items there will be, where every source tells its length."""
    lengths = [len(s) if isinstance(s, Sized) else None for s in sources]
    known = [length for length in lengths if length is not None]
    return min(known) if len(known) == len(lengths) else None


async def fill(
    crew: Crew,
    source: Iterator[tuple[Any, ...]],
    work: Callable[..., Awaitable[Any]],
    results: list[Any],
) -> None:
    """Take items until there are none; each result goes to its item's place."""
    me, clock = object(), time.monotonic
    try:
        with crew:
            if clock() > crew.deadline:
                await crew.pause()
            for arguments in source:
                place = len(results)
                results.append(None)
                crew.current = me
                results[place] = await work(*arguments)
                if crew.current is me:
                    if clock() > crew.deadline:
                        await crew.pause()
                elif crew.stopping:
                    return
    finally:
        # An error among them holds this frame by its traceback: no such cycle.
        del results


def log_abandoned(answer: Future[Any]) -> None:
    """Nobody waits for this thread's answer any more; its error isn't lost."""
    if not answer.cancelled() and (error := answer.exception()) is not None:
        _log.error("an abandoned call in a thread failed", exc_info=error)


def zipped(sources: tuple[Any, ...]) -> Source:
    for source in sources:
        if not isinstance(source, Iterable | AsyncIterable):
            raise TypeError(f"sources must be iterables, got {source!r:.80}")
    if any(isinstance(source, AsyncIterable) for source in sources):
        return _zipped_async(sources)
    return zip(*sources, strict=False)


async def _zipped_async(sources: tuple[Any, ...]) -> AsyncGenerator[Any, None]:
    """Like `zip`, over sync and async iterables."""
    readers = [aiter(s) if isinstance(s, AsyncIterable) else iter(s) for s in sources]
    while True:
        items = []
        for reader in readers:
            if isinstance(reader, AsyncIterator):
                item = await anext(reader, _END)
            else:
                item = next(reader, _END)
            if item is _END:
                return
            items.append(item)
        yield tuple(items)


def _is_async(func: object) -> bool:
    return inspect.iscoroutinefunction(func) or inspect.iscoroutinefunction(
        getattr(type(func), "__call__", None)  # noqa: B004  # its async __call__
    )


def being_cancelled() -> bool:
    """Whether somebody asked the current task to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Owned:
    """Awaitables given to us, which will surely not be left behind.

    The coroutine of a call may be dropped before its first step, its task having
    been cancelled by then, and what it was given with it: that is no coroutine
    the user forgot to await, and must not be warned about as one.
    """

    __slots__ = ("awaitables",)

    def __init__(self, *awaitables: Awaitable[Any]) -> None:
        self.awaitables = awaitables

    def close(self) -> None:
        """Close or cancel what hasn't ended; what has doesn't mind."""
        for awaitable in self.awaitables:
            if isinstance(awaitable, Coroutine):
                awaitable.close()
            elif isinstance(awaitable, asyncio.Future):
                awaitable.cancel()

    def __del__(self) -> None:
        # Futures run by themselves; only the call may cancel them.
        for awaitable in self.awaitables:
            if isinstance(awaitable, Coroutine):
                awaitable.close()
