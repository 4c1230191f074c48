"""Log handlers against their peers: `log_handlers.py [row ...] [--full]`.

Every ratio is of medians over rounds in which the candidates took turns. Peers
that are not installed are left out: picologging and spdlog have no wheel for
3.13. The file is not called `logging.py`, which as a script would stand in the
standard library's place.
"""

import asyncio
import logging
import logging.handlers
import multiprocessing
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import measure
from mtaio.logging import AsyncFileHandler, AsyncLogger, make_record

FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
LIMITS = {
    True: {"maxBytes": 10_000_000, "backupCount": 5},
    False: {"maxBytes": 0, "backupCount": 0},
}
OURS = {
    True: {"max_bytes": 10_000_000, "backup_count": 5},
    False: {},
}
FULL = "--full" in sys.argv


def logger_of(handler: logging.Handler) -> logging.Logger:
    made = logging.Logger("app.module", logging.INFO)
    handler.setFormatter(logging.Formatter(FORMAT))
    made.addHandler(handler)
    return made


class Candidate:
    """A way to log: `info(message, *args)`, and `finish` to have it written."""

    def __init__(self, info: Callable[..., object], finish: Callable[[], object]):
        self.info, self.finish = info, finish

    def calls(self, count: int) -> None:
        info = self.info
        for n in range(count):
            info("request %d served in %s", n, "12ms")


def stdlib(folder: Path, rotating: bool = True) -> Candidate:
    handler = logging.handlers.RotatingFileHandler(
        folder / "std.log", **LIMITS[rotating]
    )
    return Candidate(logger_of(handler).info, handler.close)


def null(folder: Path, rotating: bool = True) -> Candidate:
    return Candidate(logger_of(logging.NullHandler()).info, lambda: None)


def ours(folder: Path, rotating: bool = True) -> Candidate:
    handler = AsyncFileHandler(folder / "mtaio.log", **OURS[rotating])
    return Candidate(logger_of(handler).info, handler.close)


def with_records(folder: Path, rotating: bool = True) -> Candidate:
    """The same, with the opt-in record factory for the time of its calls."""
    handler = AsyncFileHandler(folder / "records.log", **OURS[rotating])
    made = Candidate(logger_of(handler).info, handler.close)
    plain, factory = made.calls, make_record

    def calls(count: int) -> None:
        before = logging.getLogRecordFactory()
        logging.setLogRecordFactory(factory)
        try:
            plain(count)
        finally:
            logging.setLogRecordFactory(before)

    made.calls = calls
    return made


def direct(folder: Path, rotating: bool = True) -> Candidate:
    handler = AsyncFileHandler(
        folder / "direct.log", formatter=logging.Formatter(FORMAT), **OURS[rotating]
    )
    return Candidate(AsyncLogger("app.module", "INFO", [handler]).info, handler.close)


def queue_to(
    target: logging.Handler,
) -> tuple[Callable[..., object], Callable[[], object]]:
    """A logger's `info` over a queue to `target`, and what ends it."""
    target.setFormatter(logging.Formatter(FORMAT))
    records: queue.SimpleQueue = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, target)
    listener.start()
    made = logging.Logger("app.module", logging.INFO)
    made.addHandler(logging.handlers.QueueHandler(records))

    def finish() -> None:
        listener.stop()
        target.close()

    return made.info, finish


def queued(folder: Path, rotating: bool = True) -> Candidate:
    file = logging.handlers.RotatingFileHandler(
        folder / "queue.log", **LIMITS[rotating]
    )
    return Candidate(*queue_to(file))


def loguru(folder: Path, rotating: bool = True) -> Candidate:
    from loguru import logger

    logger.remove()
    sink = logger.add(
        folder / "loguru.log",
        rotation="10 MB" if rotating else None,
        retention=5,
        format="{time:YYYY-MM-DD HH:mm:ss,SSS} - {name} - {level} - {message}",
    )

    def info(message: str, *args: object) -> None:
        logger.info(message % args)

    return Candidate(info, lambda: logger.remove(sink))


def concurrent(folder: Path, rotating: bool = True) -> Candidate:
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    handler = ConcurrentRotatingFileHandler(str(folder / "clh.log"), **LIMITS[rotating])
    return Candidate(logger_of(handler).info, handler.close)


def picologging(folder: Path, rotating: bool = True) -> Candidate:
    import picologging as pico
    from picologging.handlers import RotatingFileHandler

    handler = RotatingFileHandler(str(folder / "pico.log"), **LIMITS[rotating])
    handler.setFormatter(pico.Formatter(FORMAT))
    made = pico.Logger("app.module", pico.INFO)
    made.addHandler(handler)
    return Candidate(made.info, handler.close)


