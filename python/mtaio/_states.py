"""The states of health, as pure rules: no clock, no loop, no thread."""

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from . import _rust


class Status(enum.StrEnum):
    """How something is. `UNKNOWN` until it was first seen."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


class Kind(enum.StrEnum):
    """Which probe a check answers for."""

    LIVE = "live"
    READY = "ready"
    STARTUP = "startup"


_SEVERITY = {Status.HEALTHY: 0, Status.DEGRADED: 1, Status.UNHEALTHY: 2}
_BY_SEVERITY = tuple(_SEVERITY)


@dataclass(frozen=True, slots=True)
class Result:
    """What one run of a check found, and why."""

    status: Status
    reason: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.status, Status):
            raise TypeError(f"status must be a Status, got {self.status!r}")
        if not isinstance(self.reason, str):
            raise TypeError(f"reason must be text, got {self.reason!r}")


class Damper:
    """Turns a row of results into a state that doesn't flap.

    The state gets worse when the last `failures` results are all worse than it,
    and becomes the mildest of them; it gets better when the last `successes`
    results are all better, and becomes the worst of them. A first healthy
    result is believed at once.
    """

    def __init__(self, failures: int, successes: int) -> None:
        self._failures = _rust.whole("failures", failures)
        self._successes = _rust.whole("successes", successes)
        self._last: deque[int] = deque(maxlen=max(failures, successes))
        self.status = Status.UNKNOWN

    def observe(self, status: Status) -> bool:
        """Take in a result; True when the state changed."""
        before = self.status
        self._last.append(_SEVERITY[status])
        self.status = self._judge(before, status)
        return self.status is not before

    def _judge(self, now: Status, seen: Status) -> Status:
        if now is Status.UNKNOWN and seen is Status.HEALTHY:
            return seen
        level = _SEVERITY.get(now, 0)
        row = list(self._last)
        if len(row) >= self._failures:
            mildest = min(row[-self._failures :])
            if mildest > level:
                return _BY_SEVERITY[mildest]
        if len(row) >= self._successes and now is not Status.UNKNOWN:
            worst = max(row[-self._successes :])
            if worst < level:
                return _BY_SEVERITY[worst]
        return now


@dataclass(frozen=True, slots=True)
class Standing:
    """What the rules below need of one check."""

    kind: Kind
    critical: bool
    status: Status
    failing: bool
    """Its latest result was not healthy, or the damped state is not (yet)."""
    depends_on: tuple[str, ...] = ()


Standings = Mapping[str, Standing]


def blockers(kind: Kind, all_: Standings) -> tuple[str, ...]:
    """The critical checks that keep the probe of `kind` from passing.

    Those that are down; but for liveness, also those that were not seen yet.
    Liveness has no say in readiness and readiness none in liveness.
    """
    stops = {Status.UNHEALTHY}
    if kind is not Kind.LIVE:
        stops.add(Status.UNKNOWN)
    return tuple(
        name
        for name, standing in all_.items()
        if standing.kind is kind and standing.critical and standing.status in stops
    )


def overall(all_: Standings, *, alerts: bool) -> Status:
    """The worst of all; a check that isn't critical, or an alert, only degrades."""
    states = [
        Status.DEGRADED if s.status is Status.UNHEALTHY and not s.critical else s.status
        for s in all_.values()
    ]
    if alerts:
        states.append(Status.DEGRADED)
    known = [state for state in states if state is not Status.UNKNOWN]
    if states and not known:
        return Status.UNKNOWN
    return worst(known)


def worst(states: Iterable[Status]) -> Status:
    """The worst of known states; healthy when there is none."""
    return _BY_SEVERITY[max((_SEVERITY[s] for s in states), default=0)]


def causes(name: str, all_: Standings) -> tuple[str, ...]:
    """Why `name` fails: the failing checks below it that no other one explains.

    `(name,)` itself when all it depends on is well.
    """
    below = [
        cause
        for dependency in all_[name].depends_on
        if dependency in all_ and all_[dependency].failing
        for cause in causes(dependency, all_)
    ]
    return tuple(dict.fromkeys(below)) or (name,)


def refuse_circle(graph: Mapping[str, Iterable[str]]) -> None:
    """Check what depends on what.

    Raises:
        ValueError: Names form a circle, which is told.
    """
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ValueError(f"depends_on must not form a circle: {circle}") from error
