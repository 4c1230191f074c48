"""The arguments of the file handlers, checked in one place."""

import codecs
import datetime
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import _rust
from .exceptions import HandlerError

__all__ = ("LogStats", "OnError", "callback", "check", "codec")

OnError = Callable[[HandlerError], object]

_LEAST_RING = 1 << 16
_LARGEST_RING = 1 << 31


@dataclass(frozen=True, slots=True)
class LogStats:
    """What a handler did in this process, since it was made.

    Attributes:
        accepted: Records put into the ring.
        written: Records appended to the file.
        written_bytes: Bytes appended to the file.
        dropped: Records refused because the ring was full.
        recovered: Records of dead processes that were appended.
        corrupt_bytes: Bytes of damaged rings that could not be.
        failed_writes: Attempts to write that failed and were repeated.
        rotations: Rotations done.
        failed_rotations: Rotations, or removals of backups, that failed.
        ring_used: Bytes that wait in the ring.
        ring_bytes: Bytes the ring holds.
        durable: Whether accepted records outlive the process.
        last_error: The last failure in words, or None.
    """

    accepted: int = 0
    written: int = 0
    written_bytes: int = 0
    dropped: int = 0
    recovered: int = 0
    corrupt_bytes: int = 0
    failed_writes: int = 0
    rotations: int = 0
    failed_rotations: int = 0
    ring_used: int = 0
    ring_bytes: int = 0
    durable: bool = False
    last_error: str | None = None


def check(
    *,
    filename: str | os.PathLike[str],
    mode: str,
    delay: bool,
    max_bytes: int,
    backup_count: int,
    when: str | None,
    interval: int,
    at_time: datetime.time | None,
    utc: bool,
    max_age: float | None,
    max_total_bytes: int | None,
    compress: str | None,
    ring_bytes: int,
    durable: bool,
    fsync: bool,
    gather: float,
    overflow: str,
    block_timeout: float,
    block_on_loop: bool,
    escape: bool,
) -> dict[str, object]:
    """The options of `_rust.LogHandler._open`, or the error that names the fault."""
    blocks = _one_of("overflow", overflow, ("block", "drop")) == "block"
    wait = _rust.non_negative("block_timeout", block_timeout)
    return {
        "path": _path(filename),
        "mode": _one_of("mode", mode, ("a", "w", "x")),
        "delay": _flag("delay", delay),
        "max_bytes": _rust.whole("max_bytes", max_bytes, 0),
        "backup_count": _rust.whole("backup_count", backup_count, 0),
        "when": None if when is None else _rust.text("when", when),
        "interval": _below("interval", _rust.whole("interval", interval, 1), 1 << 20),
        "at_seconds": _seconds(at_time),
        "utc": _flag("utc", utc),
        "max_age": None if max_age is None else _rust.positive("max_age", max_age),
        "max_total_bytes": (
            None
            if max_total_bytes is None
            else _rust.whole("max_total_bytes", max_total_bytes, 1)
        ),
        "compress": None if compress is None else _rust.text("compress", compress),
        "ring_bytes": _below(
            "ring_bytes",
            _rust.whole("ring_bytes", ring_bytes, _LEAST_RING),
            _LARGEST_RING,
        ),
        "durable": _flag("durable", durable),
        "fsync": _flag("fsync", fsync),
        "gather": _rust.non_negative("gather", gather),
        "wait": wait if blocks else 0.0,
        "block_on_loop": _flag("block_on_loop", block_on_loop),
        "escape": _flag("escape", escape),
    }


def codec(encoding: str, errors: str) -> tuple[str, str]:
    """The names, if they are of a codec in which a line end is one byte."""
    accepted = "a known encoding whose line end is the byte 0x0A"
    try:
        name = codecs.lookup(_rust.text("encoding", encoding)).name
        plain = "\n".encode(name) == b"\n"
    except (LookupError, UnicodeError):
        plain = False
    if not plain:
        raise ValueError(f"encoding must be {accepted}, got {encoding!r}")
    try:
        codecs.lookup_error(_rust.text("errors", errors))
    except LookupError:
        raise ValueError(
            f"errors must be a known error handler, got {errors!r}"
        ) from None
    return name, errors


def callback(on_error: OnError | None) -> OnError | None:
    """`on_error`, if it can be called."""
    if on_error is not None and not callable(on_error):
        raise TypeError(f"on_error must be callable or None, got {on_error!r}")
    return on_error


def _path(filename: str | os.PathLike[str]) -> str:
    path = os.fspath(filename)
    if not isinstance(path, str):
        raise TypeError(f"filename must be text or a path, got {filename!r}")
    if not path or "\0" in path:
        raise ValueError(
            f"filename must be non-empty and without NUL, got {filename!r}"
        )
    full = Path(os.path.abspath(path))
    # One log, one name: the rings of dead processes are found by it.
    return str(Path(os.path.realpath(full.parent)) / full.name)


def _one_of(name: str, value: str, accepted: tuple[str, ...]) -> str:
    if _rust.text(name, value) not in accepted:
        choice = " or ".join(repr(one) for one in accepted)
        raise ValueError(f"{name} must be {choice}, got {value!r}")
    return value


def _flag(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def _below(name: str, value: int, limit: int) -> int:
    if value > limit:
        raise ValueError(f"{name} must be at most {limit}, got {value}")
    return value


def _seconds(at_time: datetime.time | None) -> int:
    if at_time is None:
        return 0
    if not isinstance(at_time, datetime.time):
        raise TypeError(f"at_time must be a datetime.time or None, got {at_time!r}")
    return at_time.hour * 3600 + at_time.minute * 60 + at_time.second
