"""What all checks, faults, alerts and gates say together."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ._checks import Check
from ._states import Kind, Standing, Standings, Status, blockers, causes, overall

Document = dict[str, Any]

_WELL = (Status.HEALTHY, Status.UNKNOWN)
# The words of draft-inadarei-api-health-check. What is not known yet is no failure.
_WORDS = {
    Status.HEALTHY: "pass",
    Status.UNKNOWN: "warn",
    Status.DEGRADED: "warn",
    Status.UNHEALTHY: "fail",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """Something known to be down without a check."""

    reason: str
    critical: bool

    @property
    def standing(self) -> Standing:
        """As the rules of health see it."""
        return Standing(Kind.READY, self.critical, Status.UNHEALTHY, failing=True)


class Verdict:
    """The state of a service, and its reasons. Never waits, reads no clock."""

    def __init__(self) -> None:
        self.checks: dict[str, Check] = {}
        self.faults: dict[str, Fault] = {}
        self.alerts: dict[str, tuple[float, float]] = {}
        self.gate = (True, "")
        self.started = False

    @property
    def live(self) -> bool:
        """False when only a restart helps."""
        return not blockers(Kind.LIVE, self.standings())

    @property
    def ready(self) -> bool:
        """True when requests may come."""
        is_open = self.gate[0] and self.started
        return is_open and not blockers(Kind.READY, self.standings())

    def latch(self) -> None:
        """Note the moment when every critical startup check is up: once is enough."""
        if not blockers(Kind.STARTUP, self.standings()):
            self.started = True

    def status(self, beyond: Iterable[str] = ()) -> Status:
        """Of the whole; `beyond` are figures over their thresholds."""
        return overall(self.standings(), alerts=any(beyond) or bool(self.alerts))

    def standings(self) -> Standings:
        """All that counts, by name."""
        faults = {name: fault.standing for name, fault in self.faults.items()}
        return faults | {c.name: c.standing for c in self.checks.values()}

    def explains(self, name: str) -> bool:
        """Nothing below explains its failure: it is to be alerted of."""
        return causes(name, self.standings()) == (name,)

    def has_known_cause(self, name: str) -> bool:
        """Its failure is explained by others that are known to be down."""
        standings = self.standings()
        return all(
            cause != name and standings[cause].status is Status.UNHEALTHY
            for cause in causes(name, standings)
        )

    def reason(self, beyond: Iterable[str] = ()) -> str:
        """Why the whole is not healthy: root causes, figures, closed gate."""
        standings = self.standings()
        roots = dict.fromkeys(
            cause
            for name, standing in standings.items()
            if standing.status not in _WELL
            for cause in causes(name, standings)
        )
        told = [self._told(name) for name in roots]
        figures = sorted({*beyond, *self.alerts})
        told += [f"{metric} is beyond its threshold" for metric in figures]
        return "; ".join(told + self._closed())

    def verdicts(self) -> dict[str, Any]:
        """For each probe True, or the reasons why it fails: for `publish`."""
        why = {
            kind: [self._told(name) for name in blockers(kind, self.standings())]
            for kind in Kind
        }
        startup = [] if self.started else why[Kind.STARTUP]
        return {
            "live": why[Kind.LIVE] or True,
            "ready": self._closed() + startup + why[Kind.READY] or True,
            "startup": startup or True,
        }

    def document(
        self, now: float, since: float, beyond: Iterable[str] = ()
    ) -> Document:
        """All of it, for people."""
        return {
            "status": str(self.status(beyond)),
            "reason": self.reason(beyond),
            "since": now - since,
            "live": self.live,
            "ready": self.ready,
            "started": self.started,
            "alerts": {
                metric: {"value": value, "threshold": threshold}
                for metric, (value, threshold) in self.alerts.items()
            },
            "checks": {c.name: self._describe(c, now) for c in self.checks.values()},
            "faults": {
                name: {"reason": fault.reason, "critical": fault.critical}
                for name, fault in self.faults.items()
            },
        }

    def health_json(self, now: float, since: float) -> Document:
        """`document` in the words and shapes of draft-inadarei-api-health-check."""
        document = self.document(now, since)
        checks: dict[str, list[Document]] = {}
        for name, told in document["checks"].items():
            told["status"] = _WORDS[Status(told["status"])]
            if reason := told.pop("reason"):
                told["output"] = reason
            checks[name] = [told]
        for metric, alert in document["alerts"].items():
            observed = {"observedValue": alert["value"], "status": "warn"}
            checks.setdefault(metric, []).append({"componentType": "system"} | observed)
        return document | {
            "status": _WORDS[Status(document["status"])],
            "notes": [reason] if (reason := document["reason"]) else [],
            "checks": checks,
        }

    def _describe(self, check: Check, now: float) -> Document:
        status = check.damper.status
        well = status in _WELL
        return {
            "status": str(status),
            "kind": str(check.kind),
            "critical": check.critical,
            "reason": check.result.reason,
            "causes": [] if well else list(causes(check.name, self.standings())),
            "since": now - check.since,
        }

    def _told(self, name: str) -> str:
        if name in self.faults:
            return f"{name}: {self.faults[name].reason}"
        reason = self.checks[name].result.reason or "down"
        # A file's name may hold what UTF-8 has no bytes for.
        return f"{name}: {reason}".encode(errors="backslashreplace").decode()

    def _closed(self) -> list[str]:
        is_open, reason = self.gate
        return [] if is_open else [reason or "not ready"]
