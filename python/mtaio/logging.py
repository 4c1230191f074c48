"""Logging that never waits for the disk and loses nothing.

`AsyncFileHandler` is a `logging.Handler`: give it to a logger, to
`logging.config.dictConfig`, or to a `QueueListener`. `AsyncLogger` is a way to it
that costs a tenth; `logging.setLogRecordFactory(make_record)` makes the
standard loggers cheaper.

What holds everywhere: a call never waits for the disk; each accepted record is in
the files once, whole and in order per thread; an outage is survived and told.
On Linux the ring lies in `/dev/shm` (files of mode 0600), so this holds over the
death of the process too: by SIGKILL, SIGSEGV or `os._exit`. Power loss needs
`fsync=True`. Elsewhere, and in containers without room there, the ring is on the
heap (`stats().durable` is False), and a killed process loses what it held. Several
processes may share a log on Unix; on Windows a log is one process's, and a moved
file is followed by `reopen()` alone.
"""

from ._log_handler import (
    AsyncFileHandler,
    AsyncJsonFileHandler,
    AsyncLogHandler,
    AsyncRotatingFileHandler,
)
from ._log_json import JsonFormatter
from ._log_logger import AsyncLogger
from ._log_options import LogStats
from ._log_progress import Flush
from ._rust import make_record

__all__ = (
    "AsyncFileHandler",
    "AsyncJsonFileHandler",
    "AsyncLogHandler",
    "AsyncLogger",
    "AsyncRotatingFileHandler",
    "Flush",
    "JsonFormatter",
    "LogStats",
    "make_record",
)
