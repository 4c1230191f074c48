"""Events inside one event loop: listeners with priorities and patterns."""

import asyncio
import inspect
import itertools
import logging
import re
import time
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Any, Generic, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

from . import _rust
from .exceptions import EventHandlerError, TimeoutError

__all__ = ("Event", "EventEmitter", "EventListener", "EventPriority")

T = TypeVar("T")

_log = logging.getLogger("mtaio.events")

# Looked up once: `emit` is hot.
_monotonic = time.monotonic


class EventPriority(IntEnum):
    """The order of listeners: higher ones first, equal ones as they were added.

    `MONITOR` comes before all others, so it sees also what a listener stops.
    """

    LOWEST = 1
    LOW = 2
    NORMAL = 3
    HIGH = 4
    HIGHEST = 5
    MONITOR = 6


class Event(Generic[T]):
    """What a listener is given.

    Attributes:
        name: The name it was emitted under.
        data: What was passed to `emit`.
        propagate: Set to False by a listener, keeps the event from later ones.
        timestamp: Seconds of `time.monotonic()` when it was emitted.
    """

    # On the class, and without `__slots__`: the two make an event a third
    # cheaper, which is half of what `emit` adds to a plain loop.
    propagate: bool = True
    _metadata: dict[str, Any] | None = None

    def __init__(
        self,
        name: str,
        data: T,
        *,
        timestamp: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.data = data
        self.timestamp = time.monotonic() if timestamp is None else timestamp
        if metadata is not None:
            self._metadata = metadata

    @property
    def metadata(self) -> dict[str, Any]:
        """What was passed to `emit`, else an empty dict of its own."""
        if self._metadata is None:
            self._metadata = {}
        return self._metadata

    def __repr__(self) -> str:
        return f"Event({self.name!r}, {self.data!r})"


class _Emitted(Event[Any]):
    """An event whose attributes `emit` sets itself: half of what a call costs."""

    __init__ = object.__init__


@runtime_checkable
class EventListener(Protocol[T]):
    """A callable, sync or async, that takes one `Event`."""

    def __call__(self, event: Event[T], /) -> Awaitable[object] | object:
        """Handle `event`; an awaitable that is returned is awaited."""


Listener: TypeAlias = EventListener[Any]
L = TypeVar("L", bound=Listener)
ErrorCallback: TypeAlias = Callable[
    [Event[Any], BaseException], Awaitable[object] | object
]
C = TypeVar("C", bound=Callable[[Any, Any], Any])
Call: TypeAlias = Callable[[Event[Any]], Awaitable[object]]


class _Entry:
    """One registration."""

    __slots__ = ("call", "listener", "matches", "name", "rank")

    def __init__(self, name: str, listener: Listener, rank: tuple[int, int]) -> None:
        self.name = name
        self.matches = _matcher(name)
        self.listener = listener
        self.rank = rank
        # Swapped for `_silence` on removal, so that emits under way, which hold
        # this entry, need no check to skip it.
        self.call = (
            cast("Call", listener) if is_async(listener) else _awaiting(listener)
        )


class EventEmitter:
    """Calls listeners of named events, one after the other, by priority.

    ::

        emitter = EventEmitter()

        @emitter.on("user.*")
        async def greet(event):
            print(event.name, event.data)

        await emitter.emit("user.login", "ann")

    A name with `*` is a pattern: `*` stands for any run of characters, so
    `"*"` hears everything and `"user.*"` hears `user.login` and
    `user.login.failed`. Emits don't wait for each other, also inside a listener.
    Use one emitter from one event loop at a time.
    """

    # Names are usually few; this bounds the memory if they are made up.
    _MAX_ROUTES = 1024

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._order = itertools.count()
        # Listeners by emitted name, in order; emptied when entries change.
        self._routes: dict[str, tuple[_Entry, ...]] = {}
        self._error_callbacks: list[ErrorCallback] = []

    def on(
        self, event_name: str, priority: EventPriority = EventPriority.NORMAL
    ) -> Callable[[L], L]:
        """Register the decorated listener; it stays what it was. See `add_listener`."""
        _check(event_name, priority)

        def register(listener: L) -> L:
            self.add_listener(event_name, listener, priority)
            return listener

        return register

    def once(
        self, event_name: str, priority: EventPriority = EventPriority.NORMAL
    ) -> Callable[[L], L]:
        """Register the decorated listener for one event only.

        It is removed before it is called, so emits at the same time, or one
        from inside it, don't call it again. `remove_listener` removes it too.
        """
        _check(event_name, priority)

        def register(listener: L) -> L:
            self._add(event_name, listener, priority, once=True)
            return listener

        return register

    def add_listener(
        self,
        event_name: str,
        listener: Listener,
        priority: EventPriority = EventPriority.NORMAL,
    ) -> None:
        """Call `listener` with every event of that name. Never waits.

        Args:
            event_name: Non-empty text, or a pattern with `*`.
            listener: Takes one `Event`; sync or async. Added twice, it is
                called twice.
            priority: Higher ones are called first.

        Raises:
            TypeError, ValueError: An argument is not of that kind.
        """
        self._add(event_name, listener, priority, once=False)

    def _add(
        self, name: str, listener: Listener, priority: EventPriority, *, once: bool
    ) -> _Entry:
        _check(name, priority)
        if not callable(listener):
            raise TypeError(f"listener must be callable, got {listener!r:.80}")
        entry = _Entry(name, listener, (-priority, next(self._order)))
        if once:
            self._call_once(entry)
        self._entries.append(entry)
        self._routes.clear()
        return entry

    def _call_once(self, entry: _Entry) -> None:
        call = entry.call

        async def remove_then_call(event: Event[Any]) -> None:
            self._drop([entry])
            await call(event)

        entry.call = remove_then_call

    def remove_listener(self, event_name: str, listener: Listener) -> bool:
        """Remove every registration of `listener` under that name. Never waits.

        An emit under way no longer calls it.

        Returns:
            Whether there was one.
        """
        found = [
            entry
            for entry in self._entries
            if entry.name == event_name and entry.listener == listener
        ]
        self._drop(found)
        return bool(found)

    def remove_all_listeners(self, event_name: str | None = None) -> int:
        """Remove the listeners registered under that name or pattern, or all.

        Returns:
            How many there were.
        """
        found = [e for e in self._entries if event_name in (None, e.name)]
        self._drop(found)
        return len(found)

    def listener_count(self, event_name: str | None = None) -> int:
        """How many are registered under that name or pattern, or in all."""
        return sum(event_name in (None, entry.name) for entry in self._entries)

    def _drop(self, entries: list[_Entry]) -> None:
        for entry in entries:
            entry.call = _silence
        self._entries = [e for e in self._entries if e.call is not _silence]
        self._routes.clear()

    def on_error(self, callback: C) -> C:
        """Have `callback(event, error)` told of what listeners raise.

        Sync or async; usable as a decorator. Without any, errors are logged by
        the logger `mtaio.events`. What a callback raises is logged there too.
        """
        if not callable(callback):
            raise TypeError(f"callback must be callable, got {callback!r:.80}")
        self._error_callbacks.append(callback)
        return callback

    async def emit(
        self,
        event_name: str,
        data: object = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Call the listeners of an event in order; wait for each async one.

        A listener that raises doesn't stop the others: see `on_error`. One that
        sets `event.propagate = False` does. Listeners added meanwhile hear the
        next event; those removed meanwhile are not called.

        Args:
            event_name: Non-empty text without `*`.
            data: Becomes `event.data`.
            metadata: Becomes `event.metadata`.

        Raises:
            TypeError, ValueError: `event_name` is not such text.
        """
        try:
            route = self._routes[event_name]
        except (KeyError, TypeError):
            route = self._route(event_name)
        event: Event[Any] = _Emitted()
        event.name = event_name
        event.data = data
        event.timestamp = _monotonic()
        if metadata is not None:
            event._metadata = metadata
        # One listener is the usual case; without the loop it costs 5 % less.
        if len(route) == 1:
            [entry] = route
            try:
                await entry.call(event)
            except (Exception, asyncio.CancelledError) as error:
                if not await self._told(event, error, entry.listener):
                    raise
            return
        for entry in route:
            try:
                await entry.call(event)
            except (Exception, asyncio.CancelledError) as error:
                if not await self._told(event, error, entry.listener):
                    raise
            if not event.propagate:
                break

    async def _told(
        self,
        event: Event[Any],
        error: Exception | asyncio.CancelledError,
        listener: Listener,
    ) -> bool:
        """Report what a listener raised; False if it is `emit` that was cancelled."""
        if isinstance(error, asyncio.CancelledError):
            if _being_cancelled():
                return False
            own = EventHandlerError("the listener was cancelled by its own code")
            own.__cause__ = error
            error = own
        await self._report(event, error, listener)
        return True

    def _route(self, name: str) -> tuple[_Entry, ...]:
        _rust.text("event_name", name)
        if "*" in name:
            raise ValueError(f"event_name must be a name without '*', got {name!r:.80}")
        if len(self._routes) >= self._MAX_ROUTES:
            self._routes.clear()
        found = sorted(
            (e for e in self._entries if e.matches(name)), key=lambda e: e.rank
        )
        self._routes[name] = route = tuple(found)
        return route

    async def _report(
        self, event: Event[Any], error: Exception, listener: Listener
    ) -> None:
        if not self._error_callbacks:
            _log.error(
                "listener %r failed on event %r", listener, event.name, exc_info=error
            )
        for callback in tuple(self._error_callbacks):
            try:
                answer = callback(event, error)
                if inspect.isawaitable(answer):
                    await answer
            except Exception:  # noqa: BLE001  # a reporter's fault is logged
                _log.exception("on_error callback %r failed", callback)

    async def wait_for(
        self,
        event_name: str,
        timeout: float | None = None,
        check: Callable[[Event[Any]], bool] | None = None,
    ) -> Event[Any]:
        """Wait for the next event of that name, or pattern.

        It is seen before any other listener can stop it.

        Args:
            event_name: Non-empty text, or a pattern with `*`.
            timeout: Seconds, finite and >= 0; None waits for ever.
            check: Called with each such event; the first it accepts is
                returned. What it raises is raised here.

        Raises:
            TimeoutError: No such event in `timeout` seconds.
        """
        if timeout is not None:
            timeout = _rust.non_negative("timeout", timeout)
        if check is not None and (not callable(check) or is_async(check)):
            raise TypeError(f"check must be a plain callable, got {check!r:.80}")
        answer: asyncio.Future[Event[Any]] = asyncio.get_running_loop().create_future()

        def hear(event: Event[Any]) -> None:
            if answer.done():
                return
            try:
                if check is None or check(event):
                    answer.set_result(event)
            except Exception as error:  # noqa: BLE001  # the waiter's, not emit's
                answer.set_exception(error)

        entry = self._add(event_name, hear, EventPriority.MONITOR, once=False)
        try:
            await asyncio.wait((answer,), timeout=timeout)
        finally:
            self._drop([entry])
        if not answer.done():
            raise TimeoutError(f"no event {event_name!r} in {timeout:g} seconds")
        return answer.result()


def _check(event_name: str, priority: EventPriority) -> None:
    _rust.text("event_name", event_name)
    if not isinstance(priority, EventPriority):
        raise TypeError(f"priority must be an EventPriority, got {priority!r:.80}")


def _matcher(name: str) -> Callable[[str], object]:
    if "*" not in name:
        return name.__eq__
    parts = map(re.escape, name.split("*"))
    return re.compile(".*".join(parts), re.DOTALL).fullmatch


def is_async(callback: object) -> bool:
    """Whether a call gives a coroutine: a function's, or an object's `__call__`."""
    return inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(
        getattr(type(callback), "__call__", None)  # noqa: B004  # its async __call__
    )


async def _silence(_: Event[Any]) -> None:
    """What a removed listener is called as."""


def _awaiting(listener: Listener) -> Call:
    """`listener`, which is sync, as an async one."""

    async def call(event: Event[Any]) -> None:
        answer = listener(event)
        if answer is not None and inspect.isawaitable(answer):
            await answer

    return call


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
