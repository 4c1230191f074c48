"""100,000 tasks, at most 100 at a time: time, memory, and how long the loop is held.

The idiom to beat is `gather` over a `Semaphore`. Trivial tasks never wait;
yielding ones give up the loop once. Memory is each way's peak above what the
process had, in a process of its own.
"""

import asyncio
import functools
import itertools
import resource
import subprocess
import sys
import time
from pathlib import Path

import aiojobs
import aiometer
import anyio

import measure
from mtaio.core import TaskExecutor

TASKS = 100_000
LIMIT = 100
REPEATS = 3


async def trivial(n):
    return n


async def yielding(n):
    await asyncio.sleep(0)
    return n


async def gather_semaphore(func, tasks=TASKS):
    semaphore = asyncio.Semaphore(LIMIT)

    async def one(n):
        async with semaphore:
            return await func(n)

    return await asyncio.gather(*(one(n) for n in range(tasks)))


async def mtaio_map(func, tasks=TASKS):
    return await TaskExecutor(LIMIT).map(func, range(tasks))


async def mtaio_stream(func, tasks=TASKS):
    async for _ in TaskExecutor(LIMIT).stream(func, range(tasks)):
        pass


async def mtaio_stream_ordered(func, tasks=TASKS):
    async for _ in TaskExecutor(LIMIT).stream(func, range(tasks), ordered=True):
        pass


async def aiojobs_scheduler(func, tasks=TASKS):
    async with aiojobs.Scheduler(limit=LIMIT, pending_limit=LIMIT) as scheduler:
        jobs = [await scheduler.spawn(func(n)) for n in range(tasks)]
        for job in jobs:
            await job.wait()


async def aiometer_run(func, tasks=TASKS):
    await aiometer.run_on_each(func, range(tasks), max_at_once=LIMIT)


async def anyio_group(func, tasks=TASKS):
    limiter = anyio.CapacityLimiter(LIMIT)

    async def one(n):
        async with limiter:
            await func(n)

    async with anyio.create_task_group() as group:
        for n in range(tasks):
            group.start_soon(one, n)


WAYS = {
    "gather + Semaphore": gather_semaphore,
    "mtaio map": mtaio_map,
    "mtaio stream": mtaio_stream,
    "mtaio stream, ordered": mtaio_stream_ordered,
    "aiojobs": aiojobs_scheduler,
    "aiometer": aiometer_run,
    "anyio": anyio_group,
}
# They take longer than all the rest together; a tenth of the tasks shows as much.
SLOW = ("aiometer", "anyio")


async def longest_hold(way):
    """The longest seconds between two turns of the loop, and their median.

    Of this thread's own time: what other processes take is not held by us.
    """
    gaps, done = [], False

    async def watch():
        last = time.thread_time()
        while not done:
            await asyncio.sleep(0)
            now = time.thread_time()
            gaps.append(now - last)
            last = now

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    await way(trivial)
    done = True
    await watching
    gaps.sort()
    return gaps[-1], gaps[len(gaps) // 2]


def peak_mib() -> float:
    """This process's peak resident size so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # `ru_maxrss` starts at the parent's peak here.
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


async def measure_memory(name):
    """Run one way in this process and print how much its peak rose."""
    before = peak_mib()
    if name == "mtaio stream of 1,000,000":
        source = itertools.islice(itertools.count(), 10 * TASKS)
        async for _ in TaskExecutor(LIMIT).stream(trivial, source):
            pass
    else:
        await WAYS[name](yielding)
    print(f"{peak_mib() - before:.1f}")


async def measure_times():
    for func in (trivial, yielding):
        timed = {name: functools.partial(way, func) for name, way in WAYS.items()}
        for name in SLOW:
            del timed[name]
        slow = {name: functools.partial(WAYS[name], func, TASKS // 10) for name in SLOW}
        seconds = await measure.per_run(timed, REPEATS)
        tenths = await measure.per_run(slow, 1)
        seconds |= {name: 10 * tenth for name, tenth in tenths.items()}
        measure.table(
            f"{TASKS:,} {func.__name__} tasks",
            seconds,
            next(iter(seconds)),
            faster=False,
            per=TASKS,
        )
    print("\nlongest and median time between two turns of the loop, trivial tasks")
    for name in ("gather + Semaphore", "mtaio map", "mtaio stream"):
        longest, middle = await longest_hold(WAYS[name])
        print(f"  {name:<34} {longest * 1e3:8.2f} ms {middle * 1e3:8.2f} ms")


def main():
    asyncio.run(measure_times())
    print("\npeak memory, yielding tasks")
    for name in [*WAYS, "mtaio stream of 1,000,000"]:
        command = [sys.executable, __file__, name]
        answer = subprocess.run(command, check=True, capture_output=True, text=True)
        print(f"  {name:<34} {float(answer.stdout):8.1f} MiB")


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(measure_memory(sys.argv[1]))
    else:
        main()
