"""The deployment checklist as checks of this machine and its settings."""

import enum
import json
import os
import re
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from . import config
from .config import Settings
from .monitoring import ResourceMonitor, SystemStats

# Fewer than this run out under a few hundred connections, log and sockets aside.
_LEAST_FDS = 1024
# Before this package existed no clock can stand.
_EARLIEST = 1_700_000_000
_SECRET = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|PRIVATE_?KEY", re.IGNORECASE
)


class Level(enum.StrEnum):
    """How bad a finding is. Only `FAIL` makes the exit code 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found on one item of the checklist."""

    item: str
    level: Level
    detail: str


Check = Callable[[Settings, SystemStats], Iterator[Finding]]


async def examine(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> list[Finding]:
    """Go through the checklist; takes about half a second for the CPU's figures."""
    async with ResourceMonitor() as monitor:
        stats = await monitor.get_current_stats()
    findings = [f for check in _CHECKLIST for f in check(settings, stats)]
    return findings + list(_secrets(os.environ if environ is None else environ))


def as_text(findings: list[Finding]) -> str:
    """One line an item."""
    return "\n".join(f"{f.level:4}  {f.item}: {f.detail}" for f in findings)


def as_json(findings: list[Finding]) -> str:
    """For programs: a list of objects with `item`, `level` and `detail`."""
    return json.dumps([asdict(finding) for finding in findings], indent=2)


def environment_table(environ: Mapping[str, str]) -> str:
    """Each variable, its value, and whether the environment or the default set it."""
    lines = []
    for variable in config.variables():
        is_set = variable.name in environ
        value = environ[variable.name] if is_set else variable.default
        source = "environment" if is_set else "default"
        lines.append(f"{variable.name}={value}  ({source}; {variable.accepts})")
    return "\n".join(lines)


def _limits(settings: Settings, stats: SystemStats) -> Iterator[Finding]:
    cores = stats.cpu.allowed_cores
    most = 32 * max(cores or 1.0, 1.0)
    level = Level.OK if settings.max_workers <= most else Level.WARN
    told = "unknown" if cores is None else f"{cores:g}"
    yield Finding("workers", level, f"{settings.max_workers} on {told} usable cores")
    level = Level.OK if settings.burst_limit >= settings.rate_limit / 10 else Level.WARN
    yield Finding(
        "rate limit",
        level,
        f"{settings.rate_limit:g}/s with a burst of {settings.burst_limit}, "
        f"{settings.concurrency_limit} at a time",
    )


def _memory(_: Settings, stats: SystemStats) -> Iterator[Finding]:
    limit = stats.memory.limit_bytes
    if limit is None:
        yield Finding("memory", Level.WARN, "the system does not tell its size")
        return
    level = Level.OK if limit >= 512 * 2**20 else Level.WARN
    told = f"{limit / 2**20:.0f} MiB usable, the guide recommends 512 or more"
    yield Finding("memory", level, told)


def _deadlines(settings: Settings, _: SystemStats) -> Iterator[Finding]:
    needed = settings.drain_delay + settings.default_timeout
    level = Level.OK if needed <= settings.grace_period else Level.WARN
    yield Finding(
        "grace period",
        level,
        f"{settings.grace_period:g} s for a drain of {settings.drain_delay:g} s "
        f"and requests of up to {settings.default_timeout:g} s",
    )
    if settings.drain_delay == 0:
        told = "0 s: a balancer that has not noticed yet still sends requests"
        yield Finding("drain delay", Level.WARN, told)


def _log(settings: Settings, _: SystemStats) -> Iterator[Finding]:
    folder = Path(settings.log_file).absolute().parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        yield Finding("log folder", Level.FAIL, f"{folder} can't be written: {error}")
    else:
        yield Finding("log folder", Level.OK, f"{folder} can be written")
    rotates = settings.log_max_bytes > 0 and settings.log_backup_count > 0
    told = f"at {settings.log_max_bytes} bytes, {settings.log_backup_count} backups"
    yield Finding("log rotation", Level.OK if rotates else Level.WARN, told)


def _thresholds(settings: Settings, stats: SystemStats) -> Iterator[Finding]:
    for name, now, limit in (
        ("CPU", stats.cpu.usage_percent, settings.cpu_threshold),
        ("memory", stats.memory.percent, settings.memory_threshold),
    ):
        level = Level.WARN if now is not None and now >= limit else Level.OK
        told = "unknown" if now is None else f"{now:.1f} %"
        yield Finding(f"{name} threshold", level, f"{limit:g} %, now {told}")


def _probes(settings: Settings, _: SystemStats) -> Iterator[Finding]:
    address = (settings.probe_host, settings.probe_port)
    told = f"{settings.probe_host} port {settings.probe_port}"
    try:
        family = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0][0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        yield Finding("probe port", Level.FAIL, f"{told} can't be had: {error}")
        return
    yield Finding("probe port", Level.OK, f"{told} is free")


def _descriptors(settings: Settings, stats: SystemStats) -> Iterator[Finding]:
    limit = stats.process.fd_limit
    if limit is None:
        yield Finding("file descriptors", Level.OK, "no limit")
        return
    needed = max(_LEAST_FDS, 4 * settings.concurrency_limit)
    level = Level.OK if limit >= needed else Level.WARN
    yield Finding("file descriptors", level, f"{limit}, {needed} or more are advised")


def _clock(_: Settings, __: SystemStats) -> Iterator[Finding]:
    now = time.time()
    level = Level.OK if now >= _EARLIEST else Level.FAIL
    told = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
    yield Finding("clock", level, f"it is {told}")


def _secrets(environ: Mapping[str, str]) -> Iterator[Finding]:
    # Names only: the values are what must not be shown.
    names = sorted(name for name in environ if _SECRET.search(name))
    if names:
        told = f"in the environment, which children and crash dumps see: {names}"
        yield Finding("secrets", Level.WARN, told)
    else:
        yield Finding("secrets", Level.OK, "no variable looks like one")


_CHECKLIST: tuple[Check, ...] = (
    _limits,
    _memory,
    _deadlines,
    _log,
    _thresholds,
    _probes,
    _descriptors,
    _clock,
)
