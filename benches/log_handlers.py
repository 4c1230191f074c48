"""Log handlers against their peers: `python benches/log_handlers.py [--full]`.

Every ratio is of medians over rounds in which the candidates took turns. Peers
that are not installed are left out.
"""

import asyncio
import logging
import logging.handlers
import os
import queue
import statistics
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
ROTATION = {"maxBytes": 10_000_000, "backupCount": 5}
OURS = {"max_bytes": 10_000_000, "backup_count": 5}
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


def stdlib(folder: Path) -> Candidate:
    handler = logging.handlers.RotatingFileHandler(folder / "std.log", **ROTATION)
    return Candidate(logger_of(handler).info, handler.close)


def null(folder: Path) -> Candidate:
    return Candidate(logger_of(logging.NullHandler()).info, lambda: None)


def ours(folder: Path, **options: object) -> Candidate:
    handler = AsyncFileHandler(folder / "mtaio.log", **OURS, **options)
    return Candidate(logger_of(handler).info, handler.close)


def with_records(folder: Path) -> Candidate:
    """The same, with the opt-in record factory for the time of its calls."""
    handler = AsyncFileHandler(folder / "records.log", **OURS)
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


def direct(folder: Path) -> Candidate:
    handler = AsyncFileHandler(
        folder / "direct.log", formatter=logging.Formatter(FORMAT), **OURS
    )
    return Candidate(AsyncLogger("app.module", "INFO", [handler]).info, handler.close)


def queued(folder: Path) -> Candidate:
    target = logging.handlers.RotatingFileHandler(folder / "queue.log", **ROTATION)
    target.setFormatter(logging.Formatter(FORMAT))
    records: queue.SimpleQueue = queue.SimpleQueue()
    listener = logging.handlers.QueueListener(records, target)
    listener.start()
    made = logging.Logger("app.module", logging.INFO)
    made.addHandler(logging.handlers.QueueHandler(records))

    def finish() -> None:
        listener.stop()
        target.close()

    return Candidate(made.info, finish)


def loguru(folder: Path) -> Candidate:
    from loguru import logger

    logger.remove()
    sink = logger.add(
        folder / "loguru.log",
        rotation="10 MB",
        retention=5,
        format="{time:YYYY-MM-DD HH:mm:ss,SSS} - {name} - {level} - {message}",
    )

    def info(message: str, *args: object) -> None:
        logger.info(message % args)

    return Candidate(info, lambda: logger.remove(sink))


def concurrent(folder: Path) -> Candidate:
    from concurrent_log_handler import ConcurrentRotatingFileHandler

    handler = ConcurrentRotatingFileHandler(str(folder / "clh.log"), **ROTATION)
    return Candidate(logger_of(handler).info, handler.close)


def picologging(folder: Path) -> Candidate:
    import picologging as pico
    from picologging.handlers import RotatingFileHandler

    handler = RotatingFileHandler(str(folder / "pico.log"), **ROTATION)
    handler.setFormatter(pico.Formatter(FORMAT))
    made = pico.Logger("app.module", pico.INFO)
    made.addHandler(handler)
    return Candidate(made.info, handler.close)


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
}


@contextmanager
def candidates(*names: str):
    """The named candidates that are installed, each in a folder for all."""
    with tempfile.TemporaryDirectory() as folder:
        made = {}
        for name in names:
            try:
                made[name] = MAKERS[name](Path(folder))
            except ImportError as error:
                print(f"{name} left out: {error}")
        try:
            yield made
        finally:
            for each in made.values():
                each.finish()


def per_call() -> None:
    with candidates(*MAKERS) as made:
        runs = {name: each.calls for name, each in made.items()}
        figures = measure.per_call(
            runs, calls=10_000 if FULL else 3_000, rounds=15 if FULL else 9
        )
        measure.table("A call, rotating", figures, "RotatingFileHandler")
        pair = {name: figures[name] for name in ("NullHandler", "AsyncFileHandler")}
        measure.table("Against a NullHandler", pair, "NullHandler", faster=False)


def percentiles() -> None:
    print("\nMicroseconds per call: p50, p99, p99.9")
    with candidates(
        "RotatingFileHandler", "QueueListener", "AsyncFileHandler", "AsyncLogger"
    ) as made:
        for name, each in made.items():
            seen = []
            for n in range(20_000):
                start = time.perf_counter_ns()
                each.info("request %d served in %s", n, "12ms")
                seen.append(time.perf_counter_ns() - start)
            cuts = statistics.quantiles(seen, n=1000)
            shown = ", ".join(f"{cuts[at] / 1000:.1f}" for at in (499, 989, 998))
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


def stalled_storage() -> None:
    """A pipe that is not read for 500 ms stands for a disk that hangs."""
    print("\nLongest stall of the loop while the storage hangs for 500 ms, ms")
    with tempfile.TemporaryDirectory() as folder:
        pipe = Path(folder) / "pipe"
        os.mkfifo(pipe)

        def read_late() -> None:
            time.sleep(0.6)
            with pipe.open("rb") as file:
                while file.read(1 << 16):
                    pass

        for name in ("idle", "AsyncFileHandler"):
            seen = []
            for _ in range(3):
                reader = threading.Thread(target=read_late)
                if name == "idle":
                    info, finish = logger_of(logging.NullHandler()).info, lambda: None
                else:
                    handler = AsyncFileHandler(pipe, delay=True)
                    info, finish = logger_of(handler).info, handler.close
                    reader.start()
                seen.append(asyncio.run(at_rate(info, 0.8))[1])
                finish()
                if name != "idle":
                    reader.join()
            print(f"  {name:34} {statistics.median(seen) * 1000:.1f}")


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


if __name__ == "__main__":
    per_call()
    percentiles()
    end_to_end()
    loop_load()
    if hasattr(os, "mkfifo"):
        stalled_storage()
    if Path("/proc/self/statm").exists():
        memory()
