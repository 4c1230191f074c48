"""Limiters: mtaio and its peers in the same run; ratios, accuracy, CPU.

    python benches/limiter.py [calls] [rate] [keys]

No argument runs all three parts, in about a minute.
"""

import asyncio
import random
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiolimiter
import asynciolimiter
import limits
import pyrate_limiter
import throttled.asyncio as throttled
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

import previous
from measure import per_await, per_call, rows, table
from mtaio.resources import KeyedRateLimiter, RateLimiter

Acquire = Callable[[], Awaitable[object]]
PLENTY = 10**9


def peers(rate: int, burst: int) -> dict[str, Acquire]:
    """One `acquire` of each library, at `rate` per second and this burst.

    Those that count per window get a window of `burst / rate` seconds.
    """
    window = burst / rate
    leaky = asynciolimiter.LeakyBucketLimiter(rate, capacity=burst)
    bucket = pyrate_limiter.Limiter(
        pyrate_limiter.Rate(burst, max(1, round(window * 1000)))
    )
    strategy = MovingWindowRateLimiter(MemoryStorage())
    item = limits.RateLimitItemPerSecond(rate)
    throttle = throttled.Throttled(
        key="bench",
        using="gcra",
        quota=throttled.rate_limiter.per_sec(rate, burst=burst),
        timeout=60,
    )

    async def hit() -> None:
        # limits only answers; this is how its users wait.
        while not await strategy.hit(item, "bench"):  # noqa: ASYNC110
            await asyncio.sleep(1 / rate)

    return {
        "mtaio": RateLimiter(rate, burst).acquire,
        "aiolimiter": aiolimiter.AsyncLimiter(burst, window).acquire,
        "asynciolimiter leaky": leaky.wait,
        "pyrate-limiter": bucket.try_acquire_async,
        "limits (polled)": hit,
        "throttled-py": throttle.limit,
    }


async def idle() -> None:
    """What a call to a coroutine function costs at the least."""


