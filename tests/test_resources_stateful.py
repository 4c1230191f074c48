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


class Limits(RuleBasedStateMachine):
    """One limiter of a kind, its callers, and time."""

    keyed = False

    def __init__(self) -> None:
        super().__init__()
        self.clock = virtual_time.VirtualClock()
        self.loop = virtual_time.VirtualTimeLoop(self.clock)
        self.refusals = []

    @initialize(rate=st.sampled_from([0.5, 3.0, 10.0, 333.0]), burst=st.integers(1, 6))
    def make(self, rate, burst):
        self.model = Model(rate, burst)
        if self.keyed:
            limiter = KeyedRateLimiter(rate, burst, clock=self.clock)
            self.acquire = lambda *a, **k: limiter.acquire("key", *a, **k)
            self.attempt = lambda n: limiter.try_acquire("key", n)
        else:
            limiter = RateLimiter(rate, burst, clock=self.clock)
            self.acquire, self.attempt = limiter.acquire, limiter.try_acquire
        self.limiter = limiter

    def turn(self, seconds=0.0):
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def live(self):
        return [r for r in self.model.requests if r.granted is None and not r.dead]

    @rule(data=st.data(), turn=st.booleans())
    def ask(self, data, turn):
        tokens = data.draw(st.integers(1, self.model.burst))

        async def one():
            request = Request(self.clock(), tokens, asyncio.current_task())
            self.model.requests.append(request)
            try:
                await self.acquire(tokens)
            except asyncio.CancelledError:
                request.dead = True
                raise
            request.granted = self.clock()

        self.task = self.loop.create_task(one())
        if turn:
            self.turn()

    @rule(tokens=st.integers(1, 6), timeout=st.sampled_from([0, 0.1, 1, 5]))
    def ask_within(self, tokens, timeout):
        """Judged up front: exactly when the model says it can't be met."""
        self.turn()
        tokens = min(tokens, self.model.burst)
        wait = self.model.due(self.clock(), tokens) - self.clock()

        async def one():
            request = Request(self.clock(), tokens, asyncio.current_task())
            try:
                waiting = self.acquire(tokens, timeout=timeout)
                self.model.requests.append(request)
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

    @rule(tokens=st.integers(1, 6))
    def attempt_now(self, tokens):
        tokens = min(tokens, self.model.burst)
        self.turn()
        wait = self.model.due(self.clock(), tokens) - self.clock()
        now = self.clock()

        if self.attempt(tokens):
            assert wait <= BLUR
            assert not self.live(), "overtaken"
            self.model.requests.append(Request(now, tokens, None, granted=now))
        else:
            assert wait > -BLUR
            if not self.live():
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
    @rule()
    def cancel_in_the_wake_up_turn(self):
        """Just as the head is granted: before its task has run on."""
        self.turn()
        timers = [h.when() for h in self.loop._scheduled if not h.cancelled()]
        live = self.live()
        if live and timers:
            # Within the loop's resolution: the same turn, and after the timer.
            when = min(timers)
            self.loop.call_at(when + 5e-10, live[0].task.cancel)
            self.turn(when - self.clock() + 1e-6)

    @invariant()
    def every_window_conforms(self):
        if hasattr(self, "model"):
            assert self.model.conforms()

    @invariant()
    def first_come_first_served_and_nobody_late(self):
        if not hasattr(self, "model"):
            return
        for _ in range(4):
            self.turn()
        order = [r.granted for r in self.model.requests if not r.dead]
        granted = [when for when in order if when is not None]
        assert order[: len(granted)] == granted, "overtaken"
        assert granted == sorted(granted)
        live = self.live()
        assert self.limiter.stats().waiting == len(live)
        if live:
            # Nothing leaked: the head is due when the model says, not later.
            tokens = live[0].tokens
            for request in live:
                request.dead = True
            due = self.model.due(self.clock(), tokens)
            for request in live:
                request.dead = False
            assert due > self.clock() - BLUR

    @invariant()
    def one_timer_per_limiter_and_loop(self):
        timers = [h for h in self.loop._scheduled if not h.cancelled()]
        assert len(timers) <= 1

    def teardown(self):
        try:
            if hasattr(self, "model"):
                self.serve_the_rest()
        finally:
            self.loop.close()

    def serve_the_rest(self):
        """All who still wait are served, at the time the model says."""
        self.turn()
        live = self.live()
        if live:
            due = self.model.due(self.clock(), 0)
            pending = [request.task for request in live]
            self.loop.run_until_complete(asyncio.wait(pending))
            assert live[-1].granted == pytest.approx(due, abs=BLUR)
        assert self.limiter.stats().waiting == 0
        granted = sum(r.tokens for r in self.model.requests if r.granted)
        assert self.limiter.stats().granted == granted


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
