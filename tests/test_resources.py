"""Limits on one loop, on virtual time: what is granted, when, and to whom."""

import asyncio
import gc
import inspect
import math
import os
import sys
import weakref

import pytest

from mtaio.exceptions import (
    RateLimitError,
    ResourceError,
    ResourceLimitError,
    ResourceTimeoutError,
)
from mtaio.resources import (
    ConcurrencyLimiter,
    KeyedRateLimiter,
    RateLimiter,
    ResourceLimiter,
)
from on_virtual_time import about, on_virtual_time

# --- RateLimiter -------------------------------------------------------------


def test_a_full_bucket_grants_its_burst_and_no_more(clock):
    limiter = RateLimiter(10, 3, clock=clock)

    assert [limiter.try_acquire() for _ in range(5)] == [True] * 3 + [False] * 2


def test_tokens_come_back_at_the_rate(clock):
    limiter = RateLimiter(10, 3, clock=clock)
    limiter.try_acquire(3)

    clock.advance(0.200001)

    assert limiter.try_acquire(2)
    assert not limiter.try_acquire()


def test_the_burst_defaults_to_the_tokens_of_a_second(clock):
    assert RateLimiter(2.5, clock=clock).burst == 3
    assert RateLimiter(0.1, clock=clock).burst == 1


def test_rate_and_burst_can_be_read(clock):
    limiter = RateLimiter(2.5, 7, clock=clock)

    assert (limiter.rate, limiter.burst) == (2.5, 7)


@on_virtual_time
async def test_acquire_waits_for_its_tokens(clock):
    limiter = RateLimiter(10, 1, clock=clock)
    start = clock()
    await limiter.acquire()

    await limiter.acquire()

    assert clock() - start == about(0.1)


@on_virtual_time
async def test_waiters_are_served_in_order_at_the_rate(clock):
    limiter = RateLimiter(10, 2, clock=clock)
    served = []

    async def one(number):
        await limiter.acquire()
        served.append((number, clock() - 1000))

    await asyncio.gather(*map(one, range(5)))

    assert served == [(i, about(max(0, i - 1) * 0.1)) for i in range(5)]


@on_virtual_time
async def test_a_large_request_is_not_overtaken_by_small_ones(clock):
    limiter = RateLimiter(10, 10, clock=clock)
    await limiter.acquire(10)
    served = []

    async def one(name, tokens):
        await limiter.acquire(tokens)
        served.append((name, clock() - 1000))

    await asyncio.gather(one("large", 10), one("small", 1), one("last", 2))

    assert served == [("large", about(1)), ("small", about(1.1)), ("last", about(1.3))]


@on_virtual_time
async def test_try_acquire_does_not_overtake_a_waiter(clock):
    limiter = RateLimiter(10, 10, clock=clock)
    await limiter.acquire(10)
    waiter = asyncio.create_task(limiter.acquire(10))
    await asyncio.sleep(0.5)

    taken = limiter.try_acquire()

    assert not taken
    await waiter
    assert clock() == about(1001)


def test_more_than_the_burst_is_refused_at_once(clock):
    limiter = RateLimiter(10, 3, clock=clock)

    for ask in (limiter.acquire, limiter.try_acquire, limiter.retry_after):
        with pytest.raises(ResourceLimitError, match="4 tokens asked, burst is 3"):
            ask(4)
    with pytest.raises(ResourceLimitError, match="4 tokens asked, burst is 3"):
        limiter.limit(tokens=4)


@on_virtual_time
async def test_a_wait_longer_than_the_timeout_is_refused_up_front(clock):
    limiter = RateLimiter(10, 1, clock=clock)
    await limiter.acquire()
    first = asyncio.create_task(limiter.acquire(timeout=0.1))
    await asyncio.sleep(0)

    with pytest.raises(RateLimitError) as caught:
        await limiter.acquire(timeout=0.19)

    assert clock() == 1000
    assert caught.value.retry_after == about(0.2)
    await first
    await limiter.acquire(timeout=0.2)
    assert clock() == about(1000.2)


