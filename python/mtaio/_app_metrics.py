"""An application's figures, for `/metrics`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ._errors import ErrorHandler
from .monitoring import MetricFamily

if TYPE_CHECKING:
    from .app import Application

_LEVELS = {"unknown": -1, "healthy": 0, "degraded": 1, "unhealthy": 2}


def families(app: "Application") -> Iterator[MetricFamily]:
    """Requests, errors, limits and checks, as they are now."""
    yield MetricFamily(
        "gauge", "mtaio_app_requests_in_flight", "Under way now.", app.in_flight
    )
    yield MetricFamily(
        "counter", "mtaio_app_requests_total", "Let in so far.", app.requests
    )
    if isinstance(app.error_handler, ErrorHandler):
        counts = app.error_handler.counts().items()
        series = [({"type": name}, count) for name, count in counts]
        yield MetricFamily(
            "counter", "mtaio_app_errors_total", "Errors told, logged or not.", series
        )
    if app.rate_limiter is not None:
        stats = app.rate_limiter.stats()
        prefix = "mtaio_app_rate_limiter"
        text = "Tokens granted."
        yield MetricFamily("counter", f"{prefix}_granted_total", text, stats.granted)
        text = "Requests refused."
        yield MetricFamily("counter", f"{prefix}_refused_total", text, stats.refused)
        text = "Callers that wait."
        yield MetricFamily("gauge", f"{prefix}_waiting", text, stats.waiting)
    if app.health is not None:
        levels = app.health.statuses().items()
        series = [({"check": name}, _LEVELS[status]) for name, status in levels]
        text = "-1 unknown, 0 healthy, 1 degraded, 2 unhealthy."
        yield MetricFamily("gauge", "mtaio_health_check_status", text, series)
