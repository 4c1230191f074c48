"""Ratios that hold on a busy machine: interleaved rounds, medians, one baseline."""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping


async def rounds(
    candidates: Mapping[str, Callable[[], Awaitable[object]]], repeats: int
) -> dict[str, float]:
    """Seconds of each candidate: the median of `repeats`, taken in turns.

    In turns, so that a slow spell of the machine slows all of them alike.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, candidate in candidates.items():
            gc.collect()
            await asyncio.sleep(0)
            begun = time.perf_counter()
            await candidate()
            taken[name].append(time.perf_counter() - begun)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def table(title: str, seconds: Mapping[str, float], per: float = 1.0) -> None:
    """Print each as a ratio to the first, with microseconds per operation."""
    print(f"\n{title}")
    baseline = next(iter(seconds.values()))
    for name, value in seconds.items():
        ratio = value / baseline
        print(f"  {name:<34} {ratio:7.3f}x {value / per * 1e6:10.2f} us")
