"""`AsyncFileHandler` and its siblings: logging handlers over the native log."""

import datetime
import logging
import os
from typing import Any, Literal, Self

from . import _log_options, _rust
from ._log_json import JsonFormatter
from ._log_options import LogStats, OnError
from ._log_progress import Flush, on_loop_thread, wait_at_exit

__all__ = (
    "AsyncFileHandler",
    "AsyncJsonFileHandler",
    "AsyncLogHandler",
    "AsyncRotatingFileHandler",
)

# What decides a line and its fate; overriding one makes `handle` call them all.
_DECIDE = ("handle", "filter", "emit", "format", "terminator", "_accept", "_encode")
_NATIVE_CODEC = ("utf-8", "backslashreplace")


class AsyncLogHandler(_rust.LogHandler, logging.Handler):
    """What the handlers of this module share; make one of its subclasses.

    A record is formatted where it is logged, copied into a ring in shared
    memory, and written by a native thread. `handle` and `emit` never wait for
    the disk and may be called from any thread, with or without a loop. Other than
    in the standard library they hold no lock, behind which a loop might wait: what a
    subclass or a formatter of yours does runs in several threads at once.
    """

    terminator = "\n"

    def __init__(
        self,
        level: int | str = logging.NOTSET,
        formatter: logging.Formatter | None = None,
    ) -> None:
        logging.Handler.__init__(self, level)
        if formatter is not None:
            self.setFormatter(formatter)
        self._codec = _NATIVE_CODEC
        self._close_timeout = 5.0

    def __setattr__(self, name: str, value: object) -> None:
        super().__setattr__(name, value)
        if name in _DECIDE:
            self._set_native(False)

    def _choose_path(self) -> None:
        """Let `handle` go the native way if nothing here is overridden."""
        own = type(self)
        plain = all(
            getattr(own, name, None) is getattr(AsyncLogHandler, name)
            for name in _DECIDE
        )
        self._set_native(plain and self._codec == _NATIVE_CODEC)

    def emit(self, record: logging.LogRecord) -> None:
        """Format `record` and put it into the ring.

        A record that can't be formatted is written all the same, with the
        fault noted in its line, and `handleError` is called. One that finds
        the ring full waits or is dropped, as `overflow` says; the log itself
        tells how many were.
        """
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - user code raises what it likes
            self._rescue(record, error)
        else:
            self._accept(record, line)

    def _rescue(self, record: logging.LogRecord, error: Exception) -> None:
        """Write what can be said of a record whose formatting raised `error`."""
        try:
            raise error
        except Exception:  # noqa: BLE001 - raised so that `handleError` sees it
            self.handleError(record)
        self._accept(record, self._salvage(record, error))

    def _accept(self, record: logging.LogRecord, line: str) -> None:
        try:
            if self._put(self._encode(line)):
                dropped = self._take_unreported()
                if dropped:
                    self._tell_dropped(dropped)
        except Exception:  # noqa: BLE001 - as logging.Handler: logging must not raise
            self.handleError(record)

    def _encode(self, line: str) -> bytes:
        return (line + self.terminator).encode(*self._codec)

    def _salvage(self, record: logging.LogRecord, error: Exception) -> str:
        """A line for a record whose own formatting failed."""
        words = f"{_safe(record.msg)} (args: {_safe(record.args)}) "
        words += f"[not formatted: {type(error).__name__}: {_safe_str(error)}]"
        plain = logging.LogRecord(
            record.name,
            record.levelno,
            record.pathname,
            record.lineno,
            words,
            None,
            None,
        )
        plain.created, plain.msecs = record.created, record.msecs
        try:
            return self.format(plain)
        except Exception:  # noqa: BLE001 - the formatter itself is at fault
            return words

    def _tell_dropped(self, count: int) -> None:
        words = "%d records dropped: the ring was full"
        record = logging.LogRecord(
            "mtaio.logging", logging.WARNING, __file__, 0, words, (count,), None
        )
        try:
            line = self.format(record)
        except Exception:  # noqa: BLE001 - it may ask for what only other records have
            line = record.getMessage()
        if not self._put(self._encode(line)):
            self._return_unreported(count)

    # The standard library ignores what `flush` returns.
    def flush(self, timeout: float | None = None) -> Flush:  # type: ignore[override]
        """Write everything accepted so far; `await` it, or just call it.

        On a thread that runs an event loop it starts the work and returns at
        once: await the result there. On any other thread (`logging.shutdown`,
        `atexit`, a plain script) the call itself waits, at most `timeout`
        seconds, by default the handler's `close_timeout`.

        Args:
            timeout: Seconds of 0 or more. Without it an await has no deadline.

        Returns:
            An awaitable that gives True when all is in the file, or False if
            the deadline passed first; the records stay in the ring then.
        """
        if timeout is not None:
            timeout = _rust.non_negative("timeout", timeout)
        flush = Flush(self._flush(), timeout)
        if not on_loop_thread():
            flush.wait(self._close_timeout if timeout is None else timeout)
        return flush

    async def aclose(self, timeout: float | None = None) -> bool:
        """Close, waiting for the writer without blocking the loop.

        Args:
            timeout: Seconds of 0 or more, by default `close_timeout`.

        Returns:
            True when all is in the file. False if the deadline passed first:
            the writer goes on trying, and what it has not written when the
            process ends is written by the next one that opens the log.
        """
        limit = self._limit(timeout)
        progress = self._begin_close()
        return await Flush(progress, limit)

    def close(self) -> None:
        """Close, waiting at most `close_timeout` seconds for the writer.

        On a thread that runs an event loop it doesn't wait; interpreter exit
        does, for as long. A record logged after this opens the log again, as
        with the standard library's handlers.
        """
        progress = self._begin_close()
        if progress is not None and not on_loop_thread():
            progress.wait(self._close_timeout)

    def _begin_close(self) -> _rust.LogProgress | None:
        progress = self._close()
        wait_at_exit(progress, self._close_timeout)
        logging.Handler.close(self)
        return progress

    def _limit(self, timeout: float | None) -> float:
        if timeout is None:
            return self._close_timeout
        return _rust.non_negative("timeout", timeout)

    def start(self) -> None:
        """Do nothing: a handler works from its making on (0.1.0 had to start)."""

    async def stop(self) -> None:
        """The same as `await aclose()`; the name of 0.1.0."""
        await self.aclose()

    def stats(self) -> LogStats:
        """Counters of this process, since the handler was made. Never waits."""
        return LogStats(**self._stats())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # Dropped without close: the writer ends by itself, exit waits for it.
        wait_at_exit(self._close(), getattr(self, "_close_timeout", 0.0))


