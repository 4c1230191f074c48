"""Any order of asking, cancelling, waiting and trying, against an exact model.

The model is a fair queue over a leaky bucket in exact fractions, simulated anew
from the requests that were not cancelled. After every step the limiters must
have granted what the model has, at the same times, and hold the invariants.
"""

import asyncio
from dataclasses import dataclass, field
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import virtual_time
from mtaio.exceptions import RateLimitError
from mtaio.resources import ConcurrencyLimiter, KeyedRateLimiter, RateLimiter

# Roundings: nanoseconds of the clock, a grain per token; far below a token.
BLUR = 1e-5


@dataclass
class Request:
    asked: float
    tokens: int
    task: asyncio.Task
    granted: float | None = None
    dead: bool = False


@dataclass
class Model:
    """What a fair limiter may have granted, from the grants that stood."""

    rate: float
    burst: int
    requests: list[Request] = field(default_factory=list)

    def conforms(self) -> bool:
        grants = sorted((r.granted, r.tokens) for r in self.requests if r.granted)
        level, last = Fraction(0), Fraction(0)
        for when, tokens in grants:
            drained = (Fraction(when) - last) * Fraction(self.rate)
            level, last = max(Fraction(0), level - drained) + tokens, Fraction(when)
            if level > self.burst + Fraction(BLUR):
                return False
        return True

    def due(self, now: float, tokens: int) -> float:
        """When `tokens` asked now would be granted, from the exact past."""
        full_at = Fraction(0)
        step = 1 / Fraction(self.rate)
        waiting = [r for r in self.requests if r.granted is None and not r.dead]
        for request in self.requests:
            if request.granted is not None:
                at = max(full_at, Fraction(request.granted))
                full_at = at + request.tokens * step
        ahead = sum(request.tokens for request in waiting) + tokens
        full_at = max(full_at, Fraction(now)) + ahead * step
        return float(max(Fraction(now), full_at - self.burst * step))


@dataclass
class Side:
    """A limiter and its model."""

    model: Model
    limiter: RateLimiter | KeyedRateLimiter
    # The keyed limiter's calls are all for one key.
    key: tuple[str, ...] = ()

    def acquire(self, *arguments, **named):
        return self.limiter.acquire(*self.key, *arguments, **named)

    def attempt(self, tokens):
        return self.limiter.try_acquire(*self.key, tokens)

    def live(self):
        """The requests that wait."""
        return [r for r in self.model.requests if r.granted is None and not r.dead]

    def waiting(self, tokens, clock):
        """Ask for `tokens`; to be awaited by the task that asks."""
        request = Request(clock(), tokens, asyncio.current_task())
        self.model.requests.append(request)
        return self._wait(request, clock)

    async def _wait(self, request, clock):
        try:
            await self.acquire(request.tokens)
        except asyncio.CancelledError:
            request.dead = True
            raise
        request.granted = clock()


