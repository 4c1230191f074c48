"""Logging that never waits for the disk and loses nothing.

`AsyncFileHandler` is a `logging.Handler`: give it to a logger, to
`logging.config.dictConfig`, or to a `QueueListener`.
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
from ._rust import RecordFactory

__all__ = (
    "AsyncFileHandler",
    "AsyncJsonFileHandler",
    "AsyncLogHandler",
    "AsyncLogger",
    "AsyncRotatingFileHandler",
    "Flush",
    "JsonFormatter",
    "LogStats",
    "RecordFactory",
)
