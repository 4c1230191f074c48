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
    yield _gauge("app_requests_in_flight", "Under way now.", app.in_flight)
    yield _counter("app_requests", "Let in so far.", app.requests)
    if isinstance(app.error_handler, ErrorHandler):
        counts = app.error_handler.counts().items()
        series = [({"type": name}, count) for name, count in counts]
        yield _counter("app_errors", "Errors told, logged or not.", series)
    if app.rate_limiter is not None:
        rate = app.rate_limiter.stats()
        yield _counter("app_rate_limiter_granted", "Tokens granted.", rate.granted)
        yield _counter("app_rate_limiter_refused", "Requests refused.", rate.refused)
        yield _gauge("app_rate_limiter_waiting", "Callers that wait.", rate.waiting)
    if app.concurrency_limiter is not None:
        places = app.concurrency_limiter.stats()
        prefix = "app_concurrency_limiter"
        yield _gauge(f"{prefix}_limit", "Places there are.", places.limit)
        yield _gauge(f"{prefix}_in_use", "Places taken.", places.in_use)
        yield _gauge(f"{prefix}_waiting", "Callers that wait.", places.waiting)
    if app.health is not None:
        yield _gauge("health_ready", "1 when requests may come.", int(app.health.ready))
        text = "-1 unknown, 0 healthy, 1 degraded, 2 unhealthy."
        yield _gauge("health_status", text, _LEVELS[app.health.status])
        levels = app.health.statuses().items()
        series = [({"check": name}, _LEVELS[status]) for name, status in levels]
        yield _gauge("health_check_status", text, series)


def _gauge(name: str, text: str, series: object) -> MetricFamily:
    return MetricFamily("gauge", f"mtaio_{name}", text, series)


def _counter(name: str, text: str, series: object) -> MetricFamily:
    return MetricFamily("counter", f"mtaio_{name}_total", text, series)