@on_virtual_time
async def test_a_timeout_of_zero_takes_what_is_there(clock):
    limiter = RateLimiter(10, 1, clock=clock)

    await limiter.acquire(timeout=0)

    with pytest.raises(RateLimitError):
        await limiter.acquire(timeout=0)


@on_virtual_time
async def test_retry_after_counts_those_who_wait(clock):
    limiter = RateLimiter(10, 2, clock=clock)
    assert limiter.retry_after(2) == 0
    await limiter.acquire(2)
    assert limiter.retry_after() == about(0.1)
    waiter = asyncio.create_task(limiter.acquire(2))
    await asyncio.sleep(0)

    assert limiter.retry_after(2) == about(0.4)
    await waiter


@on_virtual_time
async def test_those_behind_a_cancelled_waiter_move_up(clock):
    limiter = RateLimiter(1, 5, clock=clock)
    await limiter.acquire(5)
    large = asyncio.create_task(limiter.acquire(5))
    small = asyncio.create_task(limiter.acquire(1))
    await asyncio.sleep(2)

    large.cancel()
    await small

    assert clock() == about(1002)


@on_virtual_time
async def test_a_waiter_cancelled_in_its_wake_up_turn_gives_its_tokens_back(clock):
    limiter = RateLimiter(1, 1, clock=clock)
    await limiter.acquire()
    first = asyncio.create_task(limiter.acquire())
    second = asyncio.create_task(limiter.acquire())
    asyncio.get_running_loop().call_at(1001.00000001, first.cancel)

    await asyncio.wait([first])

    if first.cancelled():
        await second
        assert clock() == about(1001)
    else:
        await second
        assert clock() == about(1002)


@on_virtual_time
async def test_tokens_granted_to_one_just_cancelled_go_to_the_next(clock):
    limiter = RateLimiter(1, 1, clock=clock)
    await limiter.acquire()
    first = asyncio.create_task(limiter.acquire())
    second = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)

    clock.advance(1.0000001)
    first.cancel()
    # Before its task has run: the line is served, and grants to one who is gone.
    assert not limiter.try_acquire()
    await second

    assert clock() == about(1001)
    assert limiter.stats().granted == 2


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_waiters_served_or_cancelled_leave_no_descriptor_open():
    limiter = RateLimiter(1000, 1)

    async def main():
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            waiters = [asyncio.create_task(limiter.acquire()) for _ in range(3)]
            await asyncio.sleep(0)
            waiters[1].cancel()
            await asyncio.gather(*waiters, return_exceptions=True)
        return len(os.listdir("/proc/self/fd")) - before

    assert asyncio.run(main()) == 0


@on_virtual_time
async def test_async_with_takes_one_token(clock):
    limiter = RateLimiter(1, 2, clock=clock)

    async with limiter:
        pass

    assert limiter.stats().granted == 1


@on_virtual_time
async def test_stats_count_tokens_requests_and_waits(clock):
    limiter = RateLimiter(10, 2, clock=clock)
    await limiter.acquire(2)
    limiter.try_acquire()
    waiter = asyncio.create_task(limiter.acquire())
    await asyncio.sleep(0)
    with pytest.raises(RateLimitError):
        await limiter.acquire(timeout=0)
    assert limiter.stats().waiting == 1

    await waiter

    stats = limiter.stats()
    assert (stats.granted, stats.refused, stats.waiting) == (3, 2, 0)
    assert stats.waited == about(0.1)


@on_virtual_time
async def test_a_decorated_function_acquires_and_keeps_its_face(clock):
    limiter = RateLimiter(1, 3, clock=clock)

    @limiter.limit
    async def plain(a: int, *, b: str = "x") -> str:
        """Say it."""
        return f"{a}{b}"

    @limiter.limit(tokens=2)
    async def heavy() -> None: ...

    assert await plain(1, b="y") == "1y"
    await heavy()

    assert limiter.stats().granted == 3
    assert plain.__name__ == "plain"
    assert plain.__doc__ == "Say it."
    assert str(inspect.signature(plain)) == "(a: int, *, b: str = 'x') -> str"
    assert inspect.iscoroutinefunction(plain)
    with pytest.raises(TypeError, match="limit decorates an async function, got 3"):
        limiter.limit(3)

    async def numbers():
        yield 1

    with pytest.raises(TypeError, match="limit decorates an async function"):
        limiter.limit(numbers)


