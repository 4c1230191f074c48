"""Shared timing: interleaved repeats, medians, and tables of ratios.

A busy machine slows all candidates alike if they take turns, so figures are
medians over rounds in which each ran once, and only their ratios are printed.
"""

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import cycle, islice, repeat


def repeated(code: str, /, **names: object) -> Callable[[int], object]:
    """`run(calls)` for `per_call`: a loop of one statement, which may await.

    `names` are its locals. With `keys` among them, a list, each turn has the next
    `key`; the rounds go on where the one before ended.
    """
    turns = repeat(None) if "keys" not in names else cycle(names["keys"])
    kind = "async def" if "await" in code else "def"
    given = "".join(f", {name}={name}" for name in names)
    source = f"{kind} run(n{given}):\n    for key in islice(turns, n):\n        {code}"
    scope = {"islice": islice, "turns": turns, **names}
    exec(source, scope)
    return scope["run"]


def per_call(
    candidates: Mapping[str, Callable[[int], object]],
    *,
    calls: int = 20_000,
    rounds: int = 15,
) -> dict[str, float]:
    """Median seconds per call of each `run(calls)`, by name."""
    seen: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            run(calls)
            seen[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(times) for name, times in seen.items()}


async def per_await(
    candidates: Mapping[str, Callable[[int], Awaitable[object]]],
    *,
    calls: int = 20_000,
    rounds: int = 15,
) -> dict[str, float]:
    """As `per_call`, for `await run(calls)` on the running loop."""
    seen: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, run in candidates.items():
            start = time.perf_counter()
            await run(calls)
            seen[name].append((time.perf_counter() - start) / calls)
            await asyncio.sleep(0)
    return {name: statistics.median(times) for name, times in seen.items()}


async def per_run(
    candidates: Mapping[str, Callable[[], Awaitable[object]]], repeats: int
) -> dict[str, float]:
    """Median seconds of each whole run, for what is too long to call often."""
    seen: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(repeats):
        for name, run in candidates.items():
            gc.collect()
            await asyncio.sleep(0)
            start = time.perf_counter()
            await run()
            seen[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seen.items()}


def table(
    title: str,
    figures: Mapping[str, float],
    against: str,
    *,
    faster: bool = True,
    per: float = 1.0,
) -> None:
    """Print each figure and its ratio to that of `against`.

    Args:
        title: Heading.
        figures: Seconds (or another cost) by name.
        against: The name that is 1.0.
        faster: Ratios of speed (more is better), else of cost (less is).
        per: How many operations each figure stands for.
    """
    print(f"\n{title}")
    base = figures[against]
    for name, cost in sorted(figures.items(), key=lambda item: item[1]):
        ratio = base / cost if faster else cost / base
        print(f"  {name:<32} {cost / per * 1e9:>12.1f} ns  {ratio:>8.2f}x")


def rows(title: str, header: tuple[str, ...], lines: list[tuple[object, ...]]) -> None:
    """Print a plain table."""
    print(f"\n{title}")
    widths = [
        max(len(str(line[i])) for line in [header, *lines]) for i in range(len(header))
    ]
    for line in [header, *lines]:
        cells = [
            str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)
        ]
        print("  " + "  ".join(cells))