def logxide(folder: Path, rotating: bool = True) -> Candidate:
    import logxide

    # Importing it puts it in the place of `logging`, for everyone.
    logxide.uninstall()
    handler = logxide.RotatingFileHandler(
        str(folder / "logxide.log"), **LIMITS[rotating]
    )
    handler.setFormatter(logxide.Formatter(FORMAT))
    made = logxide.getLogger(f"app.module.{folder.name}")
    made.setLevel(logging.INFO)
    made.propagate = False
    made.addHandler(handler)
    return Candidate(made.info, handler.close)


def spdlog(folder: Path, rotating: bool = True) -> Candidate:
    import spdlog

    made = spdlog.RotatingLogger(
        "app.module", str(folder / "spd.log"), False, 10_000_000, 5
    )

    def info(message: str, *args: object) -> None:
        made.info(message % args)

    return Candidate(info, made.flush)


MAKERS = {
    "RotatingFileHandler": stdlib,
    "NullHandler": null,
    "AsyncFileHandler": ours,
    "AsyncFileHandler, make_record": with_records,
    "AsyncLogger": direct,
    "QueueListener": queued,
    "loguru": loguru,
    "concurrent-log-handler": concurrent,
    "picologging": picologging,
    "logxide": logxide,
    "spdlog": spdlog,
}


@contextmanager
def candidates(*names: str, rotating: bool = True):
    """The named candidates that are installed, each in a folder for all."""
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for name in names:
            try:
                made[name] = MAKERS[name](Path(folder), rotating)
            except ImportError as error:
                print(f"{name} left out: {error}")
        try:
            yield made
        finally:
            for each in made.values():
                each.finish()


def per_call(rotating: bool = True) -> None:
    with candidates(*MAKERS, rotating=rotating) as made:
        runs = {name: each.calls for name, each in made.items()}
        figures = measure.per_call(
            runs, calls=10_000 if FULL else 3_000, rounds=15 if FULL else 9
        )
        title = "A call, rotating" if rotating else "A call, without rotation"
        measure.table(title, figures, "RotatingFileHandler")
        pair = {name: figures[name] for name in ("NullHandler", "AsyncFileHandler")}
        measure.table("Against a NullHandler", pair, "NullHandler", faster=False)


def percentiles() -> None:
    print("\nTimes the median of RotatingFileHandler, per call: p50, p99, p99.9")
    with candidates(*MAKERS) as made:
        seen: dict[str, list[float]] = {name: [] for name in made}
        for name, each in made.items():
            for n in range(20_000):
                start = time.perf_counter_ns()
                each.info("request %d served in %s", n, "12ms")
                seen[name].append(time.perf_counter_ns() - start)
    base = statistics.median(seen["RotatingFileHandler"])
    for name, times in seen.items():
        cuts = statistics.quantiles(times, n=1000)
        shown = ", ".join(f"{cuts[at] / base:.2f}" for at in (499, 989, 998))
        print(f"  {name:34} {shown}")


def end_to_end() -> None:
    """From the first call to the last byte written: time, and CPU of all threads."""
    names = ("QueueListener", "AsyncFileHandler", "AsyncLogger", "RotatingFileHandler")
    wall: dict[str, list[float]] = {name: [] for name in names}
    cpu: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(7 if FULL else 3):
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                each = MAKERS[name](Path(folder))
                start, used = time.perf_counter(), time.process_time()
                each.calls(50_000)
                each.finish()
                wall[name].append(time.perf_counter() - start)
                cpu[name].append(time.process_time() - used)
    for title, seen in (("End to end", wall), ("CPU of it", cpu)):
        figures = {name: statistics.median(times) for name, times in seen.items()}
        measure.table(title, figures, "QueueListener", faster=title == "End to end")


async def at_rate(info: Callable[..., object], seconds: float) -> tuple[float, float]:
    """CPU seconds of the loop's thread and its longest stall at 20,000/s."""
    loop = asyncio.get_running_loop()
    begin = last = loop.time()
    used, stall, sent = time.thread_time(), 0.0, 0
    while (now := loop.time()) < begin + seconds:
        stall = max(stall, now - last)
        last = now
        due = int((now - begin) * 20_000)
        while sent < due:
            info("request %d served in %s", sent, "12ms")
            sent += 1
        await asyncio.sleep(0.001)
    return time.thread_time() - used, stall


def written_by(name: str, folder: str, count: int) -> None:
    each = MAKERS[name](Path(folder))
    each.calls(count)
    each.finish()


