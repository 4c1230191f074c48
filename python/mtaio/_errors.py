"""Where errors that nobody else handles are told."""

import asyncio
import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from . import _rust
from .exceptions import MTAIOError

_default = logging.getLogger("mtaio.errors")

# Kinds of error remembered at once; the oldest is forgotten first, so that
# errors with ever-new origins can't grow the process.
_MOST_KINDS = 1000

Origin = tuple[type[BaseException], str, int]


class HandlesErrors(Protocol):
    """What an application needs of an error handler: the guide's one method."""

    async def handle_error(
        self, error: Exception, context: dict[str, Any] | None = None
    ) -> None:
        """Do with `error` what is to be done."""


class ErrorHandler:
    """Logs `MTAIOError`s and unexpected errors apart, and repeats only by count.

    An `MTAIOError` is logged at ERROR without a traceback; anything else at
    CRITICAL with one. An `ExceptionGroup` counts as ours when all it holds is.
    Errors of one type raised at one place are logged at most once in
    `repeat_interval` seconds; those between are counted, and the count is
    logged with the next one, or by `flush()`.

    Every record carries `error_type`, `error_message`, `context` and
    `repeated` as attributes (`message` is taken by `logging` itself).

    Args:
        logger: Logs the errors; by default the logger `mtaio.errors`.
        repeat_interval: Seconds, 0 or more; 0 logs every error.
        clock: Monotonic seconds; by default `time.monotonic`.

    All methods may be called from any thread, and none waits.
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        repeat_interval: float = 10.0,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.logger = _default if logger is None else logger
        self._interval = _rust.non_negative("repeat_interval", repeat_interval)
        self._clock = time.monotonic if clock is None else clock
        # Entered again where the collector runs amid it: a task's finalizer tells the
        # loop, and that us, of an error that nobody retrieved.
        self._lock = threading.RLock()
        self._counts: dict[str, int] = {}
        self._told: dict[Origin, _Told] = {}

    async def handle_error(
        self, error: BaseException, context: dict[str, Any] | None = None
    ) -> None:
        """Log `error`, with `context` on its record. Never waits.

        Raises:
            TypeError: `error` is no exception, or `context` no `dict`.
        """
        self.report(error, context)

    def report(
        self, error: BaseException, context: dict[str, Any] | None = None
    ) -> None:
        """Do what `handle_error` does, where there is no await."""
        _check(error, context)
        repeated = self._count(error)
        if repeated is None:
            return
        facts = {
            "error_type": type(error).__name__,
            "error_message": message(error),
            "context": context,
            "repeated": repeated,
        }
        again = f" ({repeated} more like it since the last)" if repeated else ""
        said = (facts["error_type"], facts["error_message"], again)
        if _is_ours(error):
            self.logger.error("%s: %s%s", *said, extra=facts)
        else:
            text = "unexpected %s: %s%s"
            self.logger.critical(text, *said, exc_info=error, extra=facts)

    def counts(self) -> dict[str, int]:
        """How many errors of each type were reported, logged or not."""
        with self._lock:
            return dict(self._counts)

    def flush(self) -> None:
        """Log how often errors were repeated without being logged since."""
        with self._lock:
            owed, self._told = self._told, {}
        for (kind, path, line), told in owed.items():
            if told.repeated:
                where = f"{path}:{line}" if line else path
                text = "%s at %s: %d more like it since the last"
                self.logger.error(text, kind.__name__, where, told.repeated)

    def install(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Report what `loop` (the running one) would else only print.

        Those are exceptions of callbacks, and of tasks that nobody awaited.

        Raises:
            RuntimeError: No loop was given and none is running.
        """
        loop = asyncio.get_running_loop() if loop is None else loop
        loop.set_exception_handler(self._handle_loop)

    def _handle_loop(
        self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]
    ) -> None:
        error = context.get("exception")
        if error is None:
            loop.default_exception_handler(context)
        else:
            self.report(error, {"loop": context.get("message", "")})

    def _count(self, error: BaseException) -> int | None:
        """Repeats to tell with this error; None when it is not to be logged."""
        now, origin = self._clock(), _origin(error)
        with self._lock:
            name = type(error).__name__
            self._counts[name] = self._counts.get(name, 0) + 1
            told = self._told.get(origin)
            if told is not None and now - told.at < self._interval:
                told.repeated += 1
                return None
            self._told.pop(origin, None)  # to the end: the dict is in order of telling
            self._told[origin] = _Told(now)
            if len(self._told) > _MOST_KINDS:
                del self._told[next(iter(self._told))]
            return 0 if told is None else told.repeated


class Reports:
    """Tells an error handler of any kind, also where there is no await."""

    def __init__(self, handler: HandlesErrors) -> None:
        if not inspect.iscoroutinefunction(getattr(handler, "handle_error", None)):
            raise TypeError(
                f"error_handler must have async handle_error(), got {handler!r}"
            )
        self._handler = handler
        self._under_way: set[asyncio.Task[None]] = set()

    def tell(self, error: Exception, context: dict[str, Any] | None = None) -> None:
        """Hand the error over, from the loop's thread. Never waits."""
        if isinstance(self._handler, ErrorHandler):
            self._handler.report(error, context)
            return
        task = asyncio.ensure_future(self.hand_over(error, context))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def finish(self, timeout: float) -> None:
        """Give the handler `timeout` seconds to end what it does."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=timeout)
        if isinstance(self._handler, ErrorHandler):
            self._handler.flush()

    async def hand_over(
        self, error: Exception, context: dict[str, Any] | None = None
    ) -> None:
        """Await the handler; one that fails is logged, with the error."""
        try:
            await self._handler.handle_error(error, context)
        except Exception as fault:  # noqa: BLE001 - told, with what it kept from us
            fault.add_note(f"while handling {error!r}")
            _default.critical("the error handler failed", exc_info=fault)


class _Told:
    """When an error of one origin was last logged, and how many came since."""

    __slots__ = ("at", "repeated")

    def __init__(self, at: float) -> None:
        self.at = at
        self.repeated = 0


def _check(error: object, context: object) -> None:
    if not isinstance(error, BaseException):
        raise TypeError(f"error must be an exception, got {error!r}")
    if context is not None and not isinstance(context, dict):
        raise TypeError(f"context must be a dict or None, got {context!r}")


def _is_ours(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return error.split(MTAIOError)[1] is None
    return isinstance(error, MTAIOError)


def message(error: BaseException) -> str:
    """The text of `error`, whatever its `__str__` does, as UTF-8 can hold it."""
    try:
        return str(error).encode(errors="backslashreplace").decode()
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the error
        return "<its __str__ failed>"


def _origin(error: BaseException) -> Origin:
    """Where it was raised; by its text when it never was."""
    trace = error.__traceback__
    if trace is None:
        return (type(error), message(error), 0)
    while trace.tb_next is not None:
        trace = trace.tb_next
    return (type(error), trace.tb_frame.f_code.co_filename, trace.tb_lineno)
