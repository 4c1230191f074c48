"""What the machine and this process are doing, sampled beside the event loop."""

import asyncio
import atexit
import contextlib
import logging
import math
import os
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from . import _rust
from ._alarms import Alarms
from ._alerts import AlertCallback, Listener, finish
from ._loop_lag import GcWatch, LoopWatch
from ._probe_apps import ProbeApp, ProbeCollector
from ._probes import (
    Distribution,
    LivenessGuard,
    MetricFamily,
    MetricsSource,
    ProbeServer,
)
from ._stats import (
    CPUStats,
    DiskStats,
    History,
    IOStats,
    LoopLag,
    LoopStats,
    MemoryStats,
    NetworkStats,
    Pressure,
    PressureStats,
    ProcessStats,
    SystemStats,
    build,
)
from ._watchdog import StallReport, Watchdog
from .exceptions import MonitoringError

__all__ = (
    "CPUStats",
    "DiskStats",
    "Distribution",
    "History",
    "IOStats",
    "LivenessGuard",
    "LoopLag",
    "LoopStats",
    "MemoryStats",
    "MetricFamily",
    "MetricsSource",
    "NetworkStats",
    "Pressure",
    "PressureStats",
    "ProbeApp",
    "ProbeCollector",
    "ProbeServer",
    "ProcessStats",
    "ResourceMonitor",
    "StallReport",
    "SystemStats",
    "Watchdog",
)

logger = logging.getLogger(__name__)

CallbackT = TypeVar("CallbackT", bound=AlertCallback)

# The native thread takes about 0.1 ms for a sample; look for it after that.
_SAMPLE_TAKES = 0.005
_STOP_WITHIN = 5.0


