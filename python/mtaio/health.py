"""Health: checks, thresholds and readiness, as one state that can be asked."""

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from . import _rust
from ._checks import Check, CheckFunction, flag
from ._known_checks import (
    cache_loads,
    disk_space,
    http_get,
    log_writer,
    loop_lag,
    memory_use,
    saturation,
    tcp,
)
from ._states import Kind, Result, Status, refuse_circle
from ._verdict import Fault, Verdict
from .events import EventEmitter
from .exceptions import HealthError
from .monitoring import MetricsSource, ProbeServer, ResourceMonitor

__all__ = (
    "HealthMonitor",
    "Kind",
    "Result",
    "Status",
    "cache_loads",
    "disk_space",
    "http_get",
    "log_writer",
    "loop_lag",
    "memory_use",
    "saturation",
    "tcp",
)

F = TypeVar("F", bound=CheckFunction)

# Each wait between two runs differs by this much at most, so that checks of
# many processes don't strike one dependency in step.
_JITTER = 0.1

# An alert ends at this part of its threshold, so that a figure that wavers about
# it gives one alert.
_CLEARED_AT = 0.9


class HealthMonitor:
    """Watches the machine's figures and runs checks; says how the service is.

    Two events go out on `emitter`. `health_alert`, data `{"metric", "value",
    "threshold"}`: a figure crossed its threshold, or a check is down that no
    failing check below it explains; those are looked at first. Then `metric` is
    the check's name, `value` the reason and `threshold` the status `"healthy"`.
    `health_changed`, data `{"check", "previous", "status", "reason"}`: a check,
    or with `check` None the whole, changed its status.

    Args:
        monitor: Gives the figures; started and stopped with this object.
        emitter: Carries the events.
        probes: Are told of every change, and serve the monitor's figures; start
            and stop them yourself, around this object, so that they answer from
            the first to the last moment.
        cpu_threshold: Percent of CPU use, above 0, that degrades the service
            until it is at nine tenths of that.
        memory_threshold: Percent of memory use, above 0, likewise.
        clock: Monotonic seconds; by default `time.monotonic`.

    Belongs to one event loop, but for `set_ready`.
    """

    def __init__(
        self,
        monitor: ResourceMonitor | None = None,
        emitter: EventEmitter | None = None,
        *,
        probes: ProbeServer | None = None,
        cpu_threshold: float = 80.0,
        memory_threshold: float = 90.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.monitor = ResourceMonitor() if monitor is None else monitor
        self.emitter = EventEmitter() if emitter is None else emitter
        self.probes = probes
        self._thresholds = {
            "cpu_usage": _rust.positive("cpu_threshold", cpu_threshold),
            "memory_usage": _rust.positive("memory_threshold", memory_threshold),
        }
        self._clock = time.monotonic if clock is None else clock
        self._verdict = Verdict()
        self._checks = self._verdict.checks
        self._status = Status.UNKNOWN
        self._since = self._clock()
        self._version = 0
        self._running = False
        self._source: MetricsSource | None = None
        self._schedules: dict[str, asyncio.Task[None]] = {}
        self._telling: set[asyncio.Task[Any]] = set()
        self.monitor.on_threshold_exceeded(self._exceeded)
        self.monitor.on_threshold_cleared(self._cleared)

    def check(
        self,
        name: str,
        *,
        kind: Kind | str = Kind.READY,
        timeout: float = 5.0,
        interval: float | None = 10.0,
        critical: bool = True,
        depends_on: Iterable[str] = (),
        failures: int = 2,
        successes: int = 2,
        cache: float = 1.0,
    ) -> Callable[[F], F]:
        """Make the function below a check, and leave it as it is.

        A sync function runs in a thread of its own. It says healthy by None or
        True, unhealthy by False or by raising, and more by a `Status` or a
        `Result`. One that hangs, raises or outlives its timeout is unhealthy and
        keeps no other check.

        Args:
            name: Unique, non-empty.
            kind: `live`: the process must be restarted when it is down. `ready`:
                no requests must come. `startup`: not ready for the first time.
            timeout: Seconds for one run.
            interval: Seconds between runs, give or take a tenth; with None it
                runs only when asked for, and until then a critical one keeps the
                service from being ready.
            critical: When down, the service is unhealthy; else only degraded.
            depends_on: Checks that explain a failure of this one: then it raises
                no alert of its own. None for `live`, which looks at no others.
            failures: Results in a row that make it worse.
            successes: Results in a row that make it better.
            cache: Seconds for which `run_check` gives the last result again.

        Raises:
            HealthError: The name is taken; or the monitor runs, and a check is
                depended on that it doesn't know.
            ValueError: A figure is out of range, or dependencies form a circle.
            TypeError: An argument is of the wrong type.
        """

        def register(function: F) -> F:
            self._add(
                Check(
                    name,
                    function,
                    kind=kind,
                    timeout=timeout,
                    interval=interval,
                    critical=critical,
                    depends_on=depends_on,
                    failures=failures,
                    successes=successes,
                    cache=cache,
                    clock=self._clock,
                )
            )
            return function

        return register

    async def start(self) -> None:
        """Start the monitor and the checks' schedules. Waits for no check.

        Raises:
            HealthError: It runs already, or a check depends on an unknown one.
        """
        if self._running:
            raise HealthError("the health monitor runs already")
        for check in self._checks.values():
            self._refuse_unknown(check)
        for metric, value in self._thresholds.items():
            # Armed anew, so one that still is exceeded is told again.
            self._verdict.alerts.pop(metric, None)
            self.monitor.set_threshold(metric, value, clear=_CLEARED_AT * value)
        await self.monitor.start()
        self._running = True
        if self.probes is not None:
            self._source = self.monitor.source
            self.probes.add_source(self._source)
        for check in self._checks.values():
            self._schedule(check)
        self._judge("started")

    async def stop(self) -> None:
        """Stop the checks and the monitor; events under way get a second to end."""
        if not self._running:
            return
        self._running = False
        tasks = list(self._schedules.values())
        self._schedules.clear()
        for task in tasks:
            task.cancel()
        for check in self._checks.values():
            check.cancel()
        await self.monitor.stop()
        if self.probes is not None and self._source is not None:
            self.probes.remove_source(self._source)
        if self._telling:
            await asyncio.wait(self._telling, timeout=1.0)
        for task in self._telling:
            task.cancel()

    async def run_check(self, name: str) -> Result:
        """Run one check now, or give its result again if that is fresh.

        Raises:
            HealthError: There is no such check, or the monitor was stopped
                before it had ended.
        """
        if name not in self._checks:
            known = ", ".join(self._checks) or "none"
            raise HealthError(f"no check is named {name!r}; there are: {known}")
        check = self._checks[name]
        if not check.is_fresh():
            self._take(check, await check.run())
        return check.result

    def set_ready(self, ready: bool, reason: str = "") -> None:
        """Open or close readiness, whatever the checks say. Never waits.

        From the loop's thread, also from a signal handler while the loop is stuck.
        """
        self._verdict.gate = (flag("ready", ready), reason)
        self._version += 1
        self._publish()

    def set_fault(self, name: str, reason: str, *, critical: bool = True) -> None:
        """Count as a readiness check that is down, until `clear_fault(name)`.

        For what is known without being asked, such as a task that crashed.
        """
        fault = Fault(_rust.text("reason", reason), flag("critical", critical))
        is_new = _rust.text("name", name) not in self._verdict.faults
        self._verdict.faults[name] = fault
        if is_new:
            self._alert(name, reason, str(Status.HEALTHY))
        self._judge(reason)

    def clear_fault(self, name: str) -> None:
        """Take back a fault; does nothing if there is none of that name."""
        if self._verdict.faults.pop(name, None) is not None:
            self._judge(f"{name} is well again")

    @property
    def live(self) -> bool:
        """False when only a restart helps: `/livez`."""
        return self._verdict.live

    @property
    def ready(self) -> bool:
        """True when requests may come: `/readyz`."""
        return self._verdict.ready

    @property
    def started(self) -> bool:
        """True from when every critical startup check was up once: `/startupz`."""
        return self._verdict.started

    @property
    def status(self) -> Status:
        """Of the whole: the worst of checks and faults, degraded by an alert."""
        return self._status

    def statuses(self) -> dict[str, Status]:
        """The damped status of every check and fault, by name."""
        return {n: s.status for n, s in self._verdict.standings().items()}

    async def get_health_status(self) -> dict[str, Any]:
        """How the service is, from fresh figures and the checks' latest states.

        Checks without an interval run now, all at once, unless fresh.

        Returns:
            `status`: of the whole, as text. `cpu_usage`, `memory_usage`: percent,
            None where the system doesn't say. `uptime`: seconds. `live`, `ready`,
            `started`: what the probes say. `reason`: why it is not healthy.
            `since`: seconds since the status changed. `alerts`: the figures beyond
            their thresholds. `checks`: by name, each with `status`, `kind`,
            `critical`, `reason`, `causes` and `since`. `faults`: by name, each
            with `reason` and `critical`.

            `/healthz` has all but the figures, as of `published_at` (Unix time).

        Raises:
            HealthError: The monitor was stopped before the checks had ended.
        """
        on_demand = [c.name for c in self._checks.values() if c.interval is None]
        await asyncio.gather(*(self.run_check(name) for name in on_demand))
        stats = await self.monitor.get_current_stats()
        figures = {
            "cpu_usage": stats.cpu.usage_percent,
            "memory_usage": stats.memory.percent,
        }
        beyond = {
            metric
            for metric, value in figures.items()
            if value is not None and value >= self._thresholds[metric]
        }
        document = self._verdict.document(self._clock(), self._since, beyond)
        return document | figures | {"uptime": stats.uptime}

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

    def _add(self, check: Check) -> None:
        if check.name in self._checks:
            raise HealthError(f"a check is named {check.name!r} already")
        graph = {c.name: c.depends_on for c in self._checks.values()}
        refuse_circle(graph | {check.name: check.depends_on})
        if self._running:  # else `start` looks, once all are there
            self._refuse_unknown(check)
        self._checks[check.name] = check
        if self._running:
            self._schedule(check)
            self._judge(f"{check.name} was added")

    def _refuse_unknown(self, check: Check) -> None:
        if missing := [name for name in check.depends_on if name not in self._checks]:
            raise HealthError(
                f"depends_on of {check.name} must name checks, got {missing}"
            )

    def _schedule(self, check: Check) -> None:
        if check.interval is not None:
            self._schedules[check.name] = asyncio.create_task(
                self._run_for_ever(check, check.interval),
                name=f"mtaio:health:{check.name}",
            )

    async def _run_for_ever(self, check: Check, interval: float) -> None:
        while True:
            self._take(check, await check.run())
            spread = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret
            await asyncio.sleep(interval * spread)

    def _take(self, check: Check, result: Result) -> None:
        previous = check.damper.status
        changed = check.take(result)
        self._publish()
        if check.damper.status is Status.UNHEALTHY and not check.alerted:
            self._look_for_its_cause(check)
        if not changed:
            return
        status = check.damper.status
        self._tell_change(check.name, previous, status, result.reason)
        self._judge(f"{check.name} is {status}")

    def _look_for_its_cause(self, check: Check) -> None:
        if not check.depends_on:
            self._alert_of(check)
        elif not self._verdict.has_known_cause(check.name):
            self._in_task(self._alert_unless_explained(check))

    async def _alert_unless_explained(self, check: Check) -> None:
        """Look first at what it depends on: that may not be due for long."""
        try:
            await asyncio.gather(*(self.run_check(name) for name in check.depends_on))
        except HealthError:
            return  # stopped meanwhile
        is_down = check.damper.status is Status.UNHEALTHY
        if is_down and not check.alerted and self._verdict.explains(check.name):
            self._alert_of(check)

    def _alert_of(self, check: Check) -> None:
        check.alerted = True
        self._alert(check.name, check.result.reason, str(Status.HEALTHY))

    async def _exceeded(self, metric: str, value: float, threshold: float) -> None:
        self._verdict.alerts[metric] = (value, threshold)
        self._alert(metric, value, threshold)
        self._judge(f"{metric} is {value:g}, its threshold {threshold:g}")

    async def _cleared(self, metric: str, value: float, threshold: float) -> None:
        self._verdict.alerts.pop(metric, None)
        self._judge(f"{metric} is {value:g}, its threshold {threshold:g}")

    def _judge(self, reason: str) -> None:
        """Tell when the whole changed."""
        self._verdict.latch()
        previous, status = self._status, self._verdict.status()
        self._status = status
        if status is not previous:
            self._since = self._clock()
            self._tell_change(None, previous, status, reason)
        self._publish()

    def _alert(self, metric: str, value: object, threshold: object) -> None:
        data = {"metric": metric, "value": value, "threshold": threshold}
        self._emit("health_alert", data)

    def _tell_change(
        self, check: str | None, previous: Status, status: Status, reason: str
    ) -> None:
        data = {
            "check": check,
            "previous": str(previous),
            "status": str(status),
            "reason": reason,
        }
        self._emit("health_changed", data)

    def _emit(self, event: str, data: dict[str, Any]) -> None:
        # In a task: a listener that takes its time must not hold up a check.
        self._in_task(self.emitter.emit(event, data))

    def _in_task(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(work)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def _publish(self) -> None:
        """Tell the probes; again if a signal handler told them newer state amid."""
        while self.probes is not None:
            version = self._version
            document = self._verdict.health_json(self._clock(), self._since)
            # Read later, so ages in it need a date.
            document["published_at"] = time.time()
            self.probes.publish(**self._verdict.verdicts(), health=document)
            if version == self._version:
                return
