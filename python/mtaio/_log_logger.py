"""`AsyncLogger`: the direct path to a handler, with 0.1.0's methods."""

import logging
import sys
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

from . import _rust

__all__ = ("AsyncLogger",)

ExcTuple = (
    tuple[type[BaseException], BaseException, TracebackType | None]
    | tuple[None, None, None]
)
ExcInfo = bool | BaseException | ExcTuple | None


class AsyncLogger(_rust.DirectLogger):
    """A logger whose calls cost little, and may be awaited as in 0.1.0.

    `debug`, `info`, `warning`, `error` and `critical` take a message, its `%`
    arguments, and `exc_info`, `stack_info` and `extra` as in `logging`. They
    never wait: the awaitable they return is done, and needn't be awaited. Any
    thread and any loop may call them.

    With a single `AsyncFileHandler` whose formatter asks for time, name, level
    and message alone, no `LogRecord` is made. It isn't part of `logging`'s
    tree: nothing propagates.

    Args:
        name: Non-empty text.
        level: Least level, a number or a name known to `logging`.
        handlers: Where messages go; any `logging.Handler`.
        context: Added to each message's `extra`; see `bind`.

    Raises:
        ValueError: `name` is empty, or `level` unknown.
        TypeError: An argument is of the wrong type.
    """

    def __init__(
        self,
        name: str,
        level: int | str = logging.NOTSET,
        handlers: Iterable[logging.Handler] | None = None,
        *,
        context: Mapping[str, object] | None = None,
    ) -> None:
        if isinstance(level, bool):
            raise TypeError(f"level must be a level's number or name, got {level!r}")
        self._records = logging.Logger(name, level)
        self._context = dict(context or {})
        for handler in handlers or ():
            self._records.addHandler(_checked(handler))
        self._reroute()

    def _reroute(self) -> None:
        handlers = self._records.handlers
        direct = len(handlers) == 1 and isinstance(handlers[0], _rust.LogHandler)
        # With a context there is `extra`, for which it takes a record.
        self._route(
            self._records.level,
            list(handlers) if direct and not self._context else None,  # type: ignore[arg-type]
        )

    @property
    def name(self) -> str:
        """The name that formatters see."""
        return self._records.name

    @property
    def level(self) -> int:
        """The least level that is logged."""
        return self._records.level

    def set_level(self, level: int | str) -> None:
        """Log from `level` on, a number or a name. Never waits."""
        self._records.setLevel(level)
        self._reroute()

    @property
    def handlers(self) -> tuple[logging.Handler, ...]:
        """Where messages go."""
        return tuple(self._records.handlers)

    async def add_handler(self, handler: logging.Handler) -> None:
        """Send messages to `handler` too. Doesn't wait."""
        self._records.addHandler(_checked(handler))
        self._reroute()

    async def remove_handler(self, handler: logging.Handler) -> None:
        """Send no more to `handler`, and wait until it is closed."""
        if handler in self._records.handlers:
            self._records.removeHandler(handler)
            self._reroute()
            await _close(handler)

    def bind(self, **context: object) -> Self:
        """A logger of the same handlers that adds `context` to each `extra`."""
        return type(self)(
            self.name, self.level, self.handlers, context=self._context | context
        )

    def log(
        self,
        level: int,
        message: object,
        *args: object,
        exc_info: ExcInfo = None,
        stack_info: bool | str | None = None,
        extra: Mapping[str, object] | None = None,
    ) -> _rust.Ready:
        """Log at any level. Never waits; the awaitable it returns is done."""
        if _rust.whole("level", level, 0) >= self.level:
            self._send(
                level,
                message,
                args,
                exc_info=exc_info,
                stack_info=stack_info,
                extra=extra,
                stacklevel=3,
            )
        return _rust.READY

    def exception(
        self,
        message: object,
        *args: object,
        extra: Mapping[str, object] | None = None,
    ) -> _rust.Ready:
        """Log at ERROR with the exception being handled. Never waits."""
        if self.level <= logging.ERROR:
            self._send(
                logging.ERROR, message, args, exc_info=True, extra=extra, stacklevel=3
            )
        return _rust.READY

    async def batch(self, level: int, messages: Iterable[object]) -> None:
        """Log each of `messages` at `level`. Doesn't wait."""
        for message in messages:
            self.log(level, message)

    @asynccontextmanager
    async def transaction(
        self, *, exc_level: int = logging.ERROR
    ) -> AsyncIterator[Self]:
        """Bind a fresh `transaction_id`, and log how the block ended.

        Yields the bound logger. A block that ends well is logged at INFO, one
        that raises at `exc_level` with its exception, which goes on.
        """
        mark = uuid.uuid4().hex[:12]
        bound = self.bind(transaction_id=mark)
        try:
            yield bound
        except BaseException as error:
            bound.log(exc_level, "transaction %s failed", mark, exc_info=error)
            raise
        bound.info("transaction %s completed", mark)

    async def close(self) -> None:
        """Close every handler, waiting for what they still write."""
        for handler in self.handlers:
            await self.remove_handler(handler)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _by_record(
        self,
        level: int,
        message: object,
        args: tuple[object, ...],
        options: dict[str, object] | None,
    ) -> None:
        options = options or {}
        unknown = options.keys() - {"exc_info", "stack_info", "extra"}
        if unknown:
            raise TypeError(f"unknown keyword arguments: {', '.join(sorted(unknown))}")
        self._send(level, message, args, stacklevel=3, **options)  # type: ignore[arg-type]

    def _send(
        self,
        level: int,
        message: object,
        args: tuple[object, ...],
        *,
        exc_info: ExcInfo = None,
        stack_info: bool | str | None = None,
        extra: Mapping[str, object] | None = None,
        stacklevel: int,
    ) -> None:
        file, line, function, stack = self._records.findCaller(
            stack_info is True, stacklevel
        )
        record = self._records.makeRecord(
            self.name,
            level,
            file,
            line,
            message,
            args,
            _exc_info(exc_info),
            function,
            self._context | dict(extra or {}),
            stack_info if isinstance(stack_info, str) else stack,
        )
        for handler in self._records.handlers:
            if level >= handler.level:
                handler.handle(record)


def _checked(handler: logging.Handler) -> logging.Handler:
    if not isinstance(handler, logging.Handler):
        raise TypeError(f"handler must be a logging.Handler, got {handler!r}")
    return handler


async def _close(handler: logging.Handler) -> None:
    aclose = getattr(handler, "aclose", None)
    if aclose is None:
        handler.close()
    else:
        await aclose()


def _exc_info(given: ExcInfo) -> ExcTuple | None:
    if isinstance(given, BaseException):
        return (type(given), given, given.__traceback__)
    if isinstance(given, tuple):
        return given
    return sys.exc_info() if given else None
