"""A process forked while callers wait for a limit: theirs are the parent's affairs."""

import asyncio
import os
import signal

import pytest

from mtaio.resources import ConcurrencyLimiter, KeyedRateLimiter, RateLimiter

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def succeeds_in_child(work):
    """Whether `work()` returns in a forked child, and within seconds."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(pid, 0)[1] == 0


async def waiting(acquire, number=3):
    tasks = [asyncio.ensure_future(acquire()) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


async def without(tasks):
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("kind", ["rate", "keyed"])
async def test_a_child_does_not_stand_behind_those_who_wait_in_its_parent(kind):
    if kind == "rate":
        limiter = RateLimiter(100, 1000)
        attempt, acquire = limiter.try_acquire, limiter.acquire
    else:
        limiter = KeyedRateLimiter(100, 1000)
        attempt = lambda *tokens: limiter.try_acquire("k", *tokens)  # noqa: E731
        acquire = lambda *tokens, **o: limiter.acquire("k", *tokens, **o)  # noqa: E731
    assert attempt(1000)
    tasks = await waiting(lambda: acquire(1000))

    def child():
        assert limiter.stats().waiting == 0
        # Behind three thousand tokens it would be due in half a minute.
        asyncio.run(awaited(acquire(timeout=1)))

    assert succeeds_in_child(child)
    assert limiter.stats().waiting == 3
    await without(tasks)


async def test_a_child_has_the_permits_that_its_parent_holds_or_waits_for():
    limiter = ConcurrencyLimiter(2)
    await limiter.acquire()
    await limiter.acquire()
    tasks = await waiting(limiter.acquire().__aenter__)

    def child():
        assert (limiter.stats().in_use, limiter.stats().waiting) == (0, 0)
        assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]
        limiter.release()
        asyncio.run(awaited(limiter.acquire(timeout=1)))
        assert limiter.stats().in_use == 2

    assert succeeds_in_child(child)
    assert (limiter.stats().in_use, limiter.stats().waiting) == (2, 3)
    await without(tasks)


async def test_a_child_that_drops_what_waited_stops_no_timer_of_its_parent():
    limiter = RateLimiter(20, 1)
    assert limiter.try_acquire()
    (task,) = await waiting(limiter.acquire, 1)

    def child():
        task.get_coro().close()
        asyncio.run(awaited(limiter.acquire(timeout=1)))

    assert succeeds_in_child(child)
    await asyncio.wait_for(task, 10)


async def awaited(awaitable):
    await awaitable