class AsyncFileHandler(AsyncLogHandler):
    r"""A `logging.Handler` that writes a file, rotating it, and never waits for it.

    What was accepted is in the files exactly once, whole, and in order per
    thread, also over a crash of the process: the ring lies in shared memory
    and the next process that opens the log writes what is left. Several
    processes, forked or not, may log to one file with rotation.

    That is Linux. On macOS the ring dies with the process. On Windows it does
    too, a log belongs to one process, and a moved file is noticed by `reopen`
    alone. `stats().durable` tells.

    Args:
        filename: Path of the log; its folder must exist.
        mode: `"a"` appends, `"w"` empties the file first, `"x"` wants it new.
        max_bytes: Rotate before the file grows beyond this; 0 never does.
            As in the standard library it takes a `backup_count` too (or
            another limit on backups).
        backup_count: Backups to keep; 0 keeps all that other limits allow.
        encoding: A codec in which a line end is the one byte 0x0A.
        errors: How text that `encoding` lacks is written.
        delay: Open with the first record instead of now.
        level: As `logging.Handler`.
        formatter: As `setFormatter`.
        when: Rotate by time as `TimedRotatingFileHandler`: `"S"`, `"M"`,
            `"H"`, `"D"`, `"midnight"`, `"W0"` (Monday) to `"W6"`. Backups are
            then named by the time their period began. Local midnights follow
            the system's calendar (of UTC on Windows).
        interval: How many of `when`.
        at_time: Time of day for `"midnight"` and `"W…"`.
        utc: Use the calendar of UTC.
        compress: `"gzip"` or `"zstd"` backups, made beside the writer.
        max_age: Remove backups last written longer ago than so many seconds.
        max_total_bytes: Remove the oldest backups (by the day or number in
            their names) beyond so many bytes in all.
            Like `max_age` and `backup_count` heeded at each rotation.
        ring_bytes: Size of the ring, from 65536. It bounds the memory that
            records take while the disk stalls. Records longer than a quarter
            of it lie beside it, in as much again, or one alone in more.
        durable: Keep the ring where it outlives the process (Linux). Without
            it, or where that can't be had, `stats().durable` is False.
        overflow: For a record that finds the ring full: `"block"` waits
            `block_timeout` seconds for room, then drops; `"drop"` drops at
            once. Drops are counted, and told in the log.
        block_timeout: Seconds of 0 or more.
        block_on_loop: Let `"block"` wait on the thread of an event loop too.
        escape: Write control characters (a line end within a message or a
            traceback, a terminal's escapes) as `\n`, `\x1b`: a line is a line.
        gather: Seconds the writer gathers records for one write.
        fsync: Wait for the disk after each write: against power loss, at the
            cost of one `fdatasync` per batch, on the writer's thread.
        close_timeout: Seconds `close`, and a `flush` outside a loop, wait.
        on_error: Called on a thread of its own with a `HandlerError` when an
            outage or a series of failed rotations begins, and when a dead
            process's ring was damaged or is another version's. What it raises
            goes to `sys.unraisablehook`.

    Raises:
        OSError: The file can't be opened.
        ValueError: A value is out of range; TypeError: of the wrong type.
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        mode: Literal["a", "w", "x"] = "a",
        max_bytes: int = 0,
        backup_count: int = 0,
        encoding: str = "utf-8",
        *,
        errors: str = "backslashreplace",
        delay: bool = False,
        level: int | str = logging.NOTSET,
        formatter: logging.Formatter | None = None,
        when: str | None = None,
        interval: int = 1,
        at_time: datetime.time | None = None,
        utc: bool = False,
        compress: Literal["gzip", "zstd"] | None = None,
        max_age: float | None = None,
        max_total_bytes: int | None = None,
        ring_bytes: int = 4 << 20,
        durable: bool = True,
        overflow: Literal["block", "drop"] = "block",
        block_timeout: float = 1.0,
        block_on_loop: bool = False,
        escape: bool = False,
        gather: float = 0.002,
        fsync: bool = False,
        close_timeout: float = 5.0,
        on_error: OnError | None = None,
    ) -> None:
        options = _log_options.check(
            filename=filename,
            mode=mode,
            delay=delay,
            max_bytes=max_bytes,
            backup_count=backup_count,
            when=when,
            interval=interval,
            at_time=at_time,
            utc=utc,
            max_age=max_age,
            max_total_bytes=max_total_bytes,
            compress=compress,
            ring_bytes=ring_bytes,
            durable=durable,
            fsync=fsync,
            gather=gather,
            overflow=overflow,
            block_timeout=block_timeout,
            block_on_loop=block_on_loop,
            escape=escape,
        )
        codec = _log_options.codec(encoding, errors)
        limit = _rust.non_negative("close_timeout", close_timeout)
        on_error = _log_options.callback(on_error)
        AsyncLogHandler.__init__(self, level, formatter)
        self._codec, self._close_timeout = codec, limit
        self.baseFilename = str(options["path"])
        self._open(options, on_error)
        self._choose_path()

    def __repr__(self) -> str:
        level = logging.getLevelName(self.level)
        return f"<{type(self).__name__} {self.baseFilename} ({level})>"


class AsyncRotatingFileHandler(AsyncFileHandler):
    """`AsyncFileHandler` under 0.1.0's name for the one that rotates."""


class AsyncJsonFileHandler(AsyncFileHandler):
    """`AsyncFileHandler` whose formatter, unless given, is a `JsonFormatter`."""

    def __init__(self, filename: str | os.PathLike[str], **options: Any) -> None:
        super().__init__(filename, **{"formatter": JsonFormatter(), **options})


def _safe(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a repr may raise what it likes
        return f"<{type(value).__name__}, not printable>"


def _safe_str(error: Exception) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - as above
        return "not printable"
