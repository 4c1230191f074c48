"""The ratios at a glance: mtaio against the named peers, in one run.

    make bench, or python benches/compare.py

Prints a Markdown table: how many times as fast mtaio is as the peer, and the
figure to reach. `benches/README.md` says how to read it.
"""

import asyncio
import logging
import logging.handlers
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import aiolimiter
import asynciolimiter
import psutil

import measure
from cache import call_costs
from monitoring import by_psutil
from mtaio import _rust
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
                "mtaio": measure.repeated("await acquire()", acquire=limiter.acquire),
                "aiolimiter": measure.repeated("await acquire()", acquire=aio.acquire),
                "asynciolimiter": measure.repeated("await wait()", wait=leaky.wait),
                "empty": measure.repeated("await nothing()", nothing=nothing),
            }
        )

    took = asyncio.run(measured())
    what = "`await limiter.acquire()`, tokens left"
    yield Row(what, "aiolimiter", took["aiolimiter"] / took["mtaio"], 8.0)
    yield Row(what, "asynciolimiter", took["asynciolimiter"] / took["mtaio"], 8 / 3.5)
    yield Row(what, "an empty `async def`", took["empty"] / took["mtaio"], 1.0)
    took = measure.per_call(
        {
            "mtaio": measure.repeated("take()", take=limiter.try_acquire),
            "dict": measure.repeated("get('key')", get=table.get),
        }
    )
    speed = took["dict"] / took["mtaio"]
    yield Row("`limiter.try_acquire()`", "`dict.get`", speed, 1 / 2)


def cache() -> Iterator[Row]:
    """Reads and writes among 100,000 entries with a time to live each."""
    took = call_costs(("mtaio", "cachebox VTTL", "dict"), ENTRIES)
    for what, dict_target, peer_target in (
        ("get, a hit", 1.05, 1.0),
        ("get, a miss", 0.6, 1.0),
        ("set, with eviction", 4, 4 / 5.7),
    ):
        costs = took[what]
        speed = costs["dict"] / costs["mtaio"]
        yield Row(f"cache {what}", "dict", speed, 1 / dict_target)
        speed = costs["cachebox VTTL"] / costs["mtaio"]
        yield Row(f"cache {what}", "cachebox", speed, 1 / peer_target)


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
            "mtaio": measure.repeated("sample()", sample=sampler.fresh),
            "psutil": measure.repeated("sample()", sample=by_psutil),
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
