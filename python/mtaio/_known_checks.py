"""Checks that most services want: what `HealthMonitor.check` is put on.

Each function here makes a check::

    health.check("disk", interval=60)(disk_space("/var/lib/app"))
"""

import asyncio
import contextlib
import http.client
import os
import shutil
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import SplitResult, urlsplit

from . import _rust
from ._states import Result, Status
from .cache import TTLCache
from .logging import AsyncFileHandler
from .monitoring import ResourceMonitor
from .resources import ConcurrencyLimiter, RateLimiter

AsyncCheck = Callable[[], Awaitable[Result]]
SyncCheck = Callable[[], Result]


def loop_lag(
    monitor: ResourceMonitor, *, degraded: float = 0.1, unhealthy: float = 1.0
) -> AsyncCheck:
    """How late timers fire, at the 99th percentile of the worst watched loop.

    Args:
        monitor: A started one; it watches the loop that started it.
        degraded: Seconds from which the service is degraded.
        unhealthy: Seconds from which it is unhealthy.
    """
    levels = _levels(degraded, unhealthy)

    async def check() -> Result:
        loops = (await monitor.get_current_stats()).loop.loops
        lag = max((loop.lag_p99_seconds for loop in loops), default=0.0)
        return _graded(lag, levels, f"loop lag {lag:.3f} s")

    return check


def memory_use(
    monitor: ResourceMonitor, *, degraded: float = 90.0, unhealthy: float = 97.0
) -> AsyncCheck:
    """Memory in use, in percent of what the process may use (its cgroup's limit)."""
    levels = _levels(degraded, unhealthy)

    async def check() -> Result:
        percent = (await monitor.get_current_stats()).memory.percent
        if percent is None:
            return Result(Status.DEGRADED, "the system does not tell")
        return _graded(percent, levels, f"memory {percent:.1f} %")

    return check


def disk_space(
    path: str | os.PathLike[str], *, degraded: float = 85.0, unhealthy: float = 95.0
) -> SyncCheck:
    """Space in use on the file system of `path`, in percent, as df(1) counts."""
    levels = _levels(degraded, unhealthy)

    def check() -> Result:
        space = shutil.disk_usage(path)
        reachable = space.used + space.free
        percent = 100.0 * space.used / reachable if reachable else 100.0
        return _graded(percent, levels, f"{os.fspath(path)} is {percent:.1f} % full")

    return check


def log_writer(handler: AsyncFileHandler) -> SyncCheck:
    """Whether the log is being written.

    Unhealthy while writes fail, degraded when records were dropped since the
    check before.
    """
    seen = handler.stats()

    def check() -> Result:
        nonlocal seen
        before, seen = seen, handler.stats()
        if seen.failed_writes > before.failed_writes:
            return Result(Status.UNHEALTHY, seen.last_error or "writes fail")
        if dropped := seen.dropped - before.dropped:
            return Result(Status.DEGRADED, f"{dropped} records were dropped")
        return Result(Status.HEALTHY)

    return check


def saturation(
    limiter: RateLimiter | ConcurrencyLimiter,
    *,
    degraded: int = 100,
    unhealthy: int = 1000,
) -> AsyncCheck:
    """How many callers wait at a limiter."""
    levels = _levels(
        _rust.whole("degraded", degraded), _rust.whole("unhealthy", unhealthy)
    )

    async def check() -> Result:
        waiting = limiter.stats().waiting
        return _graded(waiting, levels, f"{waiting} callers wait")

    return check


def cache_loads(
    cache: TTLCache[Any], *, degraded: float = 10.0, unhealthy: float = 50.0
) -> AsyncCheck:
    """Computations for a cache that failed since the check before, in percent."""
    levels = _levels(degraded, unhealthy)
    seen = cache.stats()

    async def check() -> Result:
        nonlocal seen
        before, seen = seen, cache.stats()
        failed = seen.load_errors - before.load_errors
        percent = 100.0 * failed / max(seen.loads - before.loads, failed, 1)
        return _graded(percent, levels, f"{failed} loads failed, {percent:.0f} %")

    return check


def tcp(host: str, port: int) -> AsyncCheck:
    """Whether somebody accepts connections there. The check's timeout bounds it."""
    address = (_rust.text("host", host), _port(port))

    async def check() -> Result:
        _, writer = await asyncio.open_connection(*address)
        writer.close()
        with contextlib.suppress(OSError):  # it did answer
            await writer.wait_closed()
        return Result(Status.HEALTHY)

    return check


def http_get(url: str, *, timeout: float = 5.0) -> SyncCheck:
    """Whether a GET is answered with a status below 400, without redirects or proxies.

    Args:
        url: `http://` or `https://`.
        timeout: Seconds without an answer; give the check itself no less.
    """
    parts = urlsplit(_rust.text("url", url))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"url must be http:// or https:// with a host, got {url!r}")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "url must be without user and password, which would not be sent"
        )
    shown = parts._replace(query="", fragment="").geturl()  # a token may be there
    host, port = parts.hostname, _port_of(parts, url)
    seconds = _rust.positive("timeout", timeout)
    secure = parts.scheme == "https"
    connect = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"

    def check() -> Result:
        connection = connect(host, port, timeout=seconds)
        with contextlib.closing(connection):
            connection.request("GET", target, headers={"Connection": "close"})
            status = connection.getresponse().status
        fine = status < http.HTTPStatus.BAD_REQUEST
        level = Status.HEALTHY if fine else Status.UNHEALTHY
        return Result(level, f"{shown} answered {status}")

    return check


def _levels(degraded: float, unhealthy: float) -> tuple[float, float]:
    least = _rust.positive("degraded", degraded)
    if _rust.positive("unhealthy", unhealthy) < least:
        raise ValueError(
            f"unhealthy must be at least degraded ({degraded:g}), got {unhealthy:g}"
        )
    return least, float(unhealthy)


def _graded(value: float, levels: tuple[float, float], told: str) -> Result:
    degraded, unhealthy = levels
    if value >= unhealthy:
        return Result(Status.UNHEALTHY, f"{told}, unhealthy from {unhealthy:g}")
    if value >= degraded:
        return Result(Status.DEGRADED, f"{told}, degraded from {degraded:g}")
    return Result(Status.HEALTHY, told)


def _port_of(parts: SplitResult, url: str) -> int | None:
    try:
        return parts.port
    except ValueError as error:
        raise ValueError(f"url must have a port of 0 to 65535, got {url!r}") from error


def _port(given: int) -> int:
    port = _rust.whole("port", given)
    if port > 65535:
        raise ValueError(f"port must be 1 to 65535, got {given}")
    return port
