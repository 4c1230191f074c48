"""Results as they come, over a source that is read no faster than they are taken."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from ._crew import Crew

T = TypeVar("T")

Arguments: TypeAlias = tuple[Any, ...]
Source: TypeAlias = Iterator[Arguments] | AsyncIterator[Arguments]


class ResultStream(Generic[T]):
    """Workers that take from `source` and hand `func`'s results to one consumer.

    Args:
        crew: Runs the workers; the consumer is its caller.
        source: Tuples of arguments for `func`.
        window: The most items taken and not yet handed over: the back-pressure.
        ordered: Results in the source's order, else as they come.
    """

    def __init__(
        self,
        crew: Crew,
        source: Source,
        func: Callable[..., Awaitable[T]],
        *,
        window: float,
        ordered: bool,
    ) -> None:
        self._crew = crew
        self._source = source
        self._func = func
        self._window = window
        self._ordered = ordered
        self._reading = asyncio.Lock()
        self._taken = self._handed = 0
        self._come: deque[T] = deque()
        # Results that wait for an earlier one, by the item's number.
        self._ahead: dict[int, T] = {}
        self._next = 0
        self._consumer: asyncio.Future[None] | None = None
        self._without_room: deque[asyncio.Future[None]] = deque()
        crew.changed = self._wake_consumer

    async def results(self, workers: int) -> AsyncGenerator[T, None]:
        """Start the workers and hand over what they bring, until the source ends."""
        try:
            for _ in range(workers):
                self._crew.start(self._work())
            while self._crew.tasks and not self._crew.stopping:
                self._consumer = self._crew.loop.create_future()
                await self._consumer
                while self._come:
                    yield self._hand_over()
        except BaseException:
            await self._crew.abandon()
            raise
        finally:
            # The crew and this would keep each other alive.
            self._crew.changed = None
        await self._crew.join()

    def _hand_over(self) -> T:
        self._handed += 1
        # Waking at half, not at every result, wakes each worker for several.
        if self._without_room and self._taken - self._handed <= self._window / 2:
            while self._without_room:
                _wake(self._without_room.popleft())
        return self._come.popleft()

    async def _work(self) -> None:
        crew, me, clock = self._crew, object(), time.monotonic
        take: Callable[[], Awaitable[Arguments | None]]
        if isinstance(self._source, AsyncIterator):
            take = partial(self._take_async, self._source)
        else:
            take = partial(self._take_sync, self._source)
        with crew:
            if clock() > crew.deadline:
                await crew.pause()
            while (arguments := await take()) is not None:
                number = self._taken
                self._taken += 1
                crew.current = me
                result = await self._func(*arguments)
                self._put(number, result)
                if crew.current is me:
                    if clock() > crew.deadline:
                        await crew.pause()
                elif crew.stopping:
                    return

    async def _take_sync(self, source: Iterator[Arguments]) -> Arguments | None:
        while self._taken - self._handed >= self._window:
            await self._room()
        return next(source, None)

    async def _take_async(self, source: AsyncIterator[Arguments]) -> Arguments | None:
        # An async source can't be read by two workers at once.
        async with self._reading:
            while self._taken - self._handed >= self._window:
                await self._room()
            return await anext(source, None)

    async def _room(self) -> None:
        place = self._crew.loop.create_future()
        self._without_room.append(place)
        await place

    def _put(self, number: int, result: T) -> None:
        if not self._ordered:
            self._come.append(result)
        else:
            self._ahead[number] = result
            while self._next in self._ahead:
                self._come.append(self._ahead.pop(self._next))
                self._next += 1
        if self._come:
            self._wake_consumer()

    def _wake_consumer(self) -> None:
        if self._consumer is not None:
            _wake(self._consumer)


def _wake(place: asyncio.Future[None]) -> None:
    if not place.done():
        place.set_result(None)
