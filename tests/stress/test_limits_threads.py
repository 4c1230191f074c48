"""Limits under real threads and real loops: exact counts, nobody stuck."""

import asyncio
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mtaio.resources import ConcurrencyLimiter, KeyedRateLimiter, RateLimiter

THREADS = 4


@pytest.fixture(autouse=True)
def switch_often():
    """Threads take turns about as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(work):
    """`work(number)` in each thread, all starting together."""
    start = threading.Barrier(THREADS)

    def run(number):
        start.wait(30)
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(run, range(THREADS)))


def in_loops(work):
    """`await work(number)` in a loop in each thread."""
    return in_threads(lambda number: asyncio.run(work(number)))


def test_threads_drain_one_bucket_exactly():
    limiter = RateLimiter(1e-6, 20_000)

    taken = in_threads(lambda _: sum(limiter.try_acquire() for _ in range(10_000)))

    assert sum(taken) == 20_000
    assert limiter.stats().granted == 20_000
    assert limiter.stats().refused == 20_000


def test_threads_drain_each_key_exactly():
    limiter = KeyedRateLimiter(1e-6, 500)
    keys = [*range(10), *map(str, range(10)), *((n, "x") for n in range(10))]

    taken = in_threads(
        lambda _: sum(limiter.try_acquire(key) for _ in range(200) for key in keys)
    )

    assert sum(taken) == 500 * len(keys)


def test_loops_share_one_limiter_and_keep_its_rate():
    limiter = RateLimiter(2000, 10)
    grants = []

    async def work(_):
        async def one():
            await limiter.acquire()
            grants.append(time.monotonic())

        await asyncio.gather(*(one() for _ in range(200)))

    start = time.monotonic()
    in_loops(work)

    assert len(grants) == limiter.stats().granted == 800
    assert limiter.stats().waiting == 0
    # A timestamp is taken after its grant, so the whole is never too short.
    assert max(grants) - start >= (800 - 10) / 2000 - 1e-6


def test_loops_share_one_keyed_limiter():
    limiter = KeyedRateLimiter(500, 5)

    async def work(_):
        await asyncio.gather(*(limiter.acquire(n % 4) for n in range(80)))

    in_loops(work)

    assert limiter.stats().granted == 320
    assert limiter.stats().waiting == 0


def test_loops_share_one_concurrency_limiter():
    limiter = ConcurrencyLimiter(5)
    lock = threading.Lock()
    inside = most = done = 0

    async def work(_):
        async def one():
            nonlocal inside, most, done
            async with limiter:
                with lock:
                    inside += 1
                    most = max(most, inside)
                await asyncio.sleep(0)
                with lock:
                    inside -= 1
                    done += 1

        await asyncio.gather(*(one() for _ in range(300)))

    in_loops(work)

    assert (done, inside) == (1200, 0)
    assert most <= 5
    assert limiter.stats().in_use == limiter.stats().waiting == 0


def test_waiters_cancelled_in_many_loops_leave_nothing_behind():
    rate, permits = RateLimiter(5000, 1), ConcurrencyLimiter(2)

    async def work(seed):
        async def one(number):
            async with permits:
                await rate.acquire()
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(one(number)) for number in range(100)]
        for number, task in enumerate(tasks):
            if (number + seed) % 3 == 0:
                await asyncio.sleep(0)
                task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        return sum(outcome is None for outcome in ended)

    done = in_loops(work)

    assert sum(done) >= THREADS * 60
    assert permits.stats().in_use == permits.stats().waiting == 0
    assert rate.stats().waiting == 0
    # What was granted and cancelled before use was given back.
    assert rate.stats().granted <= THREADS * 100


def forget(tasks):
    """Let tasks of a loop closed under them go without asyncio's complaint."""
    for task in tasks:
        task._log_destroy_pending = False
        task.get_coro().close()


@pytest.mark.parametrize("kind", ["rate", "keyed", "permits"])
def test_a_loop_closed_with_waiters_harms_nobody(kind):
    limiter = {
        "rate": lambda: RateLimiter(100, 1),
        "keyed": lambda: KeyedRateLimiter(100, 1),
        "permits": lambda: ConcurrencyLimiter(1),
    }[kind]()
    ask = (lambda: limiter.acquire("k")) if kind == "keyed" else limiter.acquire
    attempt = (
        (lambda: limiter.try_acquire("k")) if kind == "keyed" else limiter.try_acquire
    )
    assert attempt()

    async def wait():
        await ask()

    # 1000 waiters would take 10 seconds.
    dead = asyncio.new_event_loop()
    tasks = [dead.create_task(wait()) for _ in range(1000)]
    dead.run_until_complete(asyncio.sleep(0))
    dead.close()
    if kind == "permits":
        limiter.release()

    async def live():
        await asyncio.wait_for(wait(), 5)

    asyncio.run(live())

    assert limiter.stats().waiting == 0
    forget(tasks)


