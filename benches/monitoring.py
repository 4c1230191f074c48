"""Monitoring against psutil: the cost of a sample, and whether it agrees.

Prints ratios of medians of interleaved rounds. Run it by `make bench`, or alone:
`python benches/monitoring.py`.
"""

import asyncio
import contextlib
import gc
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from mtaio import _rust
from mtaio._stats import build
from mtaio.monitoring import ResourceMonitor

ROUNDS = 60
BATCH = 20

PROCESS = psutil.Process()
FILES = [
    *("/proc/stat", "/proc/meminfo", "/proc/loadavg", "/proc/diskstats"),
    *("/proc/self/stat", "/proc/self/status", "/proc/self/io", "/proc/self/net/dev"),
]


def by_psutil() -> None:
    """Cpu, memory, io, network, disk and own process, as one does with psutil."""
    psutil.cpu_percent(None)
    psutil.cpu_percent(None, percpu=True)
    psutil.getloadavg()
    psutil.virtual_memory()
    psutil.swap_memory()
    psutil.net_io_counters(nowrap=False)
    psutil.disk_io_counters(nowrap=False)
    psutil.disk_usage("/")
    with PROCESS.oneshot():
        PROCESS.cpu_percent(None)
        PROCESS.memory_info()
        PROCESS.num_threads()
        PROCESS.num_fds()
        PROCESS.num_ctx_switches()
        PROCESS.io_counters()


def by_raw_reads() -> None:
    """The floor for Python: open, read and close the files, parsing nothing."""
    for name in FILES:
        with open(name, "rb", buffering=0) as file:
            file.read()


def interleaved(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Median seconds per call."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(BATCH):
                call()
            times[name].append((time.perf_counter() - began) / BATCH)
    return {name: statistics.median(each) for name, each in times.items()}


def cost_of_a_sample() -> None:
    sampler = _rust.Sampler(1.0, 10)
    time.sleep(0.6)
    taken = sampler.fresh()
    medians = interleaved(
        {
            "psutil": by_psutil,
            "raw /proc reads": by_raw_reads,
            "mtaio, native thread": sampler.fresh,
            "mtaio, sample + dataclasses": lambda: build(sampler.fresh()),
            "mtaio, on the loop (started)": lambda: build(taken),
        }
    )
    print("one sample of cpu, memory, io, network, disk, own process")
    for name, seconds in medians.items():
        ratio = seconds / medians["psutil"]
        print(f"  {name:30} {seconds * 1e6:8.1f} us  {ratio:6.3f}x psutil")


@contextlib.contextmanager
def burning() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burner:
        try:
            yield
        finally:
            burner.kill()


async def agreement() -> None:
    print("points apart from psutil over the same second (one processor burning)")
    for round_ in range(5):
        psutil.cpu_percent(None)
        monitor = ResourceMonitor()
        await asyncio.sleep(1.0)
        stats = await monitor.get_current_stats()
        cpu, memory = psutil.cpu_percent(None), psutil.virtual_memory().percent
        apart = abs((stats.cpu.host_usage_percent or 0) - cpu)
        total = stats.memory.host_total_bytes or 1
        used = 100 * (1 - (stats.memory.host_available_bytes or 0) / total)
        off = abs(used - memory)
        print(f"  first reading {round_}: cpu {apart:.2f}, memory {off:.2f}")


def cost_of_watching() -> None:
    """What the loop pays for its heartbeat, and the collector for being timed."""
    lag, pauses = _rust.LoopLag("main"), _rust.GcPauses()

    def collect_timed() -> None:
        gc.callbacks.append(pauses)
        gc.collect(0)
        gc.callbacks.remove(pauses)

    medians = interleaved(
        {
            "beat": lambda: [lag.beat(0.02) for _ in range(100)],
            "collection": lambda: gc.collect(0),
            "timed collection": collect_timed,
        }
    )
    beat = medians["beat"] / 100
    print("watching")
    print(f"  noting a beat {beat * 1e9:.0f} ns, 50 a second")
    extra = medians["timed collection"] - medians["collection"]
    print(f"  timing a collection {extra * 1e9:.0f} ns")


async def turns(seconds: float) -> float:
    """Turns a second of a loop that does nothing else."""
    count, began = 0, time.perf_counter()
    until = began + seconds
    while time.perf_counter() < until:
        await asyncio.sleep(0)
        count += 1
    return count / (time.perf_counter() - began)


async def cost_to_a_busy_loop() -> None:
    """Turns of one loop while it is watched, against the same loop unwatched."""
    ratios = []
    for _ in range(12):
        plain = await turns(0.25)
        async with ResourceMonitor(interval=1.0):
            ratios.append(await turns(0.25) / plain)
    print(f"  a busy loop, watched: {statistics.median(ratios):.3f}x the turns")


async def share_of_a_processor(loops: int) -> None:
    """A started monitor in a process whose `loops` are idle, everything included."""
    monitor = ResourceMonitor(interval=1.0)
    end = threading.Event()

    async def idle(name: str) -> None:
        monitor.watch_loop(name)
        await asyncio.get_running_loop().run_in_executor(None, end.wait)

    async with monitor:
        others = [
            threading.Thread(target=asyncio.run, args=(idle(f"loop {number}"),))
            for number in range(1, loops)
        ]
        for other in others:
            other.start()
        await asyncio.sleep(1.5)
        began, used = time.perf_counter(), time.process_time()
        await asyncio.sleep(5.0)
        used = time.process_time() - used
        share = used / (time.perf_counter() - began)
        lag = monitor.get_history()[-1].loop
        end.set()
        for other in others:
            await asyncio.to_thread(other.join)
    print(
        f"  {loops} idle loop{'s' * (loops > 1)}: {share:.3%} of a processor; "
        f"lag p50 {(lag.lag_p50_seconds or 0) * 1e3:.2f} ms "
        f"over {lag.ticks} beats of {len(lag.loops)}"
    )


def main() -> None:
    if not Path("/proc/self/stat").exists():
        sys.exit("needs Linux: its peers are files of /proc")
    cost_of_a_sample()
    with burning():
        asyncio.run(agreement())
    cost_of_watching()
    asyncio.run(cost_to_a_busy_loop())
    for loops in (1, 4):
        asyncio.run(share_of_a_processor(loops))


if __name__ == "__main__":
    main()
