"""What a time limit costs, and how late it is, against `asyncio.timeout`."""

import asyncio
import random
import statistics
import time

import anyio

import measure
import previous
from mtaio.resources import TimeoutContext, TimeoutManager

CALLS = 500
REPEATS = 41


async def value():
    return 1


async def stdlib():
    for _ in range(CALLS):
        async with asyncio.timeout(5.0):
            await value()


def candidates():
    manager = TimeoutManager(5.0)

    async def wait_for():
        for _ in range(CALLS):
            await asyncio.wait_for(value(), 5.0)

    async def run():
        for _ in range(CALLS):
            await manager.run(value())

    async def context():
        for _ in range(CALLS):
            async with TimeoutContext(5.0):
                await value()

    async def anyio_fail_after():
        for _ in range(CALLS):
            with anyio.fail_after(5.0):
                await value()

    return {
        "asyncio.timeout": stdlib,
        "asyncio.wait_for": wait_for,
        "mtaio TimeoutManager.run": run,
        "mtaio TimeoutContext": context,
        "anyio.fail_after": anyio_fail_after,
    }


async def lateness(limited, seconds=0.01, rounds=200):
    """Median seconds by which a limit of `seconds` is late."""
    late = []
    for _ in range(rounds):
        # At any moment between two turns of whoever looks at the clock.
        await asyncio.sleep(random.random() * seconds)
        begun = time.perf_counter()
        try:
            await limited(seconds)
        except TimeoutError:
            late.append(time.perf_counter() - begun - seconds)
    return statistics.median(late)


async def by_stdlib(seconds):
    async with asyncio.timeout(seconds):
        await asyncio.sleep(9)


async def by_mtaio(seconds):
    await TimeoutManager(seconds).run(asyncio.sleep(9))


async def main():
    seconds = await measure.per_run(candidates(), REPEATS)
    # Measured beside `asyncio.timeout` too, in a process of its own.
    old_cost, old_late = previous.against("timeout")
    seconds["mtaio 0.1.0"] = old_cost * seconds["asyncio.timeout"]
    measure.table(
        "a limit that isn't reached",
        seconds,
        next(iter(seconds)),
        faster=False,
        per=CALLS,
    )
    print("\nmedian lateness of a 10 ms limit")
    for name, limited in [("asyncio.timeout", by_stdlib), ("mtaio", by_mtaio)]:
        print(f"  {name:<34} {await lateness(limited) * 1e3:7.3f} ms")
    print(f"  {'mtaio 0.1.0':<34} {old_late * 1e3:7.3f} ms")


if __name__ == "__main__":
    asyncio.run(main())
