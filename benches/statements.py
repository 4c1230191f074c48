"""Timing single statements for ratios: contenders take turns.

A shared machine is faster in one second than in the next. So every contender runs
in many short rounds, in turns with the others, and only medians of one run are
compared. The cost of the empty loop is measured like a contender and taken off.
"""

import asyncio
import gc
import inspect
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import cycle, islice, repeat
from typing import Any

# Runs its call so many times; returns the seconds that took.
Round = Callable[[int], float | Awaitable[float]]

EMPTY = "empty loop"


def calls(code: str, /, **names: Any) -> Round:
    """A round of one statement, which may await, with `names` as its locals.

    Args:
        code: Such as `"get(key)"` or `"await acquire()"`.
        names: What the statement uses. With `keys`, a list, the loop goes round
            over it and each turn has its `key`.
    """
    keys = names.pop("keys", None)
    turns = "repeat(None, n)" if keys is None else "islice(cycle(keys), n)"
    asynchronous = "async " if "await" in code else ""
    source = (
        f"{asynchronous}def round_(n, {', '.join(f'{n}={n}' for n in names)}):\n"
        f"    turns = {turns}\n"
        "    begun = clock()\n"
        "    for key in turns:\n"
        f"        {code}\n"
        "    return clock() - begun\n"
    )

    scope = names | {
        "clock": time.perf_counter,
        "cycle": cycle,
        "islice": islice,
        "keys": keys,
        "repeat": repeat,
    }
    exec(source, scope)
    return scope["round_"]


def compare(
    contenders: Mapping[str, Round], *, rounds: int = 25, seconds: float = 0.004
) -> dict[str, float]:
    """`interleave`, in an event loop of its own."""
    return asyncio.run(interleave(contenders, rounds=rounds, seconds=seconds))


async def interleave(
    contenders: Mapping[str, Round], *, rounds: int = 25, seconds: float = 0.004
) -> dict[str, float]:
    """Seconds per call of each contender, medians, less the empty loop's if given.

    Args:
        contenders: By name.
        rounds: Turns of each.
        seconds: What one round should take.
    """
    counts = {name: await _calibrate(c, seconds) for name, c in contenders.items()}
    times: dict[str, list[float]] = {name: [] for name in contenders}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds):
            # Each goes first as often as the others.
            names = list(contenders)
            shift = turn % len(names)
            for name in names[shift:] + names[:shift]:
                took = await _once(contenders[name], counts[name])
                times[name].append(took / counts[name])
    finally:
        gc.enable()
    medians = {name: statistics.median(each) for name, each in times.items()}
    overhead = medians.pop(EMPTY, 0.0)
    return {name: median - overhead for name, median in medians.items()}


async def _calibrate(contender: Round, seconds: float) -> int:
    n = 1
    while await _once(contender, n) < seconds:
        n *= 2
    return n


async def _once(contender: Round, n: int) -> float:
    took = contender(n)
    return await took if inspect.isawaitable(took) else took
