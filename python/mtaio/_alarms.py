"""The thresholds and gauges of one monitor, judged sample by sample."""

import inspect
import logging
import math
import operator
from collections.abc import Callable

from . import _rust, _thresholds
from ._alerts import Listener
from ._stats import SystemStats, metric_names
from .exceptions import MetricError

logger = logging.getLogger("mtaio.monitoring")

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


class _Armed:
    """A threshold and where its metric stands."""

    __slots__ = ("owes_end", "rule", "state")

    def __init__(self, rule: _thresholds.Rule, before: "_Armed | None") -> None:
        self.rule = rule
        self.state: _thresholds.State = _thresholds.Quiet()
        # It took the place of one that was exceeded: else nobody would be told
        # that this is over.
        self.owes_end: bool = before is not None and (
            before.owes_end or isinstance(before.state, _thresholds.Exceeded)
        )

    def step(self, value: float | None, now: float) -> _thresholds.Change | None:
        """What `value` at `now` changes."""
        self.state, change = _thresholds.step(self.rule, self.state, value, now)
        if not self.owes_end or value is None:
            return change
        if change is None and self.rule.recovered(value):
            change = _thresholds.Change.CLEARED
        self.owes_end = change is None
        return change


class Alarms:
    """What is watched, and who is told.

    Set up from any thread; `read_gauges` and `judge` run on the monitor's loop.
    """

    def __init__(self) -> None:
        self.exceeded: list[Listener] = []
        self.cleared: list[Listener] = []
        self.gauges: dict[str, float] = {}
        self._readers: dict[str, Callable[[], float]] = {}
        self._armed: dict[str, _Armed] = {}

    @property
    def metrics(self) -> tuple[str, ...]:
        """Every name a threshold can be set on."""
        return tuple(sorted({*_METRICS, *self._readers}))

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """All of both kinds."""
        return (*self.exceeded, *self.cleared)

    @property
    def failures(self) -> int:
        """Alerts that a callback failed to take."""
        return sum(each.failures for each in self.listeners)

    def set(
        self,
        metric: str,
        value: float,
        *,
        clear: float | None,
        for_seconds: float,
        below: bool,
    ) -> None:
        """Arm a threshold; see `ResourceMonitor.set_threshold`."""
        name = _rust.text("metric", metric)
        if name not in _METRICS and name not in self._readers:
            known = ", ".join(self.metrics)
            raise MetricError(f"unknown metric {name!r}; known are {known}")
        rule = _thresholds.rule(
            name, value, clear=clear, for_seconds=for_seconds, below=below
        )
        self._armed[name] = _Armed(rule, self._armed.get(name))

    def remove(self, metric: str) -> None:
        """Disarm it; see `ResourceMonitor.remove_threshold`."""
        if self._armed.pop(_rust.text("metric", metric), None) is None:
            raise MetricError(f"metric {metric!r} has no threshold")

    def add_gauge(self, name: str, read: Callable[[], float]) -> None:
        """Add a metric; see `ResourceMonitor.gauge`."""
        known = _rust.text("name", name)
        if known in _METRICS or known in self._readers:
            raise ValueError(f"name must be new, {name!r} is a metric already")
        if not callable(read):
            raise TypeError(f"read must be callable, got {read!r}")
        if inspect.iscoroutinefunction(read):
            raise TypeError(f"read must be a plain function, got {read!r}")
        self._readers[known] = read

    def read_gauges(self) -> None:
        """Read every gauge; one that can't be read is logged and left out."""
        values = {}
        for name, read in list(self._readers.items()):
            try:
                value = float(read())
            except Exception:  # theirs, whatever it is
                logger.exception("gauge %r could not be read", name)
                continue
            if math.isfinite(value):
                values[name] = value
            else:
                logger.error("gauge %r gave %r, not a finite number", name, value)
        self.gauges = values

    def judge(self, stats: SystemStats, *, newest: bool = True) -> None:
        """Tell the listeners what this sample changes.

        One that is not the newest was taken while the loop stood still. Nobody
        read the gauges then, so those are judged with the newest alone.
        """
        for name, armed in list(self._armed.items()):
            read = _METRICS.get(name)
            if read is None and not newest:
                continue
            value = read(stats) if read else self.gauges.get(name)
            # Uptime is monotonic, as the time of day is not.
            change = armed.step(value, stats.uptime)
            if change is None or value is None:
                continue
            exceeded = change is _thresholds.Change.EXCEEDED
            for listener in self.exceeded if exceeded else self.cleared:
                listener.notify((name, value, armed.rule.value))