class Limits(RuleBasedStateMachine):
    """Two limiters of a kind on one loop, their callers, and time."""

    keyed = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = virtual_time.VirtualClock()
        self.loop = virtual_time.VirtualTimeLoop(self.clock)
        self.refusals = []
        self.sides = []

    @initialize(
        terms=st.lists(
            st.tuples(st.sampled_from([0.5, 3.0, 10.0, 333.0]), st.integers(1, 6)),
            min_size=2,
            max_size=2,
        )
    )
    def make(self, terms):
        kind, key = (KeyedRateLimiter, ("key",)) if self.keyed else (RateLimiter, ())
        for rate, burst in terms:
            limiter = kind(rate, burst, clock=self.clock)
            self.sides.append(Side(Model(rate, burst), limiter, key))

    def turn(self, seconds=0.0):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def live(self):
        return [request for side in self.sides for request in side.live()]

    @rule(data=st.data(), at=st.integers(0, 1), turn=st.booleans())
    def ask(self, data, at, turn):
        side = self.sides[at]
        tokens = data.draw(st.integers(1, side.model.burst))

        async def one():
            await side.waiting(tokens, self.clock)

        self.loop.create_task(one())
        if turn:
            self.turn()

    @rule(turn=st.booleans())
    def ask_one_after_the_other(self, turn):
        """A task that waits in both lines, where it may be cancelled in either."""

        async def one():
            for side in self.sides:
                await side.waiting(1, self.clock)

        self.loop.create_task(one())
        if turn:
            self.turn()

    @rule(
        at=st.integers(0, 1),
        tokens=st.integers(1, 6),
        timeout=st.sampled_from([0, 0.1, 1, 5]),
    )
    def ask_within(self, at, tokens, timeout):
        """Judged up front: exactly when the model says it can't be met."""
        self.turn()
        side = self.sides[at]
        tokens = min(tokens, side.model.burst)
        wait = side.model.due(self.clock(), tokens) - self.clock()

        async def one():
            request = Request(self.clock(), tokens, asyncio.current_task())
            try:
                waiting = side.acquire(tokens, timeout=timeout)
                side.model.requests.append(request)
                await waiting
            except RateLimitError as error:
                request.dead = True
                assert wait > timeout - BLUR
                self.refusals.append((error.retry_after, wait))
                return
            except asyncio.CancelledError:
                request.dead = True
                raise
            assert wait <= timeout + BLUR
            request.granted = self.clock()

        self.loop.create_task(one())
        self.turn()
        for told, true in self.refusals:
            assert told == pytest.approx(true, abs=BLUR)

    @rule(at=st.integers(0, 1), tokens=st.integers(1, 6))
    def attempt_now(self, at, tokens):
        side = self.sides[at]
        tokens = min(tokens, side.model.burst)
        self.turn()
        wait = side.model.due(self.clock(), tokens) - self.clock()
        now = self.clock()

        if side.attempt(tokens):
            assert wait <= BLUR
            assert not side.live(), "overtaken"
            side.model.requests.append(Request(now, tokens, None, granted=now))
        else:
            assert wait > -BLUR
            if not side.live():
                assert wait > 0 or wait == pytest.approx(0, abs=BLUR)

    @rule(seconds=st.sampled_from([1e-6, 0.003, 0.1, 0.5, 1.0, 2.0, 7.0]))
    def pass_time(self, seconds):
        self.turn(seconds)

    @precondition(lambda self: self.live())
    @rule(data=st.data(), turn=st.booleans())
    def cancel(self, data, turn):
        data.draw(st.sampled_from(self.live())).task.cancel()
        if turn:
            self.turn()

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def cancel_in_the_wake_up_turn(self, data):
        """Just as the head is granted: before its task has run on."""
        self.turn()
        timers = [h.when() for h in self.loop._scheduled if not h.cancelled()]
        heads = [side.live()[0] for side in self.sides if side.live()]
        if heads and timers:
            # Within the loop's resolution: the same turn, and after the timer.
            when = min(timers)
            head = data.draw(st.sampled_from(heads))
            self.loop.call_at(when + 5e-10, head.task.cancel)
            self.turn(when - self.clock() + 1e-6)

    @invariant()
    def every_window_conforms(self):
        for side in self.sides:
            assert side.model.conforms()

    @invariant()
    def first_come_first_served_and_nobody_late(self):
        for _ in range(4):
            self.turn()
        for side in self.sides:
            self.check(side)

    def check(self, side):
        order = [r.granted for r in side.model.requests if not r.dead]
        granted = [when for when in order if when is not None]
        assert order[: len(granted)] == granted, "overtaken"
        assert granted == sorted(granted)
        live = side.live()
        assert side.limiter.stats().waiting == len(live)
        if live:
            # Nothing leaked: the head is due when the model says, not later.
            tokens = live[0].tokens
            for request in live:
                request.dead = True
            due = side.model.due(self.clock(), tokens)
            for request in live:
                request.dead = False
            assert due > self.clock() - BLUR

    @invariant()
    def one_timer_per_limiter_and_loop(self):
        timers = [h for h in self.loop._scheduled if not h.cancelled()]
        assert len(timers) <= sum(bool(side.live()) for side in self.sides)

    def teardown(self):
        try:
            self.serve_the_rest()
        finally:
            self.loop.close()

    def serve_the_rest(self):
        """All who still wait are served, at the time the model says."""
        self.turn()
        due = {id(s): s.model.due(self.clock(), 0) for s in self.sides if s.live()}
        last = {id(s): s.live()[-1] for s in self.sides if s.live()}
        while live := self.live():
            self.loop.run_until_complete(asyncio.wait([r.task for r in live]))
        for side in self.sides:
            request = last.get(id(side))
            # One that came later, from the other line, may have stood behind it.
            if request is not None:
                assert request.granted == pytest.approx(due[id(side)], abs=BLUR)
            assert side.limiter.stats().waiting == 0
            granted = sum(r.tokens for r in side.model.requests if r.granted)
            assert side.limiter.stats().granted == granted


