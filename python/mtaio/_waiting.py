"""How callers wait for a limit: a future each, one timer per limiter and loop.

The line itself (who is next, what is due when) is native and shared by all
threads. Here are the futures, which belong to loops: each loop that has callers
in a limiter's line has a `Lane` there.
"""

import asyncio
import contextlib
import os
import weakref
from collections.abc import Callable
from typing import NamedTuple, Protocol

from . import _rust


class Line(Protocol):
    """The native half of a limiter, as the lanes use it."""

    def _leave(self, ticket: int) -> bool: ...
    def _drop_lane(self, lane: int) -> None: ...
    def _turn(
        self, lane: int
    ) -> tuple[list[tuple[int, int]], list[int], int | None]: ...
    def _due(self, lane: int) -> int | None: ...


class LoopTimer:
    """A one-shot timer over `loop.call_later`: up to 1 ms late on most loops."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tend: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._tend = tend
        self._handle: asyncio.TimerHandle | None = None

    def set(self, ns: int) -> None:
        self.clear()
        # A wait of centuries is looked at again after a day.
        delay = min(ns / 1e9, 86400.0)
        self._handle = self._loop.call_later(delay, self._tend)

    def clear(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    close = clear


class AlarmTimer:
    """The same over a Linux timer descriptor: late by tens of microseconds."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, tend: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._alarm = _rust.Alarm()
        loop.add_reader(self._alarm.fileno(), tend)
        self.set = self._alarm.set
        self.clear = self._alarm.clear

    def close(self) -> None:
        if not self._loop.is_closed():
            self._loop.remove_reader(self._alarm.fileno())
        # The descriptor goes with the alarm, now: a traceback may keep the timer.
        del self._alarm, self.set, self.clear


Timer = LoopTimer | AlarmTimer
TimerFactory = Callable[[asyncio.AbstractEventLoop, Callable[[], None]], Timer]


def exact_timer(loop: asyncio.AbstractEventLoop, tend: Callable[[], None]) -> Timer:
    """The best timer for the system's clock."""
    try:
        return AlarmTimer(loop, tend)
    except (OSError, NotImplementedError):
        # Not Linux, no descriptors left, or a loop that can't poll one.
        return LoopTimer(loop, tend)


class Waiter(NamedTuple):
    """One caller that waits: resolved with the clock reading of its grant."""

    future: asyncio.Future[int]
    refund: Callable[[int], None]


