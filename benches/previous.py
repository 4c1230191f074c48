"""mtaio 0.1.0 as a peer: each row beside its yardstick, in a process of its own.

Two packages of one name can't share a process, so 0.1.0 is unpacked apart (`make
bench` does, from PyPI) and measured against what this process measures too.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

FOLDER = Path(sys.prefix, "mtaio-0.1.0")


def against(row: str) -> list[float]:
    """The figures of a row of `ROWS`, from a process that imports 0.1.0."""
    if not FOLDER.is_dir():
        sys.exit(f"{FOLDER} is missing: make bench, or pip install --target it")
    done = subprocess.run(
        [sys.executable, __file__, row],
        env={**os.environ, "PYTHONPATH": str(FOLDER)},
        capture_output=True,
        text=True,
        check=True,
    )
    return [float(figure) for figure in done.stdout.split()]


async def acquire() -> list[float]:
    """Time of `await acquire()`, tokens left, against aiolimiter's."""
    import aiolimiter

    from measure import per_await
    from mtaio.resources import RateLimiter

    old = RateLimiter(1e9, 10**6)
    peer = aiolimiter.AsyncLimiter(10**6, 1.0)

    async def by_old(calls: int) -> None:
        for _ in range(calls):
            await old.acquire()

    async def by_peer(calls: int) -> None:
        for _ in range(calls):
            await peer.acquire()

    took = await per_await({"old": by_old, "peer": by_peer}, calls=5_000)
    return [took["old"] / took["peer"]]


async def timeout() -> list[float]:
    """Cost of a limit against `asyncio.timeout`; median lateness in seconds."""
    from measure import per_run
    from mtaio.resources import TimeoutManager
    from timeouts import CALLS, lateness, stdlib, value

    # It looks for what is late every 100 ms, from when it is entered.
    async with TimeoutManager(5.0) as manager:

        async def by_old() -> None:
            for _ in range(CALLS):
                await manager.run(value())

        async def late(seconds: float) -> None:
            try:
                await manager.run(asyncio.sleep(9), timeout=seconds)
            except asyncio.CancelledError:  # What it ends with at the limit.
                raise TimeoutError from None

        took = await per_run({"old": by_old, "stdlib": stdlib}, 15)
        return [took["old"] / took["stdlib"], await lateness(late, rounds=40)]


ROWS = {"acquire": acquire, "timeout": timeout}

if __name__ == "__main__":
    print(*asyncio.run(ROWS[sys.argv[1]]()))
