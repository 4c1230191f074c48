"""Many tasks over few workers."""

import asyncio
import contextvars
import inspect
import os
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from typing import Any, Literal, ParamSpec, Self, TypeVar, overload

from . import _rust
from ._crew import Crew, close_all
from ._stream import ResultStream, Source
from ._work import (
    Owned,
    Progress,
    fill,
    in_place,
    itself,
    log_abandoned,
    prepared,
    worker_count,
    zipped,
)
from .exceptions import ExecutionError
from .resources import ConcurrencyLimiter, TimeoutManager

__all__ = ("TaskExecutor",)

A = TypeVar("A")
P = ParamSpec("P")
T = TypeVar("T")


class TaskExecutor:
    """Runs many tasks, few at a time.

    ::

        executor = TaskExecutor(max_workers=4)
        pages = await executor.map(fetch, urls)

        async with executor:
            async for page in executor.stream(fetch, endless_urls()):
                ...

    `map`, `gather` and `stream` each have at most `max_workers` workers of their
    own, over one source that is read only as fast as they get on. All `run`
    together have as many places again. A task may use the executor it runs in:
    it never waits for a place that it holds itself. Trivial items don't hold the
    loop: it turns about every millisecond.

    Each call is structured: when it returns, raises or is cancelled, none of its
    tasks is left. The first failure cancels the others and is raised with its
    own traceback; where several failed, an `ExceptionGroup` of them. A task that
    ends by a `CancelledError` nobody asked for counts as failed, with an
    `ExecutionError`.

    Made anywhere, also outside a loop, and usable as it is, from any loop.
    Entered, it belongs to that loop: leaving cancels what still runs there,
    waits for its end, also of threads, and refuses more until entered again.

    Args:
        max_workers: Most tasks of one call, most `run`, and most threads, at a
            time; >= 1.

    Raises:
        TypeError, ValueError: `max_workers` is not an int >= 1.
    """

    def __init__(self, max_workers: int = 32) -> None:
        self._max_workers = _rust.whole("max_workers", max_workers)
        self._crews: set[Crew] = set()
        self._places = ConcurrencyLimiter(self._max_workers)
        self._timeouts = TimeoutManager()
        # By process: a forked child has the pool but none of its threads.
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._closed = False

    @property
    def max_workers(self) -> int:
        """The most tasks of one call at a time."""
        return self._max_workers

    def run(
        self, coro: Awaitable[T], *, timeout: float | None = None
    ) -> Coroutine[Any, Any, T]:
        """Await one coroutine as a task of this executor, once there is a place.

        First come, first served. A `run` inside a `run` shares its place.

        Args:
            coro: A coroutine or other awaitable; a refused coroutine is closed.
            timeout: Seconds in all, finite and >= 0; None sets no limit.

        Raises:
            TimeoutError: The limit passed (`mtaio.exceptions`).
            ExecutionError: The executor is closed, or was meanwhile.
            TypeError, ValueError: `coro` can't be awaited, or `timeout` is no
                such number.
        """
        owned = Owned(coro)
        if not inspect.isawaitable(coro):
            raise TypeError(f"coro must be awaitable, got {coro!r:.80}")
        if timeout is not None:
            timeout = _rust.non_negative("timeout", timeout)
        return self._run(coro, owned, timeout)

    async def _run(self, coro: Awaitable[T], owned: Owned, timeout: float | None) -> T:
        try:
            with self._crew() as crew:
                work = in_place(self, self._places, coro)
                return await crew.only(self._timeouts.run(work, timeout=timeout))
        finally:
            owned.close()

    @overload
    def gather(
        self,
        *awaitables: Awaitable[T],
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
        on_progress: Progress | None = None,
    ) -> Coroutine[Any, Any, list[T]]: ...

    @overload
    def gather(
        self,
        *awaitables: Awaitable[T],
        limit: int | None = None,
        return_exceptions: bool,
        on_progress: Progress | None = None,
    ) -> Coroutine[Any, Any, list[T | BaseException]]: ...

    def gather(
        self,
        *awaitables: Awaitable[Any],
        limit: int | None = None,
        return_exceptions: bool = False,
        on_progress: Progress | None = None,
    ) -> Coroutine[Any, Any, list[Any]]:
        """Await all, few at a time; return their results in order.

        Coroutines that are not reached, or refused, are closed.

        Args:
            awaitables: Coroutines or other awaitables.
            limit: Fewer workers than `max_workers` for this call.
            return_exceptions: Failures stand in the list in place of results and
                cancel nobody.
            on_progress: Called with (done, total) after each.

        Raises:
            ExecutionError: The executor is closed, or was meanwhile.
            TypeError, ValueError: `limit` is not an int >= 1.
        """
        owned = Owned(*awaitables)
        worker_count(self._max_workers, limit, (awaitables,))
        return self._gather(owned, limit, return_exceptions, on_progress)

    async def _gather(
        self,
        owned: Owned,
        limit: int | None,
        return_exceptions: bool,
        on_progress: Progress | None,
    ) -> list[Any]:
        try:
            results: list[Any] = await self.map(
                itself,
                owned.awaitables,
                limit=limit,
                return_exceptions=return_exceptions,
                on_progress=on_progress,
            )
            return results
        finally:
            owned.close()

    @overload
    async def map(
        self,
        func: Callable[[A], Awaitable[T]],
        source: Iterable[A] | AsyncIterable[A],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
        on_progress: Progress | None = None,
    ) -> list[T]: ...

    @overload
    async def map(
        self,
        func: Callable[[A], Awaitable[T]],
        source: Iterable[A] | AsyncIterable[A],
        /,
        *,
        limit: int | None = None,
        return_exceptions: bool,
        on_progress: Progress | None = None,
    ) -> list[T | BaseException]: ...

    @overload
    async def map(
        self,
        func: Callable[[A], T],
        source: Iterable[A] | AsyncIterable[A],
        /,
        *,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
        on_progress: Progress | None = None,
    ) -> list[T]: ...

    @overload
    async def map(
        self,
        func: Callable[[A], T],
        source: Iterable[A] | AsyncIterable[A],
        /,
        *,
        limit: int | None = None,
        return_exceptions: bool,
        on_progress: Progress | None = None,
    ) -> list[T | BaseException]: ...

    @overload
    async def map(
        self,
        func: Callable[..., Any],
        first: Iterable[Any] | AsyncIterable[Any],
        second: Iterable[Any] | AsyncIterable[Any],
        /,
        *others: Iterable[Any] | AsyncIterable[Any],
        limit: int | None = None,
        return_exceptions: bool = False,
        on_progress: Progress | None = None,
    ) -> list[Any]: ...

    async def map(
        self,
        func: Callable[..., Any],
        *sources: Iterable[Any] | AsyncIterable[Any],
        limit: int | None = None,
        return_exceptions: bool = False,
        on_progress: Progress | None = None,
    ) -> list[Any]:
        """Call `func` with every item, few at a time; return results in order.

        Args:
            func: Async, or sync: then each call runs in a thread.
            sources: Iterables, sync or async, read together as by `zip`, one
                item for each of `func`'s arguments.
            limit: Fewer workers than `max_workers` for this call.
            return_exceptions: Failures stand in the list in place of results and
                cancel nobody.
            on_progress: Called with (done, total) after each item; total is
                None where a source has no length.

        Raises:
            ExecutionError: The executor is closed, or was meanwhile.
            TypeError, ValueError: An argument is not of that kind.
        """
        workers = worker_count(self._max_workers, limit, sources)
        work = prepared(func, sources, self._in_thread, return_exceptions, on_progress)
        source = zipped(sources)
        results: list[Any] = []
        with self._crew() as crew:
            if isinstance(source, AsyncIterator):
                stream = ResultStream(
                    crew, source, work, window=float("inf"), ordered=True
                )
                async for result in stream.results(workers):
                    results.append(result)  # noqa: PERF401  # async, into `results`
            else:
                for _ in range(workers):
                    crew.start(fill(crew, source, work, results))
                await crew.join()
        return results

    @overload
    def stream(
        self,
        func: Callable[[A], Awaitable[T]],
        source: Iterable[A] | AsyncIterable[A],
        /,
        *,
        ordered: bool = False,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
        on_progress: Progress | None = None,
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def stream(
        self,
        func: Callable[[A], Awaitable[T]],
        source: Iterable[A] | AsyncIterable[A],
        /,
        *,
        ordered: bool = False,
        limit: int | None = None,
        return_exceptions: bool,
        on_progress: Progress | None = None,
    ) -> AsyncGenerator[T | BaseException, None]: ...

    @overload
    def stream(
        self,
        func: Callable[[A], T],
        source: Iterable[A] | AsyncIterable[A],
        /,
        *,
        ordered: bool = False,
        limit: int | None = None,
        return_exceptions: Literal[False] = False,
        on_progress: Progress | None = None,
    ) -> AsyncGenerator[T, None]: ...

    @overload
    def stream(
        self,
        func: Callable[[A], T],
        source: Iterable[A] | AsyncIterable[A],
        /,
        *,
        ordered: bool = False,
        limit: int | None = None,
        return_exceptions: bool,
        on_progress: Progress | None = None,
    ) -> AsyncGenerator[T | BaseException, None]: ...

    @overload
    def stream(
        self,
        func: Callable[..., Any],
        first: Iterable[Any] | AsyncIterable[Any],
        second: Iterable[Any] | AsyncIterable[Any],
        /,
        *others: Iterable[Any] | AsyncIterable[Any],
        ordered: bool = False,
        limit: int | None = None,
        return_exceptions: bool = False,
        on_progress: Progress | None = None,
    ) -> AsyncGenerator[Any, None]: ...

    def stream(
        self,
        func: Callable[..., Any],
        *sources: Iterable[Any] | AsyncIterable[Any],
        ordered: bool = False,
        limit: int | None = None,
        return_exceptions: bool = False,
        on_progress: Progress | None = None,
    ) -> AsyncGenerator[Any, None]:
        """Call `func` with every item; yield each result as it comes.

        The sources may be endless: at most twice as many items as there are
        workers are taken and not yet yielded. Leave the loop early inside
        `contextlib.aclosing(...)`, or the `async with` of the executor, for the
        tasks to be gone on the spot.

        Args:
            func: As for `map`, as are the others.
            sources: Sync or async.
            ordered: Yield in the order of the sources, else as they come.
            limit: Fewer workers than `max_workers` for this call.
            return_exceptions: Yield failures in place of results.
            on_progress: Called with (done, total) after each item.

        Raises:
            ExecutionError: The executor is closed, or was meanwhile.
            TypeError, ValueError: An argument is not of that kind.
        """
        workers = worker_count(self._max_workers, limit, sources)
        work = prepared(func, sources, self._in_thread, return_exceptions, on_progress)
        return self._streamed(work, zipped(sources), workers, ordered=ordered)

    async def _streamed(
        self, work: Callable[..., Any], source: Source, workers: int, *, ordered: bool
    ) -> AsyncGenerator[Any, None]:
        with self._crew() as crew:
            stream = ResultStream(
                crew, source, work, window=2 * workers, ordered=ordered
            )
            async with aclosing(stream.results(workers)) as results:
                async for result in results:
                    yield result

    async def run_in_thread(
        self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `func` in one of this executor's threads; wait for its answer.

        It sees the caller's context variables. A thread can't be stopped: a
        cancelled caller leaves at once, the call goes on unless it was still
        queued, and what it raises then is logged. Leaving the executor waits
        for it.

        Raises:
            ExecutionError: The executor is closed, or was meanwhile.
        """
        with self._crew() as crew:
            return await crew.only(self._in_thread(func, *args, **kwargs))

    async def _in_thread(
        self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        context = contextvars.copy_context()

        def call() -> T:
            try:
                return context.run(func, *args, **kwargs)
            except StopIteration as error:
                # No future can hold one; on 3.11 its waiter would hang.
                raise RuntimeError("the call raised StopIteration") from error

        answer = self._pool().submit(call)
        try:
            return await asyncio.wrap_future(answer)
        except asyncio.CancelledError:
            answer.add_done_callback(log_abandoned)
            raise

    def _pool(self) -> ThreadPoolExecutor:
        process = os.getpid()
        if process not in self._pools:
            fresh = ThreadPoolExecutor(self._max_workers, "mtaio-executor")
            # Atomic, for loops in several threads; a pool that loses is empty.
            self._pools.setdefault(process, fresh)
        return self._pools[process]

    @contextmanager
    def _crew(self) -> Iterator[Crew]:
        """One call's tasks, which closing the executor stops."""
        if self._closed:
            raise ExecutionError("the executor is closed")
        crew = Crew()
        self._crews.add(crew)
        try:
            yield crew
        finally:
            self._crews.discard(crew)

    async def __aenter__(self) -> Self:
        self._closed = False
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel what runs in this loop, wait for its end, refuse more.

        Callers still waiting get an `ExecutionError`. Also waits for threads.
        """
        self._closed = True
        loop = asyncio.get_running_loop()
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)
        await close_all(
            [crew for crew in list(self._crews) if crew.loop is loop],
            "the executor was closed while this ran",
        )
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)