def test_a_loop_closed_while_others_wait_harms_nobody():
    limiter = RateLimiter(200, 1)
    limiter.try_acquire()
    dead = asyncio.new_event_loop()
    tasks = [dead.create_task(limiter.acquire()) for _ in range(1000)]
    dead.run_until_complete(asyncio.sleep(0))
    joined = threading.Event()

    async def live():
        waiter = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        joined.set()
        await asyncio.wait_for(waiter, 4)

    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(asyncio.run, live())
        assert joined.wait(10)
        dead.close()
        result.result(10)  # Behind a thousand it would take 5 seconds.

    forget(tasks)


def test_a_loop_closed_before_it_collects_its_permit_harms_nobody():
    limiter = ConcurrencyLimiter(1)
    assert limiter.try_acquire()
    joined = threading.Event()

    async def wait():
        await limiter.acquire()

    async def live():
        waiter = asyncio.create_task(wait())
        await asyncio.sleep(0)
        joined.set()
        await asyncio.wait_for(waiter, 8)

    dead = asyncio.new_event_loop()
    task = dead.create_task(wait())
    dead.run_until_complete(asyncio.sleep(0))
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(asyncio.run, live())
        assert joined.wait(10)
        limiter.release()  # For the first in line, whose loop stands still...
        dead.close()  # ...and will never turn again.
        result.result(10)

    assert (limiter.stats().in_use, limiter.stats().waiting) == (1, 0)
    forget([task])


def test_a_loop_closed_before_it_collects_a_grant_for_a_key_harms_nobody(clock):
    limiter = KeyedRateLimiter(10, 1, clock=clock)
    assert limiter.try_acquire("k")
    dead = asyncio.new_event_loop()
    task = dead.create_task(limiter.acquire("k"))
    dead.run_until_complete(asyncio.sleep(0))
    clock.advance(0.2)
    assert not limiter.try_acquire("k")  # It goes to the first in line...
    dead.close()  # ...whose loop never turns again.

    assert limiter.try_acquire("k")

    assert limiter.stats().waiting == 0
    forget([task])


def test_a_loop_that_stands_still_with_a_grant_for_a_key_keeps_it_from_nobody(clock):
    limiter = KeyedRateLimiter(10, 1, clock=clock)
    assert limiter.try_acquire("k")
    still = asyncio.new_event_loop()
    task = still.create_task(limiter.acquire("k"))
    still.run_until_complete(asyncio.sleep(0))
    clock.advance(0.2)
    assert not limiter.try_acquire("k")  # It goes to the first in line.
    clock.advance(0.2)

    assert limiter.try_acquire("k")

    still.run_until_complete(task)
    still.close()
    assert limiter.stats().granted == 3


def test_a_loop_closed_with_a_large_request_delays_nobody():
    limiter = RateLimiter(100, 1000)
    limiter.try_acquire(1000)
    dead = asyncio.new_event_loop()
    task = dead.create_task(limiter.acquire(1000))
    dead.run_until_complete(asyncio.sleep(0))
    dead.close()

    # Behind the large request it would be due in ten seconds, and refused.
    asyncio.run(limiter.acquire(timeout=1))

    assert limiter.stats().waiting == 0
    forget([task])


def test_one_cancelled_in_a_loop_moves_up_those_of_another():
    limiter = RateLimiter(100, 1000)
    limiter.try_acquire(1000)
    joined, behind = threading.Event(), threading.Event()

    async def first():
        large = asyncio.create_task(limiter.acquire(1000))
        await asyncio.sleep(0)
        joined.set()
        await asyncio.to_thread(behind.wait, 10)
        large.cancel()

    async def second():
        small = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        behind.set()
        # Its timer was set for ten seconds.
        await asyncio.wait_for(small, 5)

    with ThreadPoolExecutor(1) as pool:
        one = pool.submit(asyncio.run, first())
        assert joined.wait(10)
        asyncio.run(second())
        one.result(10)


def test_try_acquire_works_again_after_a_loop_died_waiting():
    limiter = RateLimiter(1000, 5)
    limiter.try_acquire(5)
    dead = asyncio.new_event_loop()
    task = dead.create_task(limiter.acquire(5))
    dead.run_until_complete(asyncio.sleep(0))
    dead.close()
    time.sleep(0.002)

    assert limiter.try_acquire()
    forget([task])
