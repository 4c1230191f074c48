"""What a reload does by itself."""

import logging
from collections.abc import Iterator

from .logging import AsyncFileHandler


def reopen_logs() -> None:
    """Reopen the file of every `AsyncFileHandler` that a logger has. Never waits."""
    for handler in set(_handlers()):
        if isinstance(handler, AsyncFileHandler):
            handler.reopen()


def _handlers() -> Iterator[logging.Handler]:
    yield from logging.root.handlers
    for logger in list(logging.root.manager.loggerDict.values()):
        if isinstance(logger, logging.Logger):
            yield from logger.handlers