BAD_NUMBERS = [math.nan, math.inf, -math.inf, -1, 0]
BAD_TYPES = [True, "1", b"1", [], 1j]


@pytest.mark.parametrize("value", [*BAD_NUMBERS, 9e-7, 1.1e9, 10**400])
def test_a_rate_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="rate must be"):
        RateLimiter(value, 1)


@pytest.mark.parametrize("value", [*BAD_TYPES, None])
def test_a_rate_of_a_wrong_type_is_refused(value):
    with pytest.raises(TypeError, match="rate must be"):
        RateLimiter(value, 1)


@pytest.mark.parametrize("value", [-1, 0, 2**40 + 1, 2**70])
def test_a_burst_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="burst must be"):
        RateLimiter(1, value)


@pytest.mark.parametrize("value", [*BAD_TYPES, 1.0, math.nan])
def test_a_burst_of_a_wrong_type_is_refused(value):
    with pytest.raises(TypeError, match="burst must be"):
        RateLimiter(1, value)


@pytest.mark.parametrize("value", [-1, 0, 2**70])
def test_tokens_out_of_range_are_refused(value):
    limiter = RateLimiter(1, 3)
    for ask in (limiter.acquire, limiter.try_acquire, limiter.retry_after):
        with pytest.raises(ValueError, match="tokens must be"):
            ask(value)


@pytest.mark.parametrize("value", [*BAD_TYPES, 1.0, None, math.nan])
def test_tokens_of_a_wrong_type_are_refused(value):
    limiter = RateLimiter(1, 3)
    for ask in (limiter.acquire, limiter.try_acquire, limiter.retry_after):
        with pytest.raises(TypeError, match="tokens must be"):
            ask(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e-9, -1])
def test_a_timeout_out_of_range_is_refused(value):
    for ask in (RateLimiter(1).acquire, ConcurrencyLimiter(1).acquire):
        with pytest.raises(ValueError, match="timeout must be"):
            ask(timeout=value)


@pytest.mark.parametrize("value", BAD_TYPES)
def test_a_timeout_of_a_wrong_type_is_refused(value):
    for ask in (RateLimiter(1).acquire, ConcurrencyLimiter(1).acquire):
        with pytest.raises(TypeError, match="timeout must be"):
            ask(timeout=value)


@pytest.mark.parametrize("reading", [math.nan, math.inf, -1.0])
def test_a_clock_that_gives_no_time_is_told(reading):
    with pytest.raises(ValueError, match=r"clock\(\) must return"):
        RateLimiter(1, clock=lambda: reading)


# --- ConcurrencyLimiter ------------------------------------------------------


async def test_no_more_than_the_limit_are_inside():
    limiter = ConcurrencyLimiter(3)
    inside = most = 0

    async def one():
        nonlocal inside, most
        async with limiter:
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0)
            inside -= 1

    await asyncio.gather(*(one() for _ in range(50)))

    assert most == 3
    assert limiter.stats().in_use == 0


async def test_permits_go_to_those_who_came_first():
    limiter = ConcurrencyLimiter(1)
    order = []

    async def one(number):
        async with limiter.acquire():
            await asyncio.sleep(0)
            order.append(number)

    await asyncio.gather(*map(one, range(20)))

    assert order == list(range(20))


async def test_a_permit_is_not_taken_before_it_is_awaited():
    limiter = ConcurrencyLimiter(1)

    acquisition = limiter.acquire()

    assert limiter.stats().in_use == 0
    await acquisition
    assert limiter.stats().in_use == 1
    limiter.release()


def test_try_acquire_and_release_pair_up():
    limiter = ConcurrencyLimiter(2)

    assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]
    limiter.release()
    assert limiter.try_acquire()


