"""One computation per key, however many wait for it, in however many loops."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Hashable
from contextvars import ContextVar
from functools import partial
from inspect import isawaitable
from typing import Any, NamedTuple

from . import _rust
from .exceptions import CacheError

__all__ = ("MISSING", "Flights", "Job")

# A key the cache has no value for; a flight that ended without a result.
MISSING: Any = object()

# Seconds between looks at whether a flight in another loop lost that loop.
_LOOK_AFTER = 1.0


class Job(NamedTuple):
    """What to compute for which key of which cache, and how long it lives."""

    cache: _rust.Cache[Any]
    key: Hashable
    factory: Callable[[], Awaitable[Any] | Any]
    ttl: float | None
    stale: float

    async def compute(self) -> Any:
        """Run the factory and hold what it gave."""
        value = self.factory()
        if isawaitable(value):
            value = await value
        self.cache._set_stale(self.key, value, self.ttl, self.stale)
        return value


class Flight:
    """One computation, and the futures of those who wait for it.

    It runs as a task of the loop that started it, owned by no caller: a caller
    that is cancelled only stops waiting. When the last one has, the task is
    cancelled too, unless it refreshes a stale value in the background.

    `land` has an effect once: from the task or, if its loop is gone, from whoever
    notices; waiters of other loops are woken thread-safely.
    """

    def __init__(
        self, job: Job, landed: "Callable[[Flight], object]", *, background: bool
    ) -> None:
        self.job = job
        self.background = background
        self._on_landed = landed
        self._listed = True
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._waiters: set[asyncio.Future[None]] = set()
        self._landed = False
        self._value: Any = MISSING
        self._error: BaseException | None = None

    @property
    def over(self) -> bool:
        """Whether it landed, or never will since its loop was closed."""
        return self._landed or self._loop.is_closed()

    def take_off(self) -> None:
        """Start the task. Its waiters hear of its end whatever becomes of it."""
        task = self._loop.create_task(self._fly())
        self._task = task
        # A task cancelled before its first step never enters `_fly`.
        task.add_done_callback(lambda _: self.land())

    def land(self, value: Any = MISSING, error: BaseException | None = None) -> None:
        """Give all who wait the value or the error; without either, it is lost."""
        with self._lock:
            if self._landed:
                return
            self._value, self._error = value, error
            self._landed = True
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            _call(waiter.get_loop(), partial(_wake, waiter))
        self._on_landed(self)

    def strike(self, flying: dict[Hashable, "Flight"]) -> None:
        """Take a landed flight off the list, exactly once.

        Only then can the entry be another's, so it needs no comparison. The key's
        `__eq__` may raise; the next who meets the flight tries again.
        """
        with self._lock:
            listed, self._listed = self._listed, False
        if not listed:
            return
        try:
            flying.pop(self.job.key, None)
        except BaseException:
            self._listed = True
            raise

    async def wait(self) -> Any:
        """Return the value or raise the error; `MISSING` if there is neither."""
        if self in _aboard.get():
            raise CacheError(
                f"the factory of {self.job.key!r} asks for the very key it computes"
            )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        with self._lock:
            flying = not self._landed
            if flying:
                self._waiters.add(waiter)
        if flying:
            try:
                await self._landing(waiter)
            finally:
                self._leave(waiter)
        if self._error is not None:
            raise self._error
        return self._value

    async def _landing(self, waiter: "asyncio.Future[None]") -> None:
        if waiter.get_loop() is self._loop:
            await waiter
            return
        # Another loop may be closed without a word, and then nobody wakes us.
        while not waiter.done():
            await asyncio.wait([waiter], timeout=_LOOK_AFTER)
            if self.over:
                self.land()
                return

    async def _fly(self) -> None:
        # A refresh is waited for by nobody, so it can't close a ring of waits.
        _aboard.set((self,) if self.background else (*_aboard.get(), self))
        count = self.job.cache._count_load
        try:
            value = await self.job.compute()
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it was this task that was cancelled: lost, not failed
            self._fail(CacheError(f"computing {self.job.key!r} was cancelled"), error)
        except Exception as error:  # noqa: BLE001 - it reaches all who wait
            self._fail(error, error.__cause__)
        else:
            count(False)
            self.land(value)
        finally:
            self.land()

    def _fail(self, error: Exception, cause: BaseException | None) -> None:
        error.__cause__ = cause
        self.job.cache._count_load(True)
        if self.background:
            message = f"refreshing the stale value of {self.job.key!r} failed"
            self._loop.call_exception_handler({"message": message, "exception": error})
        self.land(error=error)

    def _leave(self, waiter: asyncio.Future[None]) -> None:
        with self._lock:
            self._waiters.discard(waiter)
        if self._unwanted():
            _call(self._loop, self._cancel_if_unwanted)

    def _unwanted(self) -> bool:
        with self._lock:
            return not (self._waiters or self._landed or self.background)

    def _cancel_if_unwanted(self) -> None:
        if self._task is not None and self._unwanted():
            self._task.cancel()


# The flights this context computes for; one of them waiting for another of them
# would wait for ever.
_aboard: ContextVar[tuple[Flight, ...]] = ContextVar("mtaio_flights", default=())


def _call(loop: asyncio.AbstractEventLoop, function: Callable[[], object]) -> None:
    """Run `function` in `loop`, from any thread; not at all if it is closed."""
    try:
        loop.call_soon_threadsafe(function)
    except RuntimeError:
        if not loop.is_closed():
            raise


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)


class Flights:
    """The computations of one cache that go on now, by key. Any thread, any loop."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, Flight] = {}

    async def run(self, job: Job) -> Any:
        """Return what the job gives, computed once for all who ask meanwhile."""
        while True:
            value = await self._join(job, background=False).wait()
            if value is not MISSING:
                return value
            # Lost: cancelled, or its loop ended. Let it be taken off the list.
            await asyncio.sleep(0)

    def refresh(self, job: Job) -> None:
        """Compute in the background, unless somebody already does."""
        self._join(job, background=True)

    def _join(self, job: Job, *, background: bool) -> Flight:
        mine = Flight(job, self._strike, background=background)
        flight = self._flying.setdefault(job.key, mine)
        if flight is not mine:
            if flight.over:
                flight.land()
                self._strike(flight)
            return flight
        # Between the miss and this flight another may have landed and left.
        value = MISSING if background else job.cache._peek(job.key, MISSING)
        if value is MISSING:
            mine.take_off()
        else:
            mine.land(value)
        return mine

    def _strike(self, flight: Flight) -> None:
        flight.strike(self._flying)
