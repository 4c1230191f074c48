"""Joining a line and leaving it: what that costs, and what comes in between."""

import asyncio
import sys

import pytest

from mtaio.resources import ConcurrencyLimiter, KeyedRateLimiter, RateLimiter
from on_virtual_time import about, on_virtual_time


def timers_set(monkeypatch):
    """The delays of the timers that the running loop sets from now on."""
    loop, delays = asyncio.get_running_loop(), []
    call_later = loop.call_later

    def counted(delay, *rest, **options):
        delays.append(delay)
        return call_later(delay, *rest, **options)

    monkeypatch.setattr(loop, "call_later", counted)
    return delays


async def in_line(acquire, number):
    tasks = [asyncio.ensure_future(acquire()) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


@pytest.mark.parametrize("kind", ["rate", "keyed"])
@on_virtual_time
async def test_waiters_that_leave_from_the_tail_touch_no_timer(
    clock, monkeypatch, kind
):
    if kind == "rate":
        acquire = RateLimiter(1, 1, clock=clock).acquire
    else:
        keyed = KeyedRateLimiter(1, 1, clock=clock)
        acquire = lambda: keyed.acquire("k")  # noqa: E731
    await acquire()
    first, *others = await in_line(acquire, 50)
    delays = timers_set(monkeypatch)

    for task in reversed(others):
        task.cancel()
        await asyncio.sleep(0)

    assert delays == []
    await first
    assert clock() == about(1001)


@on_virtual_time
async def test_waiters_that_leave_from_the_head_in_one_turn_set_one_timer(
    clock, monkeypatch
):
    limiter = RateLimiter(1, 2, clock=clock)
    await limiter.acquire(2)
    *others, last = await in_line(lambda: limiter.acquire(2), 50)
    delays = timers_set(monkeypatch)

    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await last

    assert delays == [about(2)]
    assert clock() == about(1002)


async def test_a_permit_granted_while_its_waiter_joins_reaches_it():
    limiter = ConcurrencyLimiter(1)
    await limiter.acquire()

    def release_at_once(_, event, called):
        # As a finalizer may, between any two steps of the waiter.
        if event == "c_return" and called.__name__ == "_join":
            limiter.release()

    sys.setprofile(release_at_once)
    try:
        (task,) = await in_line(limiter.acquire().__aenter__, 1)
    finally:
        sys.setprofile(None)

    await asyncio.wait_for(task, 5)
    assert (limiter.stats().in_use, limiter.stats().waiting) == (1, 0)


async def test_who_waits_again_is_not_forgotten_by_those_woken_beside_it():
    limiter = ConcurrencyLimiter(2)
    await limiter.acquire()
    await limiter.acquire()

    async def twice():
        await limiter.acquire()
        await limiter.acquire()

    again, _ = await in_line(twice, 1) + await in_line(limiter.acquire().__aenter__, 1)
    for _ in range(2):  # both are woken in one turn, and the first waits again
        limiter.release()
    await asyncio.sleep(0)
    assert limiter.stats().waiting == 1

    limiter.release()

    await asyncio.wait_for(again, 5)
    assert (limiter.stats().in_use, limiter.stats().waiting) == (2, 0)


@on_virtual_time
async def test_a_bucket_serves_who_waits_again_beside_others_woken(clock):
    limiter = RateLimiter(1, 2, clock=clock)
    await limiter.acquire(2)

    async def twice():
        await limiter.acquire()
        await limiter.acquire()

    tasks = await in_line(twice, 2)
    clock.advance(2.1)
    limiter.try_acquire()  # serves the line: both are woken in one turn

    await asyncio.gather(*tasks)
    assert clock() == about(1004.1)


@on_virtual_time
async def test_a_waiter_thrown_away_while_another_joins_takes_no_lane_along(clock):
    hooks = []

    def reading():
        while hooks:
            hooks.pop()()  # as a finalizer may, amid the joining
        return clock()

    limiter = RateLimiter(1, 1, clock=reading)
    await limiter.acquire()
    abandoned, joining = limiter.acquire(), limiter.acquire()
    abandoned.send(None)
    hooks.append(abandoned.close)

    await joining

    assert (limiter.stats().granted, limiter.stats().waiting) == (2, 0)
