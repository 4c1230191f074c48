"""Health: checks, thresholds and readiness, as one state that can be asked."""

import asyncio
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from . import _rust
from ._checks import Check, CheckFunction
from ._states import (
    Kind,
    Result,
    Standing,
    Status,
    causes,
    is_live,
    is_ready,
    is_started,
    overall,
    refuse_circle,
)
from .events import EventEmitter
from .exceptions import HealthError
from .monitoring import ResourceMonitor

__all__ = ("HealthMonitor", "Kind", "Result", "Status")

F = TypeVar("F", bound=CheckFunction)

# Each wait between two runs differs by this much at most, so that checks of
# many processes don't strike one dependency in step.
_JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Fault:
    """Something known to be down without a check."""

    reason: str
    critical: bool

    @property
    def standing(self) -> Standing:
        """As the rules of health see it."""
        return Standing(Kind.READY, self.critical, Status.UNHEALTHY, failing=True)


class HealthMonitor:
    """Watches the machine's figures and runs checks; says how the service is.

    Two events go out on `emitter`. `health_alert`, data `{"metric", "value",
    "threshold"}`: a figure crossed its threshold, or a check went down that no
    other failing check explains (then `metric` is the check's name, `value` the
    reason and `threshold` the status `"healthy"`). `health_changed`, data
    `{"check", "previous", "status", "reason"}`: a check, or with `check` None
    the whole, changed its status.

    Args:
        monitor: Gives the figures; started and stopped with this object.
        emitter: Carries the events.
        cpu_threshold: Percent of CPU use, above 0, that degrades the service.
        memory_threshold: Percent of memory use, above 0, likewise.
        clock: Monotonic seconds; by default `time.monotonic`.

    Belongs to one event loop, but for `set_ready`.
    """

    def __init__(
        self,
        monitor: ResourceMonitor | None = None,
        emitter: EventEmitter | None = None,
        *,
        cpu_threshold: float = 80.0,
        memory_threshold: float = 90.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.monitor = ResourceMonitor() if monitor is None else monitor
        self.emitter = EventEmitter() if emitter is None else emitter
        self._thresholds = {
            "cpu_usage": _rust.positive("cpu_threshold", cpu_threshold),
            "memory_usage": _rust.positive("memory_threshold", memory_threshold),
        }
        self._clock = time.monotonic if clock is None else clock
        self._checks: dict[str, Check] = {}
        self._schedules: dict[str, asyncio.Task[None]] = {}
        self._emits: set[asyncio.Task[Any]] = set()
        self._alerts: dict[str, tuple[float, float]] = {}
        self._faults: dict[str, Fault] = {}
        self._gate = (True, "")
        self._status = Status.UNKNOWN
        self._since = self._clock()
        self._was_started = False
        self._running = False
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
                runs only when asked for.
            critical: When down, the service is unhealthy; else only degraded.
            depends_on: Checks that explain a failure of this one: then it raises
                no alert of its own. None for `live`, which looks at no others.
            failures: Results in a row that make it worse.
            successes: Results in a row that make it better.
            cache: Seconds for which `run_check` gives the last result again.

        Raises:
            HealthError: The name is taken.
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
            if missing := [d for d in check.depends_on if d not in self._checks]:
                raise HealthError(
                    f"depends_on of {check.name} must name checks, got {missing}"
                )
        for metric, value in self._thresholds.items():
            self.monitor.set_threshold(metric, value)
        await self.monitor.start()
        self._running = True
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
        if self._emits:
            await asyncio.wait(self._emits, timeout=1.0)
        for emit in self._emits:
            emit.cancel()

    async def run_check(self, name: str) -> Result:
        """Run one check now, or give its result again if that is fresh.

        Raises:
            HealthError: There is no such check.
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

        From any thread, and from a signal handler.
        """
        self._gate = (ready, reason)

    def set_fault(self, name: str, reason: str, *, critical: bool = True) -> None:
        """Count as a readiness check that is down, until `clear_fault(name)`.

        For what is known without being asked, such as a task that crashed.
        """
        if name not in self._faults:
            self._alert(name, reason, str(Status.HEALTHY))
        self._faults[_rust.text("name", name)] = Fault(reason, critical)
        self._judge(reason)

    def clear_fault(self, name: str) -> None:
        """Take back a fault; does nothing if there is none of that name."""
        if self._faults.pop(name, None) is not None:
            self._judge(f"{name} is well again")

    @property
    def live(self) -> bool:
        """False when only a restart helps."""
        return is_live(self._standings())

    @property
    def ready(self) -> bool:
        """True when requests may come."""
        return self._gate[0] and self.started and is_ready(self._standings())

    @property
    def started(self) -> bool:
        """True from when every critical startup check was up once."""
        self._was_started = self._was_started or is_started(self._standings())
        return self._was_started

    async def get_health_status(self) -> dict[str, Any]:
        """How the service is, from fresh figures and the checks' latest states.

        Checks without an interval run now, all at once, unless fresh.

        Returns:
            `status`: of the whole, as text. `cpu_usage`, `memory_usage`: percent.
            `uptime`: seconds. `live`, `ready`, `started`: what the probes say.
            `reason`: why it is not healthy. `since`: seconds since the status
            changed. `alerts`: the figures beyond their thresholds. `checks`:
            by name, each with `status`, `kind`, `critical`, `reason`, `causes`
            and `since`.
        """
        on_demand = [c.name for c in self._checks.values() if c.interval is None]
        await asyncio.gather(*(self.run_check(name) for name in on_demand))
        stats = await self.monitor.get_current_stats()
        figures = {
            "cpu_usage": stats.cpu.usage_percent,
            "memory_usage": stats.memory.percent,
        }
        beyond = {m for m, v in figures.items() if v >= self._thresholds[m]}
        beyond |= self._alerts.keys()
        standings = self._standings()
        return {
            "status": str(overall(standings, alerts=bool(beyond))),
            **figures,
            "uptime": stats.uptime,
            "live": self.live,
            "ready": self.ready,
            "started": self.started,
            "reason": self._reason(beyond),
            "since": self._clock() - self._since,
            "alerts": {
                metric: {"value": value, "threshold": threshold}
                for metric, (value, threshold) in self._alerts.items()
            },
            "checks": {c.name: self._describe(c) for c in self._checks.values()},
        }

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
        self._checks[check.name] = check
        if self._running:
            self._schedule(check)

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
        if not check.take(result):
            return
        status = check.damper.status
        self._tell_change(check.name, previous, status, result.reason)
        if status is Status.UNHEALTHY and self._causes(check) == (check.name,):
            self._alert(check.name, result.reason, str(Status.HEALTHY))
        self._judge(f"{check.name} is {status}")

    async def _exceeded(self, metric: str, value: float, threshold: float) -> None:
        self._alerts[metric] = (value, threshold)
        self._alert(metric, value, threshold)
        self._judge(f"{metric} is {value:g}, its threshold {threshold:g}")

    async def _cleared(self, metric: str, value: float, threshold: float) -> None:
        self._alerts.pop(metric, None)
        self._judge(f"{metric} is {value:g}, its threshold {threshold:g}")

    def _judge(self, reason: str) -> None:
        """Tell when the whole changed."""
        status = overall(self._standings(), alerts=bool(self._alerts))
        previous, self._status = self._status, status
        if status is not previous:
            self._since = self._clock()
            self._tell_change(None, previous, status, reason)

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
        emit = asyncio.create_task(self.emitter.emit(event, data))
        self._emits.add(emit)
        emit.add_done_callback(self._emits.discard)

    def _standings(self) -> dict[str, Standing]:
        faults = {name: fault.standing for name, fault in self._faults.items()}
        return faults | {c.name: c.standing for c in self._checks.values()}

    def _causes(self, check: Check) -> tuple[str, ...]:
        return causes(check.name, self._standings())

    def _describe(self, check: Check) -> dict[str, Any]:
        status = check.damper.status
        well = status in (Status.HEALTHY, Status.UNKNOWN)
        return {
            "status": str(status),
            "kind": str(check.kind),
            "critical": check.critical,
            "reason": check.result.reason,
            "causes": () if well else self._causes(check),
            "since": self._clock() - check.since,
        }

    def _reason_of(self, name: str) -> str:
        if name in self._faults:
            return self._faults[name].reason
        return self._checks[name].result.reason

    def _reason(self, beyond: Iterable[str]) -> str:
        """Root causes first, then figures beyond their thresholds."""
        standings = self._standings()
        roots = dict.fromkeys(
            cause
            for name, standing in standings.items()
            if standing.status in (Status.DEGRADED, Status.UNHEALTHY)
            for cause in causes(name, standings)
        )
        told = [f"{name}: {self._reason_of(name)}" for name in roots]
        told += [f"{metric} is beyond its threshold" for metric in sorted(beyond)]
        if not self._gate[0]:
            told.append(self._gate[1])
        return "; ".join(told)