def processes() -> None:
    """Four processes log to one rotating file, and nothing may be lost."""
    count, figures = 20_000, {}
    names = ("AsyncFileHandler", "concurrent-log-handler")
    context = multiprocessing.get_context("spawn")
    for name in names:
        times = []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                crew = [
                    context.Process(target=written_by, args=(name, folder, count))
                    for _ in range(4)
                ]
                start = time.perf_counter()
                for each in crew:
                    each.start()
                for each in crew:
                    each.join()
                times.append(time.perf_counter() - start)
                logs = [f for f in Path(folder).iterdir() if ".log" in f.name]
                lines = sum(f.read_bytes().count(b" served in ") for f in logs)
        figures[name] = statistics.median(times)
        print(f"\n{name}: {4 * count - lines} of {4 * count} lost")
    measure.table("4 processes, one file, from start to exit", figures, names[1])


def loop_load() -> None:
    names = (
        "RotatingFileHandler",
        "QueueListener",
        "AsyncFileHandler",
        "AsyncLogger",
        "NullHandler",
    )
    busy: dict[str, float] = {}
    stalls: dict[str, float] = {}
    for name in names:
        rounds = []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as folder:
                each = MAKERS[name](Path(folder))
                rounds.append(asyncio.run(at_rate(each.info, 1.0)))
                each.finish()
        busy[name] = statistics.median(used for used, _ in rounds)
        stalls[name] = statistics.median(stall for _, stall in rounds)
    measure.table("Loop thread at 20,000/s", busy, "RotatingFileHandler", faster=False)
    print("\nLongest stall of the loop at 20,000/s, median of 3, ms")
    for name, stall in stalls.items():
        print(f"  {name:34} {stall * 1000:.1f}")


READ_LATE = """
import sys, time
time.sleep(0.6)
with open(sys.argv[1], "rb") as pipe:
    while pipe.read(1 << 16):
        pass
"""


def while_stalled(name: str) -> float:
    """The loop's longest stall while a pipe's reader is late.

    It is a process of its own: a thread that reads takes turns with the loop for
    the interpreter, which no disk does.
    """
    with tempfile.TemporaryDirectory() as folder:
        pipe = Path(folder) / "pipe"
        os.mkfifo(pipe)
        if name == "AsyncFileHandler":
            handler = AsyncFileHandler(pipe, delay=True)
            info, finish = logger_of(handler).info, handler.close
        elif name == "QueueListener":
            info, finish = queue_to(logging.FileHandler(pipe, delay=True))
        else:
            info, finish = logger_of(logging.NullHandler()).info, lambda: None
        command = [sys.executable, "-I", "-S", "-c", READ_LATE, str(pipe)]
        with subprocess.Popen(command) as reader:
            stall = asyncio.run(at_rate(info, 0.8))[1]
            finish()
            reader.kill()
        return stall


def stalled_storage() -> None:
    """A pipe that is not read for 500 ms stands for a disk that hangs."""
    names = ("idle handler", "AsyncFileHandler", "QueueListener")
    seen: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(21 if FULL else 9):
        for name in names:
            seen[name].append(while_stalled(name) * 1000)
    print("\nLongest stall of the loop while the storage hangs for 500 ms, ms:")
    print("median, and from the first to the third quartile")
    for name, stalls in seen.items():
        first, median, third = statistics.quantiles(stalls)
        print(f"  {name:34} {median:.1f}  ({first:.1f} to {third:.1f})")


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def memory() -> None:
    """Growth of the process while its lines wait for a hanging storage."""
    with tempfile.TemporaryDirectory() as folder:
        pipe = Path(folder) / "pipe"
        os.mkfifo(pipe)
        handler = AsyncFileHandler(pipe, delay=True, ring_bytes=8 << 20)
        info = logger_of(handler).info
        info("warm")
        before = resident()
        for n in range(80_000):
            info("request %d served in %s", n, "12ms")
        grown = resident() - before
        threading.Thread(target=pipe.read_bytes, daemon=True).start()
        handler.close()
        stats = handler.stats()
    assert stats.dropped == 0
    print(f"\nMemory while stalled: {grown / stats.written_bytes:.2f}x the lines")


ROWS = {
    "calls": per_call,
    "still": lambda: per_call(rotating=False),
    "percentiles": percentiles,
    "end": end_to_end,
    "processes": processes,
    "loop": loop_load,
    "stalled": stalled_storage,
    "memory": memory,
}

if __name__ == "__main__":
    asked = [name for name in sys.argv[1:] if not name.startswith("-")]
    for row in asked or ROWS:
        ROWS[row]()
