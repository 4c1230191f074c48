"""One computation per key, however many wait for it, in whatever loops and threads."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Hashable, Iterable
from contextvars import ContextVar
from functools import partial
from inspect import isawaitable, iscoroutine
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import _rust
from .exceptions import CacheError

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ("MISSING", "Flights", "Job", "ListedCache")

T = TypeVar("T")

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
        """Run the factory."""
        value = self.factory()
        return await value if isawaitable(value) else value

    def compute_here(self) -> Any:
        """As `compute`, for a factory that returns the value itself."""
        value = self.factory()
        if isawaitable(value):
            if iscoroutine(value):
                value.close()
            raise TypeError(f"factory must not be awaitable here, it gave {value!r}")
        return value

    def hold(self, value: Any) -> bool:
        """Have the cache hold the value, unless one was set meanwhile: it is newer."""
        return self.cache._add_stale(self.key, value, self.ttl, self.stale)

    def take_back(self, value: Any) -> None:
        """Take the value out if it still is the one."""
        if self.cache._peek(self.key, MISSING) is value:
            self.cache.delete_nowait(self.key)


class Flight:
    """One computation, and how to wake those who wait for it.

    It runs as a task of the loop that started it, owned by no caller: a caller
    that is cancelled only stops waiting. When the last one has, the task is
    cancelled too, unless it refreshes a stale value in the background. Without a
    loop it runs in the call, and so on the thread, of who started it.

    `land` has an effect once: from the computation or, if its loop is gone, from
    whoever notices; waiters of other loops are woken thread-safely.
    """

    def __init__(
        self,
        job: Job,
        landed: "Callable[[Flight], object]",
        loop: asyncio.AbstractEventLoop | None,
        *,
        background: bool,
    ) -> None:
        self.job = job
        self.background = background
        self._on_landed = landed
        # Empty once it was taken off the list.
        self._listed = [True]
        self._loop = loop
        self._task: asyncio.Task[None] | None = None
        self._lock = threading.Lock()
        self._waiters: set[Callable[[], object]] = set()
        self._landed = False
        self._value: Any = MISSING
        self._error: BaseException | None = None
        self._trace: TracebackType | None = None

    @property
    def over(self) -> bool:
        """Whether it landed, or never will since its loop was closed."""
        return self._landed or (self._loop is not None and self._loop.is_closed())

    def take_off(self) -> None:
        """Start it. Its waiters hear of its end whatever becomes of it."""
        if self._loop is None:
            self._fly_here()
            return
        task = self._loop.create_task(self._fly())
        if not self._landed:  # as an eager task may have
            self._task = task
        # A task cancelled before its first step never enters `_fly`.
        task.add_done_callback(lambda _: self.land())

    def land(self, value: Any = MISSING, error: BaseException | None = None) -> None:
        """Give all who wait the value or the error; without either, it is lost."""
        with self._lock:
            if self._landed:
                return
            self._value, self._error = value, error
            self._trace = None if error is None else error.__traceback__
            self._landed = True
            self._task = None  # its context refers to this flight
            waiters, self._waiters = self._waiters, set()
        for wake in waiters:
            wake()
        self._on_landed(self)

    def strike(self, flying: dict[Hashable, "Flight"]) -> None:
        """Take it off the list, exactly once: it has landed, or its key must go.

        Only then can the entry be another's, so it needs no comparison. The key's
        `__eq__` may raise; the next who meets the flight tries again.
        """
        try:
            # Without the lock, amid which a finalizer or the handler of a signal
            # may come and take the key out.
            self._listed.pop()
        except IndexError:
            return
        try:
            flying.pop(self.job.key, None)
        except BaseException:
            self._listed.append(True)
            raise

    async def wait(self) -> Any:
        """Return the value or raise the error; `MISSING` if there is neither."""
        self._refuse_own()
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        wake = partial(_call, loop, partial(_wake, waiter))
        if self._board(wake):
            try:
                await self._landing(waiter)
            finally:
                self._leave(wake)
        try:
            return self._result()
        finally:
            # The traceback of an error holds this frame, and `self` the error.
            del self

    def wait_here(self) -> Any:
        """As `wait`, with this thread."""
        self._refuse_own()
        if self._loop is not None and self._loop is asyncio._get_running_loop():
            raise CacheError(
                f"waiting for {self.job.key!r} here would block the event loop that "
                "computes it"
            )
        landed = threading.Event()
        wake = landed.set
        if self._board(wake):
            try:
                while not landed.wait(_LOOK_AFTER):
                    if self.over:
                        self.land()
            finally:
                self._leave(wake)
        try:
            return self._result()
        finally:
            del self

    def _refuse_own(self) -> None:
        if self in _aboard.get():
            raise CacheError(
                f"the factory of {self.job.key!r} asks for the very key it computes"
            )

    def _board(self, wake: Callable[[], object]) -> bool:
        """Have `wake` called at the end; False if that is over."""
        with self._lock:
            if not self._landed:
                self._waiters.add(wake)
            return not self._landed

    def _result(self) -> Any:
        if self._error is None:
            return self._value
        try:
            # Each raises it from where it came: raised again and again as it is,
            # its traceback would grow with all who waited.
            raise self._error.with_traceback(self._trace)
        finally:
            del self

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
        _aboard.set((self,) if self.background else (*_under_way(), self))
        count = self.job.cache._count_load
        try:
            value = await self.job.compute()
            self._hold(value)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # it was this task that was cancelled: lost, not failed
            self._fail(CacheError(f"computing {self.job.key!r} was cancelled"), error)
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise  # this loop ends: lost
        except BaseException as error:  # noqa: BLE001 - it reaches all who wait
            self._fail(error)
        else:
            count(False)
            self.land(value)
        finally:
            self.land()
            del self  # as in `wait`

    def _fly_here(self) -> None:
        count = self.job.cache._count_load
        aboard = _aboard.set((*_under_way(), self))
        try:
            value = self.job.compute_here()
            self._hold(value)
        except (GeneratorExit, KeyboardInterrupt, SystemExit):
            raise  # meant for this thread: lost
        except BaseException as error:  # noqa: BLE001 - it reaches all who wait
            self._fail(error)
        else:
            count(False)
            self.land(value)
        finally:
            _aboard.reset(aboard)
            self.land()
            del self

    def _hold(self, value: Any) -> None:
        """Have the cache hold the value, unless its key was taken out meanwhile."""
        if self._listed:
            held = self.job.hold(value)
            if held and not self._listed:  # since we looked, by another thread
                self.job.take_back(value)

    def _fail(self, error: BaseException, cause: BaseException | None = None) -> None:
        if cause is not None:  # to set None would hide what it was raised amid
            error.__cause__ = cause
        self.job.cache._count_load(True)
        if self.background and self._loop is not None:
            message = f"refreshing the stale value of {self.job.key!r} failed"
            self._loop.call_exception_handler({"message": message, "exception": error})
        self.land(error=error)

    def _leave(self, wake: Callable[[], object]) -> None:
        with self._lock:
            self._waiters.discard(wake)
        if self._loop is not None and self._unwanted():
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


def _under_way() -> tuple[Flight, ...]:
    """Those that have not landed, which a context that lives on would hold for ever."""
    return tuple(flight for flight in _aboard.get() if not flight.over)


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
        # By key; empty while nothing is computed.
        self.flying: dict[Hashable, Flight] = {}
        self._process = os.getpid()

    async def run(self, job: Job) -> Any:
        """Return what the job gives, computed once for all who ask meanwhile."""
        while True:
            value = await self._join(job, asyncio.get_running_loop()).wait()
            if value is not MISSING:
                return value
            # Lost: cancelled, or its loop ended. Let it be taken off the list.
            await asyncio.sleep(0)

    def run_here(self, job: Job) -> Any:
        """As `run`, with this thread."""
        while True:
            value = self._join(job, None).wait_here()
            if value is not MISSING:
                return value

    def refresh(self, job: Job) -> None:
        """Compute in the background, unless somebody already does."""
        self._join(job, asyncio.get_running_loop(), background=True)

    def forget(self, key: Hashable) -> None:
        """Let what computes `key` now serve only those who wait for it already."""
        self._leave_to_parent()
        if (flight := self.flying.get(key)) is not None:
            self._strike(flight)

    def forget_all(self) -> None:
        """As `forget`, all keys."""
        self._leave_to_parent()
        for flight in list(self.flying.values()):
            self._strike(flight)

    def _leave_to_parent(self) -> None:
        """What flew at a fork goes on in the parent; here nobody would land it."""
        if self._process != os.getpid():
            self.flying, self._process = {}, os.getpid()

    def _join(
        self,
        job: Job,
        loop: asyncio.AbstractEventLoop | None,
        *,
        background: bool = False,
    ) -> Flight:
        self._leave_to_parent()
        mine = Flight(job, self._strike, loop, background=background)
        flight = self.flying.setdefault(job.key, mine)
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
        flight.strike(self.flying)


# As `super()` has them, which takes as long to find one as that takes.
_delete = _rust.Cache.delete_nowait
_pop = _rust.Cache.pop_nowait
_delete_many = _rust.Cache.delete_many_nowait
_clear = _rust.Cache.clear_nowait


class ListedCache(_rust.Cache[T]):
    """A cache, and what computes for it now, which must know what is taken out."""

    __slots__ = ("_flights",)

    _flights: Flights

    def delete_nowait(self, key: Hashable) -> bool:
        """Take `key` out; return whether it had a live value."""
        if self._flights.flying:
            self._flights.forget(key)
        return _delete(self, key)

    def pop_nowait(self, key: Hashable, *default: Any) -> Any:
        """Take `key` out and return its live value, else the default."""
        if self._flights.flying:
            self._flights.forget(key)
        return _pop(self, key, *default)

    def delete_many_nowait(self, keys: Iterable[Hashable]) -> int:
        """Take `keys` out; return how many had a live value."""
        if self._flights.flying:
            keys = list(keys)
            for key in keys:
                self._flights.forget(key)
        return _delete_many(self, keys)

    def clear_nowait(self) -> None:
        """Take everything out."""
        if self._flights.flying:
            self._flights.forget_all()
        _clear(self)
