"""What the machine and this process are doing, sampled beside the event loop."""

import asyncio
import contextlib
import logging
import math
import operator
import os
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from . import _rust, _thresholds
from ._alerts import AlertCallback, Listener
from ._loop_lag import GcWatch, LoopWatch
from ._probes import (
    Distribution,
    LivenessGuard,
    MetricFamily,
    MetricsSource,
    ProbeApp,
    ProbeCollector,
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
    metric_names,
)
from ._watchdog import StallReport, Watchdog
from .exceptions import MetricError, MonitoringError

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

# The names of mtaio 0.1.0.
_SHORT_NAMES = {
    "cpu_usage": "cpu.usage_percent",
    "memory_usage": "memory.percent",
    "load_average": "cpu.load_1m",
    "thread_count": "process.threads",
}
_METRICS = {name: operator.attrgetter(name) for name in metric_names()}
_METRICS |= {short: _METRICS[name] for short, name in _SHORT_NAMES.items()}
del _METRICS["timestamp"]

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
        self._armed: dict[str, _Armed] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._gauge_values: dict[str, float] = {}
        self._exceeded: list[Listener] = []
        self._cleared: list[Listener] = []
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
        return tuple(sorted({*_METRICS, *self._gauges}))

    @property
    def callback_failures(self) -> int:
        """Alerts that a callback failed to take; each was logged."""
        return sum(each.failures for each in (*self._exceeded, *self._cleared))

    async def start(self) -> None:
        """Sample from now on. Does nothing if started on this loop already.

        Never waits. The first sample comes half a second after the monitor was
        made, when a processor share can be told.

        Raises:
            MonitoringError: It is started on another loop that still runs; call
                `watch_loop` there instead.
        """
        if self._turns is not None and not self._turns.done():
            if self._turns.get_loop() is asyncio.get_running_loop():
                return
            if self._turns.get_loop().is_running():
                raise MonitoringError("the monitor is started on another event loop")
        self._release()
        self._gc.open()
        self._sampler.watch_gc(self._gc.pauses)
        self.watch_loop("main")
        if self._threaded:
            self._sampler.start()
        turns = self._take_turns()
        self._turns = asyncio.create_task(turns, name="mtaio-monitor")
        # Not a `finally` in it: a task cancelled before its first step runs none.
        self._turns.add_done_callback(lambda _: self._release())

    async def stop(self) -> None:
        """End sampling, and wait for the thread and for callbacks under way.

        Callbacks have a second, then they are cancelled. The history stays.

        Raises:
            MonitoringError: Called on another loop than `start` was.
        """
        turns, loop = self._turns, asyncio.get_running_loop()
        if turns is not None and not turns.done():
            if turns.get_loop() is not loop and turns.get_loop().is_running():
                raise MonitoringError("the monitor was started on another event loop")
            turns.cancel()
            await asyncio.wait([turns])
        self._turns = None
        self._release()
        for listener in (*self._exceeded, *self._cleared):
            await listener.finish(within=1.0)
        # Done in microseconds unless the kernel holds one of its reads.
        if self._sampler.stop(0.005):
            return
        if not await loop.run_in_executor(None, self._sampler.stop, _STOP_WITHIN):
            logger.error("the sampler thread did not end in %s s", _STOP_WITHIN)

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
        if snapshot is None:
            loop = asyncio.get_running_loop()
            snapshot = await loop.run_in_executor(None, sampler.fresh)
        return build(snapshot)

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

        It is told once, and again only after the metric came back to `clear`.

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
        name = _rust.text("metric", metric)
        if name not in _METRICS and name not in self._gauges:
            known = ", ".join(self.metrics)
            raise MetricError(f"unknown metric {name!r}; known are {known}")
        self._armed[name] = _Armed(
            _thresholds.rule(
                name, value, clear=clear, for_seconds=for_seconds, below=below
            )
        )

    def remove_threshold(self, metric: str) -> None:
        """Tell of `metric` no more, not even that it recovered.

        Raises:
            MetricError: It has no threshold.
        """
        if self._armed.pop(_rust.text("metric", metric), None) is None:
            raise MetricError(f"metric {metric!r} has no threshold")

    def gauge(self, name: str, read: Callable[[], float]) -> None:
        """Add a metric of your own, read every interval on the monitor's loop.

        Args:
            name: What `set_threshold` and `gauges` call it.
            read: Gives its value at once. One that raises, or gives no finite
                number, is logged, and absent until it gives one.

        Raises:
            TypeError: `name` is not text or `read` not callable.
            ValueError: `name` is empty, or the name of a metric already.
        """
        known = _rust.text("name", name)
        if known in _METRICS or known in self._gauges:
            raise ValueError(f"name must be new, {name!r} is a metric already")
        if not callable(read):
            raise TypeError(f"read must be callable, got {read!r}")
        self._gauges[known] = read

    @property
    def gauges(self) -> dict[str, float]:
        """The gauges' newest values; one that could not be read is left out."""
        return dict(self._gauge_values)

    def on_threshold_exceeded(self, callback: CallbackT) -> CallbackT:
        """Have `callback(metric, value, threshold)` called on an alert; a decorator.

        Args:
            callback: Sync or async; called on the monitor's loop, in order, one
                alert at a time. One that raises is logged and called again.

        Raises:
            TypeError: `callback` is not callable.
        """
        self._exceeded.append(Listener(callback))
        return callback

    def on_threshold_cleared(self, callback: CallbackT) -> CallbackT:
        """The same, for when the metric has come back to its `clear` level.

        Raises:
            TypeError: `callback` is not callable.
        """
        self._cleared.append(Listener(callback))
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
        self._watches = [watch for watch in self._watches if watch.alive]
        running = asyncio.get_running_loop()
        if all(watch.loop is not running for watch in self._watches):
            self._watches.append(LoopWatch(self._sampler, _rust.text("name", name)))

    async def _take_turns(self) -> None:
        """Judges each sample soon after the thread has taken it."""
        while True:
            if self._threaded:
                await asyncio.sleep(self._sampler.due_in() + _SAMPLE_TAKES)
            else:
                await asyncio.sleep(self._interval)
            try:
                self._take_turn()
            except Exception:  # monitoring must outlive its own faults
                logger.exception("a sample could not be judged")

    def _take_turn(self) -> None:
        for watch in [watch for watch in self._watches if not watch.alive]:
            watch.close()
            self._watches.remove(watch)
        if not self._threaded:
            self._sampler.tick()
        self._gauge_values = dict(self._read_gauges())
        for snapshot in self._sampler.since(self._seen):
            self._seen = snapshot.sequence
            self._judge(build(snapshot))

    def _read_gauges(self) -> "list[tuple[str, float]]":
        values = []
        for name, read in list(self._gauges.items()):
            try:
                value = float(read())
            except Exception:  # theirs, whatever it is
                logger.exception("gauge %r could not be read", name)
                continue
            if math.isfinite(value):
                values.append((name, value))
            else:
                logger.error("gauge %r gave %r, not a finite number", name, value)
        return values

    def _judge(self, stats: SystemStats) -> None:
        for name, armed in list(self._armed.items()):
            read = _METRICS.get(name)
            value = read(stats) if read else self._gauge_values.get(name)
            # Uptime is monotonic, as the time of day is not.
            armed.state, change = _thresholds.step(
                armed.rule, armed.state, value, stats.uptime
            )
            if change is None or value is None:
                continue
            exceeded = change is _thresholds.Change.EXCEEDED
            for listener in self._exceeded if exceeded else self._cleared:
                listener.notify((name, value, armed.rule.value))

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


class _Armed:
    """A threshold and where its metric stands."""

    __slots__ = ("rule", "state")

    def __init__(self, rule: _thresholds.Rule) -> None:
        self.rule = rule
        self.state: _thresholds.State = _thresholds.Quiet()


# Hooks of fork can't be taken back, so there is one for all monitors.
_monitors: "weakref.WeakSet[ResourceMonitor]" = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for monitor in list(_monitors):
        with contextlib.suppress(Exception):
            monitor._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
