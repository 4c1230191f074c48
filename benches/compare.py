"""The ratios at a glance: mtaio against the named peers, in one run.

    make bench, or python benches/compare.py

Prints a Markdown table: how many times as fast mtaio is as the peer, and the
figure to reach. `benches/README.md` says how to read it.
"""

import asyncio
import logging
import logging.handlers
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import cycle, islice, repeat
from pathlib import Path
from typing import NamedTuple

import aiolimiter
import asynciolimiter
import cachebox
import psutil

import measure
from monitoring import by_psutil
from mtaio import _rust
from mtaio.cache import TTLCache
from mtaio.logging import AsyncFileHandler
from mtaio.resources import RateLimiter

FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
ENTRIES = 100_000


class Row(NamedTuple):
    """One line of the table; `speed` is the peer's time by ours."""

    what: str
    peer: str
    speed: float
    target: float


def repeated(code: str, /, **names: object) -> Callable[[int], object]:
    """`run(calls)` for `measure`: a loop of one statement, which may await.

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


def limits() -> Iterator[Row]:
    """Taking a token that is there."""
    # A token is always left, so that only the call is measured.
    limiter = RateLimiter(rate=1e9, burst=1_000_000)
    table = {"key": 1}

    async def nothing() -> None:
        pass

    async def measured() -> dict[str, float]:
        # The peers belong to the loop they are made in.
        aio = aiolimiter.AsyncLimiter(1_000_000, 0.001)
        leaky = asynciolimiter.LeakyBucketLimiter(1e9, capacity=1_000_000)
        return await measure.per_await(
            {
                "mtaio": repeated("await acquire()", acquire=limiter.acquire),
                "aiolimiter": repeated("await acquire()", acquire=aio.acquire),
                "asynciolimiter": repeated("await wait()", wait=leaky.wait),
                "empty": repeated("await nothing()", nothing=nothing),
            }
        )

    took = asyncio.run(measured())
    what = "`await limiter.acquire()`, tokens left"
    yield Row(what, "aiolimiter", took["aiolimiter"] / took["mtaio"], 8.0)
    yield Row(what, "asynciolimiter", took["asynciolimiter"] / took["mtaio"], 8 / 3.5)
    yield Row(what, "an empty `async def`", took["empty"] / took["mtaio"], 1.0)
    took = measure.per_call(
        {
            "mtaio": repeated("take()", take=limiter.try_acquire),
            "dict": repeated("get('key')", get=table.get),
        }
    )
    speed = took["dict"] / took["mtaio"]
    yield Row("`limiter.try_acquire()`", "`dict.get`", speed, 1 / 2)


def cache() -> Iterator[Row]:
    """Reads and writes among 100,000 entries with a time to live each."""
    numbers = random.Random(7)
    present = [f"user:{n}" for n in range(ENTRIES)]
    absent = [f"none:{n}" for n in range(ENTRIES)]
    for keys in (present, absent):
        numbers.shuffle(keys)
    plain = dict.fromkeys(present, "v")
    # With room to spare, so that no shard lacks some of them.
    ours = TTLCache[str](default_ttl=300.0, max_size=2 * ENTRIES)
    peer: cachebox.VTTLCache[str, str] = cachebox.VTTLCache(2 * ENTRIES)
    for key in present:
        ours.set_nowait(key, "v")
        peer.insert(key, "v", 300.0)
    for what, keys, target in (
        ("get, a hit", present, 1 / 1.05),
        ("get, a miss", absent, 1 / 0.6),
    ):
        took = measure.per_call(
            {
                "mtaio": repeated("get(key)", get=ours.get_nowait, keys=keys),
                "cachebox": repeated("get(key)", get=peer.get, keys=keys),
                "dict": repeated("get(key)", get=plain.get, keys=keys),
            }
        )
        yield Row(f"cache {what}", "dict", took["dict"] / took["mtaio"], target)
        speed = took["cachebox"] / took["mtaio"]
        yield Row(f"cache {what}", "cachebox", speed, 1.0)
    # Twice as many keys as there is room, so that nearly every one evicts.
    ours = TTLCache[str](default_ttl=300.0, max_size=ENTRIES)
    peer = cachebox.VTTLCache(ENTRIES)
    keys = present + absent
    took = measure.per_call(
        {
            "mtaio": repeated("put(key, 'v')", put=ours.set_nowait, keys=keys),
            "cachebox": repeated("put(key, 'v', 300.0)", put=peer.insert, keys=keys),
            "dict": repeated("table[key] = 'v'", table=plain, keys=keys),
        }
    )
    what = "cache set, with eviction"
    yield Row(what, "dict, without", took["dict"] / took["mtaio"], 1 / 4)
    yield Row(what, "cachebox", took["cachebox"] / took["mtaio"], 5.7 / 4)


def log() -> Iterator[Row]:
    """Calls of a logger whose handler writes a rotating file."""
    limits = {"backupCount": 3, "maxBytes": 5_000_000}
    with tempfile.TemporaryDirectory() as folder:
        handlers: dict[str, logging.Handler] = {
            "mtaio": AsyncFileHandler(
                f"{folder}/ours.log", max_bytes=5_000_000, backup_count=3
            ),
            "stdlib": logging.handlers.RotatingFileHandler(
                f"{folder}/peer.log", **limits
            ),
            "null": logging.NullHandler(),
        }
        loggers = {name: _logger(name, each) for name, each in handlers.items()}
        calling, written = _log_rounds(handlers, loggers)
        for handler in handlers.values():
            handler.close()
        assert all(Path(folder, name).stat().st_size for name in ("ours.log",))
    what = "a log call, rotation on"
    yield Row(what, "RotatingFileHandler", calling["stdlib"] / calling["mtaio"], 2.5)
    what = "the same, until all is written"
    yield Row(what, "RotatingFileHandler", written["stdlib"] / written["mtaio"], 2.5)


def _logger(name: str, handler: logging.Handler) -> logging.Logger:
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.Logger(f"bench.{name}", logging.INFO)
    logger.addHandler(handler)
    return logger


def _log_rounds(
    handlers: dict[str, logging.Handler], loggers: dict[str, logging.Logger]
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds per call, without and with the writing that follows."""
    lines, rounds = 2_000, 30
    calling: dict[str, list[float]] = {name: [] for name in loggers}
    written: dict[str, list[float]] = {name: [] for name in loggers}
    for _ in range(rounds):
        for name, logger in loggers.items():
            begun = time.perf_counter()
            for number in range(lines):
                logger.info("request %d took %.1f ms", number, 12.5)
            calling[name].append(time.perf_counter() - begun)
            handlers[name].flush()
            written[name].append(time.perf_counter() - begun)

    def medians(times: dict[str, list[float]]) -> dict[str, float]:
        return {name: statistics.median(each) / lines for name, each in times.items()}

    return medians(calling), medians(written)


def metrics() -> Iterator[Row]:
    """One sample of cpu, memory, io, network, disk and this process."""
    sampler = _rust.Sampler(1.0, 60)
    took = measure.per_call(
        {
            "mtaio": repeated("sample()", sample=sampler.fresh),
            "psutil": repeated("sample()", sample=by_psutil),
        },
        calls=20,
    )
    yield Row("one sample", "psutil", took["psutil"] / took["mtaio"], 1 / 0.15)


ROOMS: dict[str, Callable[[], Iterator[Row]]] = {
    "limits": limits,
    "cache": cache,
    "log": log,
    "metrics": metrics,
}


def main() -> None:
    """Print the table; arguments name the parts to run, by default all."""
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"CPython {version}, {psutil.cpu_count()} cores\n")
    print("| | against | times as fast | to reach |")
    print("|---|---|---|---|")
    for room in sys.argv[1:] or ROOMS:
        for row in ROOMS[room]():
            print(
                f"| {row.what} | {row.peer} | {row.speed:.2f} | {row.target:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