class KeyedLimits(Limits):
    keyed = True


class Permits(RuleBasedStateMachine):
    """A concurrency limiter: exact, fair, whoever is cancelled whenever."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.tasks, self.inside, self.started = [], [], set()

    @initialize(limit=st.integers(1, 3))
    def make(self, limit):
        self.most = limit
        self.limiter = ConcurrencyLimiter(limit)

    def turn(self, turns=1):
        for _ in range(turns):
            self.loop.run_until_complete(asyncio.sleep(0))

    @rule(turns=st.integers(0, 3))
    def enter(self, turns):
        number = len(self.tasks)
        leave = self.loop.create_future()

        async def one():
            self.started.add(number)
            try:
                await self.limiter.acquire()
            except asyncio.CancelledError:
                self.started.discard(number)
                raise
            # Granted in order: only those who came later may wait still.
            later = sum(other > number for other in self.started)
            self.started.discard(number)
            assert self.limiter.stats().waiting <= later, "overtaken"
            try:
                self.inside.append((number, leave))
                await leave
            finally:
                self.inside.remove((number, leave))
                self.limiter.release()

        self.tasks.append(self.loop.create_task(one()))
        self.turn(turns)

    @precondition(lambda self: self.inside)
    @rule(data=st.data(), turns=st.integers(0, 3))
    def leave(self, data, turns):
        _, leave = data.draw(st.sampled_from(self.inside))
        if not leave.done():
            leave.set_result(None)
        self.turn(turns)

    @precondition(lambda self: any(not task.done() for task in self.tasks))
    @rule(data=st.data(), turns=st.integers(0, 3))
    def cancel(self, data, turns):
        data.draw(st.sampled_from([t for t in self.tasks if not t.done()])).cancel()
        self.turn(turns)

    @rule()
    def attempt(self):
        counts = self.limiter.stats()
        taken = self.limiter.try_acquire()

        assert taken == (counts.in_use < self.most and counts.waiting == 0)
        if taken:
            self.limiter.release()

    @invariant()
    def never_more_than_the_limit_and_in_order(self):
        if not self.tasks:
            return
        assert len(self.inside) <= self.limiter.stats().in_use <= self.most
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()

    def teardown(self):
        while self.inside or any(not task.done() for task in self.tasks):
            for _, leave in list(self.inside):
                if not leave.done():
                    leave.set_result(None)
            self.turn()
        if self.tasks:
            assert self.limiter.stats().in_use == 0
            assert self.limiter.stats().waiting == 0
        self.loop.close()


for machine in (Limits, KeyedLimits, Permits):
    machine.TestCase.settings = settings(
        max_examples=40,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

TestRateLimiter = Limits.TestCase
TestKeyedRateLimiter = KeyedLimits.TestCase
TestConcurrencyLimiter = Permits.TestCase
