"""The checks behind `mtaio doctor`, in the order of the deployment checklist."""

import ctypes
import ipaddress
import logging
import os
import socket
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import config
from ._errors import ErrorHandler
from ._findings import Finding, Level, Question, looks_secret
from ._process_end import LATEST_SECONDS
from .config import Settings
from .monitoring import SystemStats

if TYPE_CHECKING:
    from .app import Application

# Fewer than this run out under a few hundred connections, log and sockets aside.
_LEAST_FDS = 1024
# Before this package existed no clock can stand.
_EARLIEST = 1_700_000_000
_MIB = 2**20
# adjtimex(2): the clock is not synchronised.
_TIME_ERROR = 5


@dataclass(frozen=True, slots=True)
class Matter:
    """What is examined."""

    settings: Settings
    stats: SystemStats
    environ: Mapping[str, str]
    app: "Application | None" = None


Check = Callable[[Matter], Iterator[Finding]]


def _warn_unless(fine: bool) -> Level:
    return Level.OK if fine else Level.WARN


def _variables(matter: Matter) -> Iterator[Finding]:
    origins = config.origins(matter.environ)
    sources = [source for _, _, source in origins if source != "default"]
    told = f"{len(origins)} are valid, {len(sources)} of them set"
    if sources:
        told += f" by {', '.join(sorted(set(sources)))}"
    yield Finding(Question.ENVIRONMENT, "variables", Level.OK, told)