class ResourceMonitor:
    """Samples processor, memory, disk, network, this process and its loops.

    While started, a native thread samples every `interval` without the GIL, into
    a ring of `history_size` samples; thresholds are judged and callbacks run on
    the loop that called `start`. Not started, `get_current_stats` samples when
    asked. In a forked child the monitor is as not started, and works.

    Args:
        interval: Seconds between samples, 0.001 to 86400.
        history_size: Samples kept, 1 or more.
        root: Where `/proc` and `/sys` are looked for, for tests or for a host's
            tree mounted in a container; default this system's own.
        disk_path: The file system whose space is told.
        clock: Seconds, monotonic; for tests. Samples are then taken by the loop
            and not by a thread, since a thread can't be made to wait for it.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: `interval` or `history_size` is out of range.
    """

    def __init__(
        self,
        interval: float = 1.0,
        history_size: int = 3600,
        *,
        root: str | os.PathLike[str] | None = None,
        disk_path: str | os.PathLike[str] = "/",
        clock: Callable[[], float] | None = None,
    ) -> None:
        if clock is not None and not callable(clock):
            raise TypeError(f"clock must be callable or None, got {clock!r}")

        def sampler() -> _rust.Sampler:
            return _rust.Sampler(
                interval, history_size, root=root, disk_path=disk_path, clock=clock
            )

        self._make_sampler = sampler
        self._sampler = sampler()
        self._interval = float(interval)
        self._threaded = clock is None
        self._seen = 0
        self._turns: asyncio.Task[None] | None = None
        self._watches: list[LoopWatch] = []
        self._gc = GcWatch()
        self._alarms = Alarms()
        _monitors.add(self)

    @property
    def interval(self) -> float:
        """Seconds between samples."""
        return self._interval

    @property
    def running(self) -> bool:
        """Whether it is started."""
        return self._turns is not None and not self._turns.done()

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names that `set_threshold` knows, gauges included."""
        return self._alarms.metrics

    @property
    def callback_failures(self) -> int:
        """Alerts that a callback failed to take; each was logged."""
        return self._alarms.failures

    @property
    def source(self) -> MetricsSource:
        """The newest sample and gauges for `ProbeServer.add_source`.

        Served as `mtaio_cpu_usage_percent` and so on, without Python, while the
        monitor is started. In a forked child, ask for it again.
        """
        return self._sampler.source()

    async def start(self) -> None:
        """Sample from now on. Does nothing if started on this loop already.

        Never waits. The first sample comes half a second after the monitor was
        made, when a processor share can be told.

        Raises:
            MonitoringError: It is started on another loop that still runs; call
                `watch_loop` there instead.
            OSError: The system has no thread to give; nothing is left started.
        """
        if self._turns_here() is not None:
            return
        if self._turns is not None:  # of a loop that is no more
            self._release()
        self._gc.open()
        self._sampler.watch_gc(self._gc.pauses)
        self.watch_loop("main")
        try:
            if self._threaded:
                self._sampler.start()
        except OSError:
            self._release()
            raise
        turns = self._take_turns()
        self._turns = asyncio.create_task(turns, name="mtaio-monitor")
        # Not a `finally` in it: a task cancelled before its first step runs none.
        self._turns.add_done_callback(self._turns_ended)

    async def stop(self) -> None:
        """End sampling, and wait for the thread and for callbacks under way.

        Callbacks have a second, then they are cancelled. The history stays.

        Raises:
            MonitoringError: Called on another loop than `start` was.
        """
        turns, loop = self._turns_here(), asyncio.get_running_loop()
        if turns is not None:
            turns.cancel()
            await asyncio.wait([turns])
        self._turns = None
        self._release()
        await finish(self._alarms.listeners, within=1.0)
        # Done in microseconds unless the kernel holds one of its reads.
        if self._sampler.stop(0.005):
            return
        if not await loop.run_in_executor(None, self._sampler.stop, _STOP_WITHIN):
            logger.error("the sampler thread did not end in %s s", _STOP_WITHIN)

    def _turns_here(self) -> asyncio.Task[None] | None:
        """The task of `start`, if this loop runs it. Raises if another does."""
        turns = self._turns
        if turns is None or turns.done():
            return None
        if turns.get_loop() is asyncio.get_running_loop():
            return turns
        if turns.get_loop().is_running():
            raise MonitoringError("the monitor was started on another event loop")
        return None

    def _turns_ended(self, turns: asyncio.Task[None]) -> None:
        if self._turns is turns:
            self._release()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def get_current_stats(self, *, max_age: float | None = None) -> SystemStats:
        """The newest sample; a new one where that is older than `max_age`.

        Waits only in the first half second after the monitor was made (a share of
        processor time needs that much to be true), and for a new sample, which a
        worker thread takes.

        Args:
            max_age: Seconds, 0 or more. By default twice `interval` while
                started, when the thread keeps a newest sample, else 0.

        Raises:
            TypeError: `max_age` is not a number.
            ValueError: `max_age` is negative or not finite.
        """
        if max_age is None:
            age = self._interval * 2 if self.running else 0.0
        else:
            age = _rust.non_negative("max_age", max_age)
        sampler = self._sampler
        wait = sampler.ready_in()
        if wait > 0:
            await asyncio.sleep(wait)
        snapshot = sampler.latest(age) if age > 0 else None
        if snapshot is None and self._threaded:
            await sampler.sampled()
            snapshot = sampler.latest(math.inf)
        return build(snapshot or sampler.fresh())

    def get_history(
        self, start: float | None = None, end: float | None = None
    ) -> History:
        """Samples taken while started, oldest first. Never waits.

        Args:
            start: Leave out those before this time, seconds since 1970.
            end: Leave out those after this time, seconds since 1970.

        Raises:
            TypeError: `start` or `end` is not a number.
            ValueError: `start` or `end` is negative or not finite.
        """
        first = 0.0 if start is None else _rust.non_negative("start", start)
        last = math.inf if end is None else _rust.non_negative("end", end)
        kept = self._sampler.since(0)
        return History([one for one in kept if first <= one.timestamp <= last])

    def set_threshold(
        self,
        metric: str,
        value: float,
        *,
        clear: float | None = None,
        for_seconds: float = 0.0,
        below: bool = False,
    ) -> None:
        """Tell when `metric` goes past `value`; replaces its earlier threshold.

        It is told once, and again only after the metric came back to `clear`. Where
        the one before was exceeded, it is told whether this one is, or that it is over.

        Args:
            metric: A name of `metrics`: dotted (`memory.percent`), short
                (`cpu_usage`, `memory_usage`), or of a gauge.
            value: A finite number in the metric's unit; past is above it.
            clear: Where the metric has recovered; at or below `value`, which is
                the default. Set it lower to keep a wavering metric to one alert.
            for_seconds: How long it must be past `value` without a break.
            below: Past is below `value`; then `clear` is at or above it.

        Raises:
            MetricError: No such metric; the known ones are listed.
            TypeError: An argument is of the wrong type.
            ValueError: An argument is out of range.
        """
        self._alarms.set(
            metric, value, clear=clear, for_seconds=for_seconds, below=below
        )

    def remove_threshold(self, metric: str) -> None:
        """Tell of `metric` no more, not even that it recovered.

        Raises:
            MetricError: It has no threshold.
        """
        self._alarms.remove(metric)

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Add a metric of your own, read every interval on the monitor's loop.

        Args:
            name: What `set_threshold` and `gauges` call it.
            read: Gives its value at once. One that raises, or gives no finite
                number, is logged, and absent until it gives one.

        Raises:
            TypeError: `name` is not text or `read` no plain function.
            ValueError: `name` is empty, or the name of a metric already.
        """
        self._alarms.add_gauge(name, read)

    @property
    def gauges(self) -> dict[str, float]:
        """The gauges' newest values; one that could not be read is left out."""
        return dict(self._alarms.gauges)

    def on_threshold_exceeded(self, callback: CallbackT) -> CallbackT:
        """Have `callback(metric, value, threshold)` called on an alert; a decorator.

        Args:
            callback: Sync or async; called on the monitor's loop, in order, one
                alert at a time. One that raises is logged and called again.

        Raises:
            TypeError: `callback` is not callable.
        """
        self._alarms.exceeded.append(Listener(callback))
        return callback

    def on_threshold_cleared(self, callback: CallbackT) -> CallbackT:
        """The same, for when the metric has come back to its `clear` level.

        Raises:
            TypeError: `callback` is not callable.
        """
        self._alarms.cleared.append(Listener(callback))
        return callback

    def watch_loop(self, name: str) -> None:
        """Measure the lag of the running event loop too, until it ends.

        Args:
            name: What `loop.loops` calls it. The loop of `start` is `main`.

        Raises:
            RuntimeError: No event loop is running in this thread.
            TypeError: `name` is not text.
            ValueError: `name` is empty.
        """
        known, running = _rust.text("name", name), asyncio.get_running_loop()
        if not any(each.alive and each.loop is running for each in self._watches):
            self._watches.append(LoopWatch(self._sampler, known))

    async def _take_turns(self) -> None:
        """Judges each sample soon after the thread has taken it."""
        own = asyncio.current_task()
        # Not any more, if the loop stood still and the monitor was started anew.
        while self._turns is own:
            if self._threaded:
                await asyncio.sleep(self._sampler.due_in() + _SAMPLE_TAKES)
            else:
                await asyncio.sleep(self._interval)
            try:
                self._take_turn()
            except Exception:  # monitoring must outlive its own faults
                logger.exception("a sample could not be judged")

    def _take_turn(self) -> None:
        for watch in list(self._watches):
            if not watch.alive:
                watch.close()
                self._watches.remove(watch)
        if not self._threaded:
            self._sampler.tick()
        self._alarms.read_gauges()
        self._sampler.set_gauges(list(self._alarms.gauges.items()))
        missed = self._sampler.since(self._seen)
        for snapshot in missed:
            self._seen = snapshot.sequence
            self._alarms.judge(build(snapshot), newest=snapshot is missed[-1])

    def _release(self) -> None:
        """Gives up all that `start` took; the thread is told, not waited for."""
        self._gc.close()
        self._sampler.watch_gc(None)
        for watch in self._watches:
            watch.close()
        self._watches.clear()
        self._sampler.stop(0.0)

    def _after_fork(self) -> None:
        """In the child: the thread is gone, and its locks may be held for ever."""
        self._sampler.abandon()
        self._gc.close()
        for watch in self._watches:
            watch.disown()
        self._watches = []
        self._turns = None
        self._seen = 0
        self._sampler = self._make_sampler()


# Hooks of fork can't be taken back, so there is one for all monitors.
_monitors: "weakref.WeakSet[ResourceMonitor]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for monitor in list(_monitors):
        with contextlib.suppress(Exception):
            monitor._after_fork()


# No thread may ask for the interpreter once it goes.
atexit.register(_rust.stop_worker)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