def test_a_release_too_many_is_an_error():
    limiter = ConcurrencyLimiter(1)

    with pytest.raises(ResourceError, match="without a permit taken"):
        limiter.release()
    assert limiter.try_acquire()
    assert not limiter.try_acquire()


async def test_try_acquire_does_not_overtake_a_waiter_for_a_permit():
    limiter = ConcurrencyLimiter(1)
    limiter.try_acquire()
    waiter = asyncio.ensure_future(limiter.acquire())
    await asyncio.sleep(0)
    assert limiter.stats().waiting == 1

    limiter.release()

    assert not limiter.try_acquire()
    await waiter
    limiter.release()


@pytest.mark.parametrize("turns", range(4))
async def test_a_waiter_cancelled_at_any_turn_loses_no_permit(turns):
    limiter = ConcurrencyLimiter(1)
    limiter.try_acquire()
    tasks = [asyncio.ensure_future(limiter.acquire()) for _ in range(2)]
    await asyncio.sleep(0)
    limiter.release()
    for _ in range(turns):
        await asyncio.sleep(0)

    tasks[0].cancel()
    await asyncio.wait(tasks[:1])

    if not tasks[0].cancelled():
        limiter.release()
    await asyncio.wait_for(tasks[1], 5)
    limiter.release()
    assert limiter.stats() == type(limiter.stats())(1, 0, 0, limiter.stats().waited)


async def test_a_permit_not_had_in_time_is_a_timeout():
    limiter = ConcurrencyLimiter(1)
    limiter.try_acquire()

    with pytest.raises(ResourceTimeoutError, match=r"no permit in 0\.001 s: 1 of 1"):
        async with limiter.acquire(timeout=0.001):
            pass

    assert limiter.stats().waiting == 0
    limiter.release()
    async with limiter.acquire(timeout=0.001):
        pass


async def test_an_error_inside_gives_the_permit_back():
    limiter = ConcurrencyLimiter(1)

    with pytest.raises(KeyError):
        async with limiter.acquire():
            raise KeyError

    assert limiter.stats().in_use == 0


async def test_a_function_limited_in_number_keeps_its_face():
    limiter = ConcurrencyLimiter(1)

    @limiter.limit
    async def work(a: int) -> int:
        """Do it."""
        assert limiter.stats().in_use == 1
        return a

    assert await work(4) == 4
    assert limiter.stats().in_use == 0
    assert (work.__name__, work.__doc__) == ("work", "Do it.")
    with pytest.raises(TypeError, match="limit decorates an async function"):
        limiter.limit(None)


@pytest.mark.parametrize("value", [-1, 0, 2**63, 2**64])
def test_a_limit_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="limit must be"):
        ConcurrencyLimiter(value)


@pytest.mark.parametrize("value", [*BAD_TYPES, 1.0, None, math.nan])
def test_a_limit_of_a_wrong_type_is_refused(value):
    with pytest.raises(TypeError, match="limit must be"):
        ConcurrencyLimiter(value)


# --- ResourceLimiter ---------------------------------------------------------


@on_virtual_time
async def test_both_limits_hold(clock):
    limiter = ResourceLimiter(rate=10, concurrency=2, burst=1, clock=clock)
    starts = []

    @limiter.limit
    async def work():
        starts.append(clock() - 1000)
        await asyncio.sleep(1)

    await asyncio.gather(*(work() for _ in range(4)))

    assert starts == [about(t) for t in (0, 0.1, 1.0, 1.1)]


@on_virtual_time
async def test_a_permit_is_given_back_when_the_tokens_are_refused(clock):
    limiter = ResourceLimiter(rate=1, concurrency=1, burst=1, clock=clock)
    async with limiter:
        pass

    with pytest.raises(RateLimitError):
        async with limiter.acquire(timeout=0.5):
            pass
    assert not limiter.try_acquire()

    assert limiter.concurrency_limiter.stats().in_use == 0