class Lane:
    """The callers of one loop that wait for one limiter, by ticket.

    Used by its loop's thread only, but for `nudge`.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        tend: Callable[[], None],
        timer: TimerFactory,
    ) -> None:
        self.loop = loop
        self.number = id(loop)
        self.waiters: dict[int, Waiter] = {}
        # Who is in `Lanes.wait`, from before its ticket until it has gone on.
        self.guests: set[object] = set()
        # Clock readings of grants to tickets that are not in `waiters` yet.
        self._early: dict[int, int] = {}
        self.timer = timer(loop, tend)
        self._tend = tend
        self._nudged = False

    def add(self, ticket: int, waiter: Waiter) -> None:
        self.waiters[ticket] = waiter
        if ticket in self._early:
            self.hand_out([(ticket, self._early.pop(ticket))])

    def nudge(self) -> bool:
        """Have the lane tended in its own loop. False if that is closed."""
        if self.loop.is_closed():
            return False
        if not self._nudged:
            self._nudged = True
            try:
                self.loop.call_soon_threadsafe(self._answer)
            except RuntimeError:  # Closed since we asked.
                return False
        return True

    def _answer(self) -> None:
        # Before tending: what comes later must nudge again.
        self._nudged = False
        self._tend()

    def hand_out(self, grants: list[tuple[int, int]]) -> bool:
        """Wake those granted. False if one was gone and its tokens given back."""
        whole = True
        for ticket, taken_ns in grants:
            # A ticket stays here until its waiter has left the line.
            waiter = self.waiters.pop(ticket, None)
            if waiter is None:
                # A finalizer tends the lane between joining the line and `add`.
                self._early[ticket] = taken_ns
            elif waiter.future.done():
                waiter.refund(taken_ns)
                whole = False
            else:
                waiter.future.set_result(taken_ns)
        return whole

    def set_timer(self, due: int | None) -> None:
        if due is None or not self.waiters:
            self.timer.clear()
        else:
            self.timer.set(due)


class Lanes:
    """The lanes of one limiter. Any thread."""

    def __init__(
        self,
        line: Line,
        timer: TimerFactory,
        *,
        in_order: bool = True,
        after_fork: Callable[[], None] | None = None,
    ) -> None:
        self._line = line
        self._timer = timer
        self._after_fork = after_fork
        # Whether who comes later is due later: not so where each key has a line.
        self._in_order = in_order
        # By `id(loop)`. A lane is here while it has guests, so the id is safe: the
        # lane keeps its loop alive. Single operations on a dict or set are atomic.
        self._lanes: dict[int, Lane] = {}
        _all_lanes.add(self)

    async def wait(
        self, join: Callable[[int], int | None], refund: Callable[[int], None]
    ) -> None:
        """Wait for the ticket that `join(lane number)` gives, if any.

        Cancelled at any instant, the ticket goes back, or what it was granted:
        by `refund(clock reading of the grant)`.
        """
        guest = object()
        lane = self._enter(guest)
        try:
            ticket = join(lane.number)
            if ticket is None:
                return
            waiter = Waiter(lane.loop.create_future(), refund)
            lane.add(ticket, waiter)
            try:
                if len(lane.waiters) == 1 or not self._in_order:
                    lane.set_timer(self._line._due(lane.number))
                await waiter.future
            except BaseException:  # Also when the frame is thrown away.
                self._leave(lane, ticket, waiter)
                raise
        finally:
            self._rest(lane, guest)

    def tend(self) -> None:
        """Serve the line, wake whom that grants, and set the timer anew."""
        self.drop_closed()
        lane = self._lanes.get(id(asyncio._get_running_loop()))
        number = 0 if lane is None else lane.number
        whole = False
        # Once more if something came back to the line: perhaps it serves another.
        while not whole:
            grants, others, due = self._line._turn(number)
            whole = lane is None or lane.hand_out(grants)
            for other in others:
                whole = self._hand_over(other) and whole
        if lane is not None:
            lane.set_timer(due)

    def drop_closed(self) -> None:
        """Forget the waiters of closed loops: none of them can take its turn."""
        for lane in list(self._lanes.values()):
            if lane.loop.is_closed():
                self._drop(lane)

    def _enter(self, guest: object) -> Lane:
        loop = asyncio.get_running_loop()
        self.drop_closed()
        while True:
            lane = self._lanes.get(id(loop))
            if lane is None:
                lane = self._lanes[id(loop)] = Lane(loop, self.tend, self._timer)
            lane.guests.add(guest)
            # A finalizer may have taken its last guest out, and it away, before.
            if self._lanes.get(lane.number) is lane:
                return lane

    def _rest(self, lane: Lane, guest: object) -> None:
        lane.guests.discard(guest)
        # Another may be there by now, if this one was dropped.
        if not lane.guests and self._lanes.get(lane.number) is lane:
            del self._lanes[lane.number]
            lane.timer.close()

    def _hand_over(self, number: int) -> bool:
        lane = self._lanes.get(number)
        if lane is None:
            self._line._drop_lane(number)
            return False
        if lane.nudge():
            return True
        self._drop(lane)
        return False

    def _drop(self, lane: Lane) -> None:
        if self._lanes.pop(lane.number, None) is not None:
            self._line._drop_lane(lane.number)
            lane.timer.close()
            lane.waiters.clear()

    def _leave(self, lane: Lane, ticket: int, waiter: Waiter) -> None:
        if waiter.future.done() and not waiter.future.cancelled():
            # Granted and cancelled in the same turn.
            waiter.refund(waiter.future.result())
            moved = True
        else:
            moved = self._line._leave(ticket)
            lane.waiters.pop(ticket, None)
        # Others may be due earlier now. In the next turn: a thousand that leave
        # in one turn set the timer once.
        if moved or len(self._lanes) > 1:
            for other in list(self._lanes.values()):
                if not other.nudge():
                    self._drop(other)

    def forget_parent(self) -> None:
        """In a forked child: no loop of the parent is here, nor who waits there.

        Their timers are left alone: descriptors and what polls them are shared.
        """
        lanes, self._lanes = self._lanes, {}
        for number in lanes:
            self._line._drop_lane(number)
        if self._after_fork is not None:
            self._after_fork()


# Hooks of fork can't be taken back, so there is one for all limiters.
_all_lanes: "weakref.WeakSet[Lanes]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for lanes in list(_all_lanes):
        # A clock that was passed in may raise.
        with contextlib.suppress(Exception):
            lanes.forget_parent()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
