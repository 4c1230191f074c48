"""What the limits return is taken by all that asyncio does with awaitables."""

import asyncio
import inspect

import pytest

from await_ways import LOOPS, WAYS
from mtaio.resources import ConcurrencyLimiter, KeyedRateLimiter, RateLimiter


def acquirer(kind):
    if kind == "rate":
        return RateLimiter(2000, 1).acquire
    limiter = KeyedRateLimiter(2000, 1)
    return lambda: limiter.acquire("key")


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("kind", ["rate", "keyed"])
@pytest.mark.parametrize("way", WAYS)
def test_an_acquisition_finished_or_not_is_awaited_anyhow(way, kind, new_loop):
    async def main():
        make = acquirer(kind)
        # The first has its tokens, the others wait.
        return [await WAYS[way](make) for _ in range(3)]

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(main()) == [None] * 3


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("way", WAYS.keys() - {"create_task", "task group"})
def test_a_permit_finished_or_not_is_awaited_anyhow(way, new_loop):
    async def main():
        limiter = ConcurrencyLimiter(2)
        asyncio.get_running_loop().call_later(0.01, limiter.release)
        await limiter.acquire()
        await WAYS[way](limiter.acquire)
        counts = limiter.stats()
        return counts.in_use + counts.waiting

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(main()) >= 1


def test_a_finished_acquisition_is_one_shared_object():
    limiter = RateLimiter(1000, 10)

    first, second = limiter.acquire(), limiter.acquire()

    assert first is second
    assert inspect.isawaitable(first)
    assert asyncio.iscoroutine(first)
    assert list(first) == []
    with pytest.raises(StopIteration):
        first.send(None)
    assert first.close() is None
    with pytest.raises(KeyError):
        first.throw(KeyError)
    with pytest.raises(KeyError, match="x"):
        first.throw(KeyError("x"))
    with pytest.raises(AttributeError):
        first.attribute = 1


@pytest.mark.parametrize("new_loop", LOOPS)
def test_a_thousand_callers_are_served_in_order(new_loop):
    served = []

    async def one(limiter, number):
        await limiter.acquire()
        served.append(number)

    async def main():
        limiter = RateLimiter(20_000, 10)
        await asyncio.gather(*(one(limiter, number) for number in range(1000)))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())

    assert served == list(range(1000))