@on_virtual_time
async def test_a_timeout_is_shared_by_both_limits(clock):
    limiter = ResourceLimiter(rate=1, concurrency=1, burst=1, clock=clock)
    await limiter.acquire().__aenter__()
    asyncio.get_running_loop().call_later(0.4, limiter.release)

    with pytest.raises(RateLimitError, match=r"asked within 0\.5999"):
        async with limiter.acquire(timeout=1.0 - 1e-5):
            pass

    assert limiter.concurrency_limiter.stats().in_use == 0


def test_a_resource_limiter_takes_either_limit_alone(clock):
    assert ResourceLimiter(rate=1, clock=clock).concurrency_limiter is None
    assert ResourceLimiter(concurrency=1).rate_limiter is None
    only = ResourceLimiter(concurrency=1)
    assert only.try_acquire()
    assert not only.try_acquire()
    only.release()


def test_a_resource_limiter_checks_its_arguments(clock):
    with pytest.raises(ValueError, match="rate or concurrency must be given"):
        ResourceLimiter()
    with pytest.raises(ValueError, match="burst must be None without a rate"):
        ResourceLimiter(concurrency=1, burst=2)
    limiter = ResourceLimiter(rate=1, burst=2, clock=clock)
    with pytest.raises(ResourceLimitError, match="3 tokens asked, burst is 2"):
        limiter.acquire(3)
    for bad in (0, -1):
        with pytest.raises(ValueError, match="tokens must be"):
            limiter.try_acquire(bad)
    with pytest.raises(TypeError, match="tokens must be"):
        limiter.acquire(True)
    with pytest.raises(ValueError, match="timeout must be"):
        limiter.acquire(timeout=math.nan)


@on_virtual_time
async def test_a_permits_limit_works_in_a_task_that_is_being_cancelled(clock):
    limiter = ConcurrencyLimiter(1)
    assert limiter.try_acquire()

    async def work():
        try:
            await asyncio.sleep(10)
        finally:
            with pytest.raises(ResourceTimeoutError, match=r"no permit in 1\.0 s"):
                await limiter.acquire(timeout=1.0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (limiter.stats().in_use, limiter.stats().waiting) == (1, 0)


# --- References --------------------------------------------------------------


@pytest.mark.parametrize(
    "kind", [RateLimiter, KeyedRateLimiter, ConcurrencyLimiter, ResourceLimiter]
)
def test_limiters_by_key_live_as_long_as_they_are_used(kind):
    limiters = weakref.WeakValueDictionary()

    limiter = limiters.setdefault("host", kind(5))
    assert limiters.setdefault("host", kind(5)) is limiter
    del limiter
    gc.collect()  # a limiter and its lanes know each other

    assert not limiters


# --- Subclasses --------------------------------------------------------------


class PerMinute(RateLimiter):
    def __init__(self, count):
        super().__init__(count / 60, count)


class PerMinuteAndKey(KeyedRateLimiter):
    def __init__(self, count):
        super().__init__(count, max_keys=1)


class Half(ConcurrencyLimiter):
    def __init__(self, number):
        super().__init__(number // 2)


@pytest.mark.parametrize("kind", [PerMinute, PerMinuteAndKey, Half])
def test_arguments_changed_in_init_alone_are_refused_not_ignored(kind):
    with pytest.raises(TypeError, match=r"must do so in __new__ too"):
        kind(60)


def test_a_subclass_with_arguments_of_its_own_overrides_new_too():
    class PerHour(RateLimiter):
        def __new__(cls, count, name):
            return super().__new__(cls, count / 3600, count)

        def __init__(self, count, name):
            super().__init__(count / 3600, count)
            self.name = name

    limiter = PerHour(60, "mail")

    assert (limiter.rate, limiter.burst, limiter.name) == (60 / 3600, 60, "mail")


def test_a_subclass_may_pass_its_arguments_on_as_they_are(clock):
    class Named(KeyedRateLimiter):
        def __init__(self, rate, burst=None, **options):
            super().__init__(rate, burst, **options)

    assert Named(2.5, clock=clock).burst == 3
    assert Named(2, 7, max_keys=5).max_keys == 5