async def calls() -> None:
    """`await acquire()` with tokens left, and its sync twin."""

    def awaiting(acquire: Acquire) -> Callable[[int], Awaitable[None]]:
        async def run(count: int) -> None:
            for _ in range(count):
                await acquire()

        return run

    candidates = {**peers(PLENTY // 1000, PLENTY // 1000), "async def": idle}
    candidates["mtaio"] = RateLimiter(PLENTY, PLENTY).acquire
    runs = {name: awaiting(acquire) for name, acquire in candidates.items()}
    slow = {name: runs.pop(name) for name in ("pyrate-limiter", "throttled-py")}
    figures = await per_await(runs, calls=2_000, rounds=101)
    figures |= await per_await(slow, calls=300, rounds=5)
    # Measured beside aiolimiter too, in a process of its own.
    (old,) = previous.against("acquire")
    figures["mtaio 0.1.0"] = old * figures["aiolimiter"]
    table("await acquire(): speed against aiolimiter", figures, "aiolimiter")
    sync_calls()


def sync_calls() -> None:
    """`try_acquire()` and a keyed hit against `dict.get`."""
    names = [f"user-{number}" for number in range(100_000)]
    held = dict.fromkeys(names, 1)
    limiter, keyed = (
        RateLimiter(PLENTY, PLENTY),
        # So slow that each key owes, and is remembered, for the whole run.
        KeyedRateLimiter(1e-3, 2**30, max_keys=200_000),
    )
    for name in names:
        keyed.try_acquire(name)

    def get(count: int) -> None:
        read, name = held.get, names[7]
        for _ in range(count):
            read(name)

    def attempt(count: int) -> None:
        take = limiter.try_acquire
        for _ in range(count):
            take()

    def by_key(count: int) -> None:
        take, name = keyed.try_acquire, names[7]
        for _ in range(count):
            take(name)

    one = {"dict.get": get, "RateLimiter.try_acquire": attempt, "keyed": by_key}
    table(
        "one token now: cost against dict.get",
        per_call(one, calls=2_000, rounds=201),
        "dict.get",
        faster=False,
    )
    shuffled = random.Random(7).sample(names, len(names))
    for order, asked in ("in turn", names), ("at random", shuffled):
        many = {"dict.get": over(asked, held.get)}
        many["keyed"] = over(asked, keyed.try_acquire)
        figures = per_call(many, calls=100_000, rounds=7)
        table(f"100,000 known keys {order}: cost", figures, "dict.get", faster=False)


def over(keys: list[str], call: Callable[[str], object]) -> Callable[[int], None]:
    def run(count: int) -> None:
        for key in keys[:count]:
            call(key)

    return run


def excess(stamps: list[float], rate: float, burst: int) -> float:
    """Tokens over `burst + rate * T` in the worst window, at the best 0."""
    level = worst = 0.0
    last = stamps[0]
    for stamp in stamps:
        level = max(0.0, level - (stamp - last) * rate) + 1
        worst, last = max(worst, level - burst), stamp
    return worst


@dataclass
class Load:
    """So many callers at once, each asking so often, of so much."""

    tasks: int
    each: int
    rate: int
    burst: int


async def saturate(acquire: Acquire, load: Load) -> tuple[object, ...]:
    """Share of the rate, excess, order, calls served, CPU per grant."""
    stamps: list[float] = []
    order: list[int] = []

    async def one(number: int) -> None:
        for _ in range(load.each):
            await acquire()
            stamps.append(time.perf_counter())
        order.append(number)

    calls = load.tasks * load.each
    start, cpu = time.perf_counter(), time.process_time()
    running = [asyncio.create_task(one(number)) for number in range(load.tasks)]
    await asyncio.wait(running, timeout=3 * calls / load.rate)
    cpu = time.process_time() - cpu
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    served = len(stamps)
    took = (stamps[-1] if stamps else time.perf_counter()) - start
    share = max(0, served - load.burst) / (took * load.rate)
    return (
        f"{share:.3f}",
        f"{excess(stamps, load.rate, load.burst):.2f}" if stamps else "-",
        "yes" if order == sorted(order) else "no",
        f"{served}/{calls}",
        cpu / max(1, served) * 1e6,
    )


async def floor(rate: int, count: int) -> float:
    """CPU microseconds of a bare timer at this rate: what waking costs here."""
    cpu = time.process_time()
    for _ in range(count):
        await asyncio.sleep(1 / rate)
    return (time.process_time() - cpu) / count * 1e6


async def saturated(load: Load) -> None:
    """The table of all limiters under more callers than tokens."""
    lines = []
    for name, acquire in peers(load.rate, load.burst).items():
        lines.append([name, *await saturate(acquire, load)])
    if load.rate <= 1000:  # Faster than that, asyncio's timers can't go.
        bare = await floor(load.rate, 300)
        lines.append(["asyncio.sleep, no limiter", "-", "-", "-", "-", bare])
    base = next(line[-1] for line in lines if line[0] == "aiolimiter")
    for line in lines:
        line[-1] = f"{line[-1]:.0f} us ({line[-1] / base:.2f}x)"
    rows(
        f"{load.tasks} tasks x {load.each} calls, {load.rate}/s, burst {load.burst}",
        ("", "achieved", "tokens over", "in order", "served", "CPU per grant"),
        [tuple(line) for line in lines],
    )


async def rates() -> None:
    """Accuracy and CPU under load."""
    await saturated(Load(tasks=1000, each=1, rate=500, burst=1))
    await saturated(Load(tasks=200, each=100, rate=20_000, burst=100))


def keys() -> None:
    """Memory of 100,000 keys."""
    names = [f"user-{number}" for number in range(100_000)]
    keyed = KeyedRateLimiter(1, 10, max_keys=200_000)
    before = resident()
    for name in names:
        keyed.try_acquire(name)
    per_key = (resident() - before) / len(keyed)
    tracemalloc.start()
    buckets = {name: aiolimiter.AsyncLimiter(10, 1) for name in names}
    object_bytes = tracemalloc.get_traced_memory()[0] / len(buckets)
    tracemalloc.stop()
    rows(
        "bytes per key, 100,000 keys, keys apart",
        ("", "bytes"),
        [
            ("mtaio KeyedRateLimiter", f"{per_key:.0f}"),
            ("dict of aiolimiter", f"{object_bytes:.0f}"),
        ],
    )


def resident() -> int:
    """Bytes of this process in memory (Linux)."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[1]) * 4096


def main(parts: list[str]) -> None:
    print(f"Python {sys.version.split()[0]}")
    if not parts or "keys" in parts:
        keys()
    if not parts or "calls" in parts:
        asyncio.run(calls())
    if not parts or "rate" in parts:
        asyncio.run(rates())


if __name__ == "__main__":
    main(sys.argv[1:])