def _clock(_: Matter) -> Iterator[Finding]:
    now = time.time()
    told = time.strftime("it is %Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    level = Level.OK if now >= _EARLIEST else Level.FAIL
    if level is Level.OK and _is_unsynchronised():
        level, told = Level.WARN, f"{told}; the kernel says it is not synchronised"
    yield Finding(Question.ENVIRONMENT, "clock", level, told)


def _is_unsynchronised() -> bool:
    if sys.platform != "linux":
        return False
    # `modes`, the first field, is 0: nothing is set. The struct takes 208 bytes.
    asked = ctypes.create_string_buffer(512)
    return bool(ctypes.CDLL(None).adjtimex(asked) == _TIME_ERROR)


def _workers(matter: Matter) -> Iterator[Finding]:
    workers, cores = matter.settings.max_workers, matter.stats.cpu.allowed_cores
    told = "unknown" if cores is None else f"{cores:g}"
    level = _warn_unless(workers <= 32 * max(cores or 1.0, 1.0))
    detail = f"{workers} on {told} usable cores"
    yield Finding(Question.RESOURCES, "workers", level, detail)


def _memory(matter: Matter) -> Iterator[Finding]:
    limit = matter.stats.memory.limit_bytes
    level, told = Level.WARN, "the system does not tell its size"
    if limit is not None:
        level = _warn_unless(limit >= 512 * _MIB)
        told = f"{limit / _MIB:.0f} MiB usable, the guide recommends 512 or more"
    yield Finding(Question.RESOURCES, "memory", level, told)


def _descriptors(matter: Matter) -> Iterator[Finding]:
    limit = matter.stats.process.fd_limit
    needed = max(_LEAST_FDS, 4 * matter.settings.concurrency_limit)
    level = _warn_unless(limit is None or limit >= needed)
    told = "no limit" if limit is None else f"{limit}, {needed} or more are advised"
    yield Finding(Question.RESOURCES, "file descriptors", level, told)


def _log(matter: Matter) -> Iterator[Finding]:
    settings = matter.settings
    level = _warn_unless(logging.getLevelName(settings.log_level) >= logging.INFO)
    told = settings.log_level
    if level is Level.WARN:
        told += " fills the disk, and may show what only a developer should see"
    yield Finding(Question.LOGGING, "log level", level, told)
    file = Path(settings.log_file).absolute()
    level, told = Level.OK, f"{file.parent} can be written"
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            pass
        if file.exists() and not file.is_fifo():  # which would wait for its reader
            file.open("ab").close()  # another user's, say, that ran it once
    except OSError as error:
        level, told = Level.FAIL, f"{file} can't be written: {error}"
    yield Finding(Question.LOGGING, "log folder", level, told)
    rotates = settings.log_max_bytes > 0 and settings.log_backup_count > 0
    told = f"at {settings.log_max_bytes} bytes, {settings.log_backup_count} backups"
    yield Finding(Question.LOGGING, "log rotation", _warn_unless(rotates), told)


def _health(matter: Matter) -> Iterator[Finding]:
    if matter.app is None:
        told = "name the application (mtaio doctor MODULE:FACTORY) to have them counted"
        yield Finding(Question.HEALTH, "health checks", Level.ASK, told)
        return
    health = matter.app.health
    names = [] if health is None else list(health.statuses())
    told = ", ".join(names) or "none: give health= and put @health.check on functions"
    yield Finding(Question.HEALTH, "health checks", _warn_unless(bool(names)), told)
    served = health is not None and health.probes is not None
    told = "served" if served else "nobody is told: give the HealthMonitor probes="
    yield Finding(Question.HEALTH, "probes of health", _warn_unless(served), told)


def _probe_port(matter: Matter) -> Iterator[Finding]:
    host, port = matter.settings.probe_host, matter.settings.probe_port
    told = f"{host} port {port}"
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        told = f"{told} can't be had: {error}"
        yield Finding(Question.METRICS, "probe port", Level.FAIL, told)
        return
    told = f"{told} is free" if port else "any free one: nobody knows where to ask"
    yield Finding(Question.METRICS, "probe port", _warn_unless(port != 0), told)


def _thresholds(matter: Matter) -> Iterator[Finding]:
    stats, settings = matter.stats, matter.settings
    for name, now, limit in (
        ("CPU", stats.cpu.usage_percent, settings.cpu_threshold),
        ("memory", stats.memory.percent, settings.memory_threshold),
    ):
        level = _warn_unless(now is None or now < limit)
        told = f"{limit:g} %, now {'unknown' if now is None else f'{now:.1f} %'}"
        yield Finding(Question.ALERTS, f"{name} threshold", level, told)
    told = "does an alert wake somebody? See docs/prometheus"
    yield Finding(Question.ALERTS, "alert rules", Level.ASK, told)


def _errors(matter: Matter) -> Iterator[Finding]:
    if matter.app is None:
        told = "is error_handler.install() called, and does each client see its error?"
        yield Finding(Question.ERRORS, "error handler", Level.ASK, told)
        return
    ours = isinstance(matter.app.error_handler, ErrorHandler)
    told = type(matter.app.error_handler).__name__
    level = Level.OK if ours else Level.ASK
    yield Finding(Question.ERRORS, "error handler", level, told)


def _deadlines(matter: Matter) -> Iterator[Finding]:
    timeout = matter.settings.default_timeout
    if matter.app is not None and matter.app.timeout_manager is not None:
        timeout = matter.app.timeout_manager.default_timeout or timeout
    times: Application | Settings = matter.app or matter.settings
    drain, grace = times.drain_delay, times.grace_period
    told = f"{grace:g} s for a drain of {drain:g} s and requests of up to {timeout:g} s"
    level = _warn_unless(drain + timeout < grace)
    yield Finding(Question.ERRORS, "grace period", level, told)
    told = f"{drain:g} s"
    if drain == 0:
        told += ": a balancer that has not noticed yet still sends requests"
    yield Finding(Question.ERRORS, "drain delay", _warn_unless(drain > 0), told)
    told = (
        f"must be above {grace + LATEST_SECONDS:g} s: terminationGracePeriodSeconds "
        "of Kubernetes, TimeoutStopSec of systemd"
    )
    yield Finding(Question.ERRORS, "the platform's patience", Level.ASK, told)


def _error_log(matter: Matter) -> Iterator[Finding]:
    told = matter.settings.log_level
    fine = logging.getLevelName(told) <= logging.ERROR
    level = Level.OK if fine else Level.FAIL
    told += " lets errors through" if fine else " hides errors"
    yield Finding(Question.ERROR_LOG, "error log", level, told)


def _recovery(_: Matter) -> Iterator[Finding]:
    told = "does everybody on call know docs/troubleshooting.md, and where to write?"
    yield Finding(Question.RECOVERY, "runbooks", Level.ASK, told)


def _cache(matter: Matter) -> Iterator[Finding]:
    settings = matter.settings
    told = (
        f"{settings.cache_size} entries for {settings.cache_ttl:g} s; "
        "is stats().hit_rate worth it under real traffic?"
    )
    yield Finding(Question.CACHE, "cache", Level.ASK, told)


def _limits(matter: Matter) -> Iterator[Finding]:
    settings = matter.settings
    level = _warn_unless(settings.burst_limit >= settings.rate_limit / 10)
    told = f"{settings.rate_limit:g}/s with a burst of {settings.burst_limit}"
    yield Finding(Question.LIMITS, "rate limit", level, told)
    told = "is it below what was measured to break the service?"
    yield Finding(Question.LIMITS, "measured limit", Level.ASK, told)


def _concurrency(matter: Matter) -> Iterator[Finding]:
    places = matter.settings.concurrency_limit
    told = f"{places} requests at a time"
    yield Finding(Question.CONCURRENCY, "concurrency limit", Level.OK, told)
    if matter.app is None:
        return
    parts = ("rate_limiter", "concurrency_limiter", "timeout_manager")
    missing = [name for name in parts if getattr(matter.app, name) is None]
    told = f"without {', '.join(missing)}" if missing else "has all three limits"
    level = _warn_unless(not missing)
    yield Finding(Question.CONCURRENCY, "the application", level, told)


def _secrets(matter: Matter) -> Iterator[Finding]:
    # Names only: the values are what must not be shown.
    names = sorted(n for n, v in matter.environ.items() if looks_secret(n, v))
    told = "no variable looks like one"
    if names:
        told = f"in the environment, which children and crash dumps see: {names}"
    yield Finding(Question.SECRETS, "secrets", _warn_unless(not names), told)
    file = matter.settings.settings_file
    if file and os.name == "posix":
        is_private = not Path(file).stat().st_mode & stat.S_IROTH
        told = f"{file} is {'not ' if is_private else ''}readable for everybody"
        yield Finding(Question.SECRETS, "settings file", _warn_unless(is_private), told)


def _access(_: Matter) -> Iterator[Finding]:
    if hasattr(os, "geteuid"):
        is_root = os.geteuid() == 0
        told = "it runs as root" if is_root else f"it runs as user {os.geteuid()}"
        yield Finding(Question.ACCESS, "user", _warn_unless(not is_root), told)
    told = "who may call the service is the service's own matter"
    yield Finding(Question.ACCESS, "callers", Level.ASK, told)


def _network(matter: Matter) -> Iterator[Finding]:
    host = matter.settings.probe_host
    is_local = _is_loopback(host)
    told = f"on {host}, "
    told += (
        "which only this machine reaches"
        if is_local
        else "which the network reaches, without a password: is it fenced in?"
    )
    yield Finding(Question.NETWORK, "reach of the probes", _warn_unless(is_local), told)
    told = "is there TLS before the service?"
    yield Finding(Question.NETWORK, "encryption", Level.ASK, told)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


CHECKS: tuple[Check, ...] = (
    _variables,
    _clock,
    _workers,
    _memory,
    _descriptors,
    _log,
    _health,
    _probe_port,
    _thresholds,
    _errors,
    _deadlines,
    _error_log,
    _recovery,
    _cache,
    _limits,
    _concurrency,
    _secrets,
    _access,
    _network,
)
