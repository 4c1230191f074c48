"""Machine instructions per call, counted by callgrind: figures no noise moves.

    python benches/instructions.py

All rows run in one process under valgrind, which writes its counts down whenever
`getppid` is called: before and after each row. The loop around the calls is taken
off, and native threads are counted apart: a log's writer is not in its rows. What
the kernel does is not counted, and valgrind makes reading the clock a system call:
so this tells what the binding costs, not the clock.
"""

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import repeat
from pathlib import Path

from log_handlers import MAKERS
from measure import rows
from mtaio.cache import TTLCache
from mtaio.events import EventEmitter
from mtaio.resources import KeyedRateLimiter, RateLimiter

CALLS = 2_000
PLENTY = 10**9


async def idle() -> None:
    """What a call to a coroutine function costs at the least."""


def empty() -> Callable[[int], None]:
    def run(calls: int) -> None:
        for _ in repeat(None, calls):
            pass

    return run


def dict_get() -> Callable[[int], None]:
    read = {"key": 1}.get

    def run(calls: int) -> None:
        for _ in repeat(None, calls):
            read("key")

    return run


def try_acquire() -> Callable[[int], None]:
    take = RateLimiter(PLENTY, PLENTY).try_acquire

    def run(calls: int) -> None:
        for _ in repeat(None, calls):
            take()

    return run


def keyed_hit() -> Callable[[int], None]:
    take = KeyedRateLimiter(1000, 2**30).try_acquire

    def run(calls: int) -> None:
        for _ in repeat(None, calls):
            take("key")

    return run


def held(name: str) -> Callable[[str], object]:
    cache = TTLCache[int]()
    cache.set_nowait("key", 1)
    return getattr(cache, name)  # type: ignore[no-any-return]


def cache_get(key: str) -> Callable[[int], None]:
    read = held("get_nowait")

    def run(calls: int) -> None:
        for _ in repeat(None, calls):
            read(key)

    return run


def awaited(acquire: Callable[[], object]) -> Callable[[int], None]:
    async def loop(calls: int) -> None:
        for _ in repeat(None, calls):
            await acquire()

    def run(calls: int) -> None:
        # None of them waits, so no event loop is needed.
        try:
            loop(calls).send(None)
        except StopIteration:
            return

    return run


async def plain(listeners: list[Callable[[object], object]], data: object) -> None:
    """What one writes by hand in place of an emitter."""
    for each in listeners:
        await each(data)


async def hear(event: object) -> None:
    """A listener."""


def emitted(count: int) -> Callable[[], object]:
    emitter = EventEmitter()
    for _ in range(count):
        emitter.add_listener("event", hear)
    return partial(emitter.emit, "event", 1)


def logged(name: str) -> Callable[[int], None]:
    """Calls of one of the candidates of `log_handlers.py`, rotating."""
    folder = Path(tempfile.mkdtemp(prefix="mtaio-bench-"))
    made = MAKERS[name](folder)
    atexit.register(shutil.rmtree, folder)
    atexit.register(made.finish)
    return made.calls


ROWS: dict[str, Callable[[], Callable[[int], None]]] = {
    "the loop alone": empty,
    "dict.get(key)": dict_get,
    "RateLimiter.try_acquire()": try_acquire,
    "KeyedRateLimiter.try_acquire(key)": keyed_hit,
    "TTLCache.get_nowait(key)": lambda: cache_get("key"),
    "the same, absent": lambda: cache_get("absent"),
    "await an empty async def": lambda: awaited(idle),
    "await RateLimiter.acquire()": lambda: awaited(RateLimiter(PLENTY, PLENTY).acquire),
    "await TTLCache.get(key)": lambda: awaited(partial(held("get"), "key")),
    "a plain loop, 1 listener": lambda: awaited(partial(plain, [hear], 1)),
    "emit, 1 listener": lambda: awaited(emitted(1)),
    "a plain loop, 10 listeners": lambda: awaited(partial(plain, [hear] * 10, 1)),
    "emit, 10 listeners": lambda: awaited(emitted(10)),
    "Logger.info, NullHandler": lambda: logged("NullHandler"),
    "the same, RotatingFileHandler": lambda: logged("RotatingFileHandler"),
    "the same, AsyncFileHandler": lambda: logged("AsyncFileHandler"),
    "the same, make_record": lambda: logged("AsyncFileHandler, make_record"),
    "AsyncLogger.info": lambda: logged("AsyncLogger"),
}


def run_all() -> None:
    """Every row once, between two calls of `getppid`; warmed up before."""
    for make in ROWS.values():
        run = make()
        run(CALLS)
        os.getppid()
        run(CALLS)
        os.getppid()


def counted() -> list[int]:
    """Instructions of each row, by a process under valgrind."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            "valgrind",
            "--tool=callgrind",
            "--dump-before=getppid",
            "--separate-threads=yes",
            f"--callgrind-out-file={folder}/part",
            *(sys.executable, __file__, "rows"),
        ]
        subprocess.run(command, capture_output=True, check=True)
        # Part 2n+1 is all that came before a row, part 2n+2 the row.
        parts = [Path(folder, f"part.{2 * n + 2}-01") for n in range(len(ROWS))]
        found = [
            re.search(r"^totals: (\d+)", p.read_text(), re.MULTILINE) for p in parts
        ]
    return [int(match[1]) for match in found if match]


def main() -> None:
    loop, *counts = counted()
    figures = [(count - loop) / CALLS for count in counts]
    _, *names = ROWS
    base = figures[0]
    rows(
        f"Python {sys.version.split()[0]}: instructions per call",
        ("", "instructions", "of dict.get's"),
        [
            (name, f"{n:.0f}", f"{n / base:.2f}x")
            for name, n in zip(names, figures, strict=True)
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        run_all()
    else:
        main()
