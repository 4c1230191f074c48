"""What `ResourceMonitor` tells: frozen dataclasses, each figure with its unit.

`None` means that the system doesn't say (an older kernel, a container that hides
it, a platform without it); a figure is never guessed. Figures per second and
percentages are over the last interval, and at least half a second.
"""

import sys
import types
import typing
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass, make_dataclass
from typing import Any, TypeVar, overload

from . import _rust

StatsT = TypeVar("StatsT")


@dataclass(frozen=True, slots=True, kw_only=True)
class CPUStats:
    """Processor time.

    Attributes:
        usage_percent: Share in use of what this process may use: of the tightest
            control group quota (`cpu.max`, `cpu.cfs_quota_us`) if one binds, else
            of the processors it may run on (affinity, cpuset). 0 to 100.
        host_usage_percent: Share of all the machine's processors in use.
        host_iowait_percent: Share idle while a disk request was under way.
        host_steal_percent: Share taken by the hypervisor for others.
        allowed_cores: Processors' worth of time this process may use.
        host_cores: Processors online.
        throttled_percent: Share of the quota's periods in which the group was
            held back; `None` without a quota.
        throttled_seconds: Time held back since the group was made.
        load_1m: Runnable tasks, averaged over a minute.
        load_5m: The same over 5 minutes.
        load_15m: The same over 15 minutes.
        per_core_percent: Share in use of each processor online.
    """

    usage_percent: float | None
    host_usage_percent: float | None
    host_iowait_percent: float | None
    host_steal_percent: float | None
    allowed_cores: float | None
    host_cores: int | None
    throttled_percent: float | None
    throttled_seconds: float | None
    load_1m: float | None
    load_5m: float | None
    load_15m: float | None
    per_core_percent: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """Memory, in bytes.

    Attributes:
        percent: Share in use of what this process may use: of the control group
            limit that is nearest to being reached, else of the machine. In a
            group, file cache that was not touched lately (`inactive_file`) is
            not in use: the kernel takes it back before it kills anyone.
        limit_bytes: What `percent` is of.
        used_bytes: What `percent` counts.
        available_bytes: What this process could still have.
        host_total_bytes: The machine's memory.
        host_available_bytes: What new work on the machine could have.
        swap_total_bytes: The machine's swap.
        swap_used_bytes: Swap in use.
        cgroup_limit_bytes: The binding limit; `None` without one.
        cgroup_usage_bytes: What that group uses, file cache and all.
        cgroup_inactive_file_bytes: File cache in it that was not touched lately.
        cgroup_oom_kills: Processes of this group killed for want of memory.
    """

    percent: float | None
    limit_bytes: int | None
    used_bytes: int | None
    available_bytes: int | None
    host_total_bytes: int | None
    host_available_bytes: int | None
    swap_total_bytes: int | None
    swap_used_bytes: int | None
    cgroup_limit_bytes: int | None
    cgroup_usage_bytes: int | None
    cgroup_inactive_file_bytes: int | None
    cgroup_oom_kills: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IOStats:
    """What this process moved (`/proc/self/io`).

    Attributes:
        read_bytes: Bytes it caused to be read from storage.
        write_bytes: Bytes it caused to be written to storage.
        read_count: Read system calls, sockets and pipes too.
        write_count: Write system calls, sockets and pipes too.
        read_bytes_per_second: `read_bytes` over the last interval.
        write_bytes_per_second: `write_bytes` over the last interval.
    """

    read_bytes: int | None
    write_bytes: int | None
    read_count: int | None
    write_count: int | None
    read_bytes_per_second: float | None
    write_bytes_per_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkStats:
    """All interfaces of this network namespace but the loopback, since boot.

    Attributes:
        received_bytes: Bytes received.
        sent_bytes: Bytes sent.
        received_packets: Packets received.
        sent_packets: Packets sent.
        errors: Packets spoilt, either way.
        drops: Packets dropped, either way.
        received_bytes_per_second: `received_bytes` over the last interval.
        sent_bytes_per_second: `sent_bytes` over the last interval.
    """

    received_bytes: int | None
    sent_bytes: int | None
    received_packets: int | None
    sent_packets: int | None
    errors: int | None
    drops: int | None
    received_bytes_per_second: float | None
    sent_bytes_per_second: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskStats:
    """Whole disks since boot, each counted once, and the space of `disk_path`.

    Attributes:
        read_bytes: Bytes read from all disks.
        write_bytes: Bytes written to all disks.
        read_count: Reads completed.
        write_count: Writes completed.
        read_bytes_per_second: `read_bytes` over the last interval.
        write_bytes_per_second: `write_bytes` over the last interval.
        total_bytes: Size of the file system that `disk_path` is on.
        free_bytes: What an unprivileged process can still have of it.
        used_percent: Share of it in use, as df(1) counts.
    """

    read_bytes: int | None
    write_bytes: int | None
    read_count: int | None
    write_count: int | None
    read_bytes_per_second: float | None
    write_bytes_per_second: float | None
    total_bytes: int | None
    free_bytes: int | None
    used_percent: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStats:
    """This process.

    Attributes:
        cpu_percent: Processor time; 100 is one processor.
        cpu_seconds: Processor time since it started.
        rss_bytes: Resident memory.
        peak_rss_bytes: The most it ever was.
        threads: Threads, native ones too.
        open_fds: Open file descriptors.
        fd_limit: How many it may open; `None` also when unlimited.
        fd_percent: `open_fds` of `fd_limit`.
        voluntary_switches: Times a thread gave the processor up.
        involuntary_switches: Times the processor was taken from a thread.
        voluntary_switches_per_second: The first over the last interval.
        involuntary_switches_per_second: The second over the last interval.
        gc_pauses: Garbage collections in the last interval; the three `gc_`
            figures are `None` while the monitor is not started.
        gc_pause_seconds: Their time in all.
        gc_pause_max_seconds: The longest.
    """

    cpu_percent: float | None
    cpu_seconds: float | None
    rss_bytes: int | None
    peak_rss_bytes: int | None
    threads: int | None
    open_fds: int | None
    fd_limit: int | None
    fd_percent: float | None
    voluntary_switches: int | None
    involuntary_switches: int | None
    voluntary_switches_per_second: float | None
    involuntary_switches_per_second: float | None
    gc_pauses: int | None
    gc_pause_seconds: float | None
    gc_pause_max_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """Time tasks stood still for want of one resource (Linux PSI).

    Attributes:
        some_percent: Share of the last interval in which some task was stalled.
        some_avg10_percent: The kernel's average over 10 seconds.
        some_avg60_percent: The same over a minute.
        some_avg300_percent: The same over 5 minutes.
        some_seconds: Time stalled in all.
        full_percent: Share of the interval in which all tasks were stalled.
        full_avg10_percent: The kernel's average over 10 seconds.
        full_avg60_percent: The same over a minute.
        full_avg300_percent: The same over 5 minutes.
        full_seconds: Time stalled in all.
    """

    some_percent: float | None
    some_avg10_percent: float | None
    some_avg60_percent: float | None
    some_avg300_percent: float | None
    some_seconds: float | None
    full_percent: float | None
    full_avg10_percent: float | None
    full_avg60_percent: float | None
    full_avg300_percent: float | None
    full_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PressureStats:
    """Pressure of this process's control group, else of the machine.

    Attributes:
        cpu: Waiting for a processor.
        memory: Waiting for memory.
        io: Waiting for a disk.
    """

    cpu: Pressure
    memory: Pressure
    io: Pressure


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLag:
    """How late the timers of one event loop fired in the last interval.

    Attributes:
        name: The name it was watched under.
        ticks: Timers that fired.
        lag_p50_seconds: Half of them were at most this late.
        lag_p99_seconds: 99 of 100 were at most this late.
        lag_max_seconds: The latest; a block still under way counts.
    """

    name: str
    ticks: int
    lag_p50_seconds: float
    lag_p99_seconds: float
    lag_max_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopStats:
    """All watched event loops together; `None` while none is watched.

    A timer of an idle loop fires up to 1 ms late by itself: the poll it sleeps
    in counts milliseconds.

    Attributes:
        lag_p50_seconds: Half of all timers were at most this late.
        lag_p99_seconds: 99 of 100 were at most this late.
        lag_max_seconds: The latest of any loop; a block still under way counts.
        ticks: Timers that fired.
        loops: The same for each loop.
    """

    lag_p50_seconds: float | None
    lag_p99_seconds: float | None
    lag_max_seconds: float | None
    ticks: int | None
    loops: tuple[LoopLag, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemStats:
    """One sample.

    Attributes:
        timestamp: Seconds since 1970 when it was taken.
        uptime: Seconds since this process started. (Where the system doesn't
            say, since the monitor was made.)
        cpu: Processor time.
        memory: Memory.
        io: What this process moved.
        network: The network.
        disk: Disks and space on them.
        process: This process.
        pressure: Time lost waiting.
        loop: Event loop lag.
    """

    timestamp: float
    uptime: float
    cpu: CPUStats
    memory: MemoryStats
    io: IOStats
    network: NetworkStats
    disk: DiskStats
    process: ProcessStats
    pressure: PressureStats
    loop: LoopStats


def _maker(kind: type[StatsT]) -> Callable[..., StatsT]:
    """Return what makes a `kind` from its fields in their order.

    A frozen dataclass calls `object.__setattr__` for each field, at six times the
    cost of an assignment, and a sample has a hundred of them. So one that is not
    frozen is filled, and then made the other, whose layout is the same.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        # There a change of class stops all threads.
        return lambda *values: kind(**dict(zip(names, values, strict=True)))
    plain: Callable[..., Any] = make_dataclass(kind.__name__, names, slots=True)

    def make(*values: Any) -> StatsT:
        made = plain(*values)
        made.__class__ = kind
        return made  # type: ignore[no-any-return]

    return make


_cpu, _memory, _io = _maker(CPUStats), _maker(MemoryStats), _maker(IOStats)
_network, _disk, _process = (
    _maker(NetworkStats),
    _maker(DiskStats),
    _maker(ProcessStats),
)
_pressure, _pressures = _maker(Pressure), _maker(PressureStats)
_loops, _system = _maker(LoopStats), _maker(SystemStats)


def build(snapshot: _rust.Snapshot) -> SystemStats:
    """The dataclasses of a native sample, whose figures are in the same order."""
    cpu, memory, io, network, disk, process, *pressures, loop = snapshot.values()
    return _system(
        snapshot.timestamp,
        snapshot.uptime,
        _cpu(*cpu, snapshot.per_core_percent),
        _memory(*memory),
        _io(*io),
        _network(*network),
        _disk(*disk),
        _process(*process),
        _pressures(*(_pressure(*each) for each in pressures)),
        _loops(*loop, tuple(LoopLag(**one) for one in snapshot.loops())),
    )


class History(Sequence[SystemStats]):
    """Samples of a stretch of time, oldest first; each is built when looked at.

    Awaiting it gives itself: in mtaio 0.1.0 `get_history` was a coroutine.
    """

    def __init__(self, snapshots: Sequence[_rust.Snapshot]) -> None:
        self._snapshots = snapshots

    def __len__(self) -> int:
        return len(self._snapshots)

    @overload
    def __getitem__(self, index: int) -> SystemStats: ...
    @overload
    def __getitem__(self, index: slice) -> "History": ...
    def __getitem__(self, index: int | slice) -> "SystemStats | History":
        if isinstance(index, slice):
            return History(self._snapshots[index])
        return build(self._snapshots[index])

    def __await__(self) -> Generator[None, None, "History"]:
        return self
        yield  # never reached; makes this a generator

    def __repr__(self) -> str:
        return f"<History of {len(self)} samples>"


def metric_names(stats: type = SystemStats, prefix: str = "") -> Iterator[str]:
    """Dotted names of the figures a threshold can be set on."""
    hints = typing.get_type_hints(stats)
    for field in fields(stats):
        hint = hints[field.name]
        if isinstance(hint, type) and is_dataclass(hint):
            yield from metric_names(hint, f"{prefix}{field.name}.")
        elif hint is not str and not isinstance(hint, types.GenericAlias):
            yield f"{prefix}{field.name}"
