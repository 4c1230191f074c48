"""What the runtime reports, put into words for the journal."""

import logging

from mtaio.events import Event
from mtaio.health import HealthMonitor
from mtaio.monitoring import StallReport

from .journal import Journal, Level

watchdog_log = logging.getLogger("mtaio.watchdog")
LEVELS: dict[str, Level] = {"healthy": "good", "degraded": "warning"}


class Reporter:
    """Listens to health and watchdog, and tells the journal."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def listen(self, health: HealthMonitor) -> None:
        """Hear of alerts, of changes, and of figures that came back."""
        health.emitter.on("health_alert")(self.alerted)
        health.emitter.on("health_changed")(self.changed)
        health.monitor.on_threshold_cleared(self.cleared)

    def alerted(self, event: Event[dict[str, object]]) -> None:
        """A figure crossed its threshold, or a check went down."""
        alert = event.data
        told = f"alert: {alert['metric']} is {_short(alert['value'])}"
        if alert["threshold"] != "healthy":
            told += f", its threshold {_short(alert['threshold'])}"
        self._journal.tell("bad", "health", told)

    def changed(self, event: Event[dict[str, str | None]]) -> None:
        """A check, or the whole, changed its status."""
        change = event.data
        status = change["status"] or ""
        if change["previous"] == "unknown" and status == "healthy":
            return  # no news
        what = f"check {change['check']}" if change["check"] else "the service"
        told = f"{what} went from {change['previous']} to {status}"
        if status != "healthy" and change["reason"]:
            told += f": {change['reason']}"
        self._journal.tell(LEVELS.get(status, "bad"), "health", told)

    def cleared(self, metric: str, value: float, threshold: float) -> None:
        """A figure came back."""
        told = f"cleared: {metric} is {value:.4g}, its threshold {threshold:.4g}"
        self._journal.tell("good", "health", told)

    def stalled(self, report: StallReport) -> None:
        """The loop is stuck; told from a thread of the watchdog."""
        told = f"event loop {report.loop!r} has not run for {report.lasted:.2f} s"
        if report.interpreter_held:
            told += "; the interpreter was held"
        stack = report.stack or "no stack could be taken"
        watchdog_log.error("%s\n%s", told, stack)
        self._journal.tell("bad", "watchdog", told, stack)

    def recovered(self, report: StallReport) -> None:
        """The loop runs again; told from a thread of the watchdog."""
        told = f"event loop {report.loop!r} runs again after {report.lasted:.2f} s"
        watchdog_log.warning("%s", told)
        self._journal.tell("good", "watchdog", told)


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
