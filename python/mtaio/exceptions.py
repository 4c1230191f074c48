"""Every run-time error mtaio raises.

Bad arguments raise plain `ValueError` or `TypeError` and are not in this tree::

    MTAIOError
    ├── ExecutionError             a task or worker could not be run
    ├── TimeoutError               a deadline passed (also builtins.TimeoutError)
    ├── ResourceError
    │   ├── ResourceLimitError     more asked than the limit can ever give
    │   ├── RateLimitError         not now: `retry_after` seconds from now
    │   └── ResourceTimeoutError   waited too long for a resource (a TimeoutError)
    ├── CacheError
    │   ├── CacheKeyError          the key is absent (also KeyError)
    │   └── CacheSerializationError  a snapshot can't be written or read
    ├── EventError
    │   ├── EventEmitError         an event can't be emitted
    │   └── EventHandlerError      a listener failed; `__cause__` is its error
    ├── LoggingError
    │   ├── HandlerError           a log handler can't do what was asked
    │   └── FormatterError         a record can't be formatted
    ├── MonitoringError
    │   ├── MetricError            unknown or unreadable metric
    │   ├── AlertError             a threshold callback failed
    │   └── ProbeError             probes can't be served there (also OSError)
    ├── GroupError
    │   └── TimeoutGroupError      a group ran out of time (a TimeoutError)
    ├── HealthError                a check can't be registered or run
    ├── ApplicationError
    │   ├── StartupError           a component did not start; what ran was stopped
    │   └── ShutdownError          a component did not stop inside its deadline
    └── SettingsError              `faults`: every bad setting, reported together
"""

import builtins
from collections.abc import Iterable

__all__ = (
    "AlertError",
    "ApplicationError",
    "CacheError",
    "CacheKeyError",
    "CacheSerializationError",
    "EventEmitError",
    "EventError",
    "EventHandlerError",
    "ExecutionError",
    "FormatterError",
    "GroupError",
    "HandlerError",
    "HealthError",
    "LoggingError",
    "MTAIOError",
    "MetricError",
    "MonitoringError",
    "ProbeError",
    "RateLimitError",
    "ResourceError",
    "ResourceLimitError",
    "ResourceTimeoutError",
    "SettingsError",
    "ShutdownError",
    "StartupError",
    "TimeoutError",
    "TimeoutGroupError",
)


class MTAIOError(Exception):
    """The root: catching it catches every run-time error of mtaio."""


class ExecutionError(MTAIOError):
    """A task or worker could not be run."""


class TimeoutError(MTAIOError, builtins.TimeoutError):
    """A deadline passed. Caught by `except TimeoutError` of the builtin too."""


class ResourceError(MTAIOError):
    """The root of what limits and timeouts of `mtaio.resources` raise."""


class ResourceLimitError(ResourceError):
    """More was asked than the limit can ever give, so waiting would not help."""


class RateLimitError(ResourceError):
    """The tokens can't be had in the time allowed; nothing was taken.

    Attributes:
        retry_after: Seconds until the same request would be granted.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message, retry_after)
        self.retry_after = retry_after

    def __str__(self) -> str:
        return str(self.args[0])


class ResourceTimeoutError(ResourceError, TimeoutError):
    """A resource was not had before the deadline."""


class CacheError(MTAIOError):
    """The root of what `mtaio.cache` raises."""


class CacheKeyError(CacheError, KeyError):
    """The key is absent or expired."""


class CacheSerializationError(CacheError):
    """A snapshot can't be written, or a file is not a whole snapshot."""


class EventError(MTAIOError):
    """The root of what `mtaio.events` raises."""


class EventEmitError(EventError):
    """An event can't be emitted."""


class EventHandlerError(EventError):
    """A listener failed; its own error is `__cause__`."""


class LoggingError(MTAIOError):
    """The root of what `mtaio.logging` raises."""


class HandlerError(LoggingError):
    """A log handler can't do what was asked."""


class FormatterError(LoggingError):
    """A record can't be formatted."""


class MonitoringError(MTAIOError):
    """The root of what `mtaio.monitoring` raises."""


class MetricError(MonitoringError):
    """A metric is unknown or can't be read."""


class AlertError(MonitoringError):
    """A threshold callback failed; its own error is `__cause__`."""


class ProbeError(MonitoringError, OSError):
    """Probes can't be served at the address asked; `errno` says what failed."""


class GroupError(MTAIOError):
    """The root of errors of a group of operations."""


class TimeoutGroupError(GroupError, TimeoutError):
    """A group of operations ran out of time."""


class HealthError(MTAIOError):
    """A health check can't be registered or run."""


class ApplicationError(MTAIOError):
    """The root of what `mtaio.app` raises."""


class StartupError(ApplicationError):
    """A component did not start; those started before it were stopped."""


class ShutdownError(ApplicationError):
    """A component did not stop inside its deadline."""


class SettingsError(MTAIOError):
    """Settings are wrong; every fault is named at once.

    Attributes:
        faults: One sentence per bad setting.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(self.faults)

    def __str__(self) -> str:
        return "; ".join(self.faults)
