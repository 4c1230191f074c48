"""What a reload, and the end of a stop, do to the logs."""

import asyncio
import logging
from collections.abc import Iterator

from .logging import AsyncLogHandler


def reopen_logs() -> None:
    """Reopen the file of every handler of ours. Never waits."""
    for handler in _handlers():
        handler.reopen()


async def flush_logs(timeout: float) -> None:
    """Wait until all handlers of ours have written, `timeout` seconds at most.

    What runs the application may end the process by a signal, at which nobody waits
    for the log: uvicorn sends itself the one that it caught.
    """
    # Not as a subclass does it: that may wait right here, or fail.
    flushes = [AsyncLogHandler.flush(handler, timeout) for handler in _handlers()]
    await asyncio.gather(*flushes)


def _handlers() -> Iterator[AsyncLogHandler]:
    """All that `logging.shutdown` would close, also those behind a queue."""
    for reference in list(logging._handlerList):  # type: ignore[attr-defined]
        handler = reference()
        if isinstance(handler, AsyncLogHandler):
            yield handler
