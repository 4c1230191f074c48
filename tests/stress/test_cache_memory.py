"""Memory comes back, nothing stalls, nothing leaks."""

import asyncio
import gc
import itertools
import sys
import time

import pytest

from mtaio.cache import EvictionPolicy, TTLCache

MANY = 200_000


def resident_bytes():
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4096


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def fill(cache, count=MANY, ttl=None):
    for number in range(count):
        cache.set_nowait(number, bytes(200), ttl)


# By default in many shards, by weight in one.
BY_WEIGHT = {"weigher": lambda _key, value: len(value), "max_weight": 200 * MANY}


@linux_only
@pytest.mark.parametrize("bound", [{}, BY_WEIGHT], ids=["unbounded", "by weight"])
@pytest.mark.parametrize("way", ["clear", "expiry", "delete"])
def test_memory_comes_back(way, bound, clock):
    cache = TTLCache[bytes](default_ttl=1.0, clock=clock, **bound)
    gc.collect()
    before = resident_bytes()
    fill(cache)
    full = resident_bytes() - before
    assert full > MANY * 200

    if way == "clear":
        cache.clear_nowait()
    elif way == "delete":
        assert cache.delete_many_nowait(range(MANY)) == MANY
    else:
        clock.advance(1.0)
        for at in range(cache._shards):
            while not cache._sweep(at):
                pass

    assert len(cache) == 0
    assert resident_bytes() - before < full / 4


BLOCK = 1000
# Of each key of a block: set, get, every other one deleted, in each policy's cache.
OPERATIONS_PER_BLOCK = int(2.5 * BLOCK) * len(EvictionPolicy)


@linux_only
def test_ten_million_operations_do_not_grow():
    caches = [
        TTLCache[int](max_size=1500, default_ttl=1e-3, eviction_policy=policy)
        for policy in EvictionPolicy
    ]
    serial = itertools.count()

    def churn(operations):
        for _ in range(operations // OPERATIONS_PER_BLOCK):
            block = {(next(serial), "key"): 1 for _ in range(BLOCK)}
            some = list(block)[::2]
            for cache in caches:
                cache.set_many_nowait(block)
                cache.get_many_nowait(block)
                cache.delete_many_nowait(some)

    churn(200_000)
    gc.collect()
    before = resident_bytes()
    # Takes about 4 s of the processor; an unoptimised build does what it can.
    ends = time.process_time() + 15.0
    done = 0
    while done < 10_000_000 and time.process_time() < ends:
        churn(200_000)
        done += 200_000
    gc.collect()

    assert resident_bytes() - before < 2_000_000, f"after {done:,} operations"


def test_references_balance():
    value, key = object(), ("a", "key")
    cache = TTLCache[object](max_size=2)
    before = sys.getrefcount(value), sys.getrefcount(key)

    for _ in range(100):
        cache.set_nowait(key, value)
        cache.get_nowait(("a", "key"))
        cache.get_nowait("absent", value)
        cache.add_nowait(key, value)
        cache.set_nowait(1, value)
        cache.set_nowait(2, value)
        cache.pop_nowait(key, None)
        list(cache)
        cache.items_nowait()
        cache.get_many_nowait([key, 1, 2])
    cache.clear_nowait()

    assert (sys.getrefcount(value), sys.getrefcount(key)) == before


def test_a_step_of_a_mass_expiry_is_bounded(clock):
    cache = TTLCache[int](default_ttl=1.0, clock=clock)
    for number in range(MANY):
        cache.set_nowait(number, number)
    clock.advance(1.0)
    steps = []

    for at in range(cache._shards):
        done = False
        while not done:
            before = len(cache)
            done = cache._sweep(at)
            steps.append(before - len(cache))

    assert sum(steps) == MANY
    assert max(steps) <= 512


async def test_calls_go_on_amid_a_mass_expiry(clock):
    async with TTLCache[int](
        default_ttl=1.0, cleanup_interval=0.001, clock=clock
    ) as cache:
        await cache.set_many(dict.fromkeys(range(MANY), 0))
        clock.advance(1.0)
        turns = 0
        ends = time.monotonic() + 30.0
        while len(cache) and time.monotonic() < ends:
            await asyncio.sleep(0)
            turns += 1

    assert len(cache) == 0
    assert turns >= MANY // 512, "the loop turned between the steps"
