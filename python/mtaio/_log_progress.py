"""Waiting for the writer: `Flush`, and what is still closing at exit."""

import asyncio
import atexit
import os
from collections.abc import Generator

from . import _rust

__all__ = ("Flush", "on_loop_thread", "wait_at_exit")

# Closed without waiting (on a loop's thread, or by the collector), with the
# seconds that interpreter exit may wait for each.
_closing: dict[_rust.LogProgress, float] = {}


class Flush:
    """How far the writer got with a flush or a close; may be awaited.

    Awaiting gives True once everything accepted before the call is in the
    file, and False if `timeout` seconds passed first. It may be awaited in any
    loop, repeatedly, or not at all: the work goes on by itself.
    """

    __slots__ = ("_progress", "_timeout")

    def __init__(
        self, progress: _rust.LogProgress | None, timeout: float | None = None
    ) -> None:
        self._progress = progress
        self._timeout = timeout

    @property
    def done(self) -> bool:
        """True once everything accepted before the call is in the file."""
        return self._progress is None or self._progress.done

    def wait(self, timeout: float) -> bool:
        """Block this thread until done, at most `timeout` seconds; return `done`."""
        return self._progress is None or self._progress.wait(timeout)

    def __await__(self) -> Generator[object, None, bool]:
        return self._wait().__await__()

    async def _wait(self) -> bool:
        if self._progress is None or self._progress.done:
            return True
        # Not by `asyncio.timeout`, which in a task that is being cancelled, as at a
        # stop, raises that cancellation in place of its own end before 3.11.3.
        future = self._progress.future()
        try:
            await asyncio.wait((future,), timeout=self._timeout)
        finally:
            future.cancel()
        return self._progress.done


def on_loop_thread() -> bool:
    """True on a thread that is running an event loop now."""
    return asyncio._get_running_loop() is not None


def wait_at_exit(progress: _rust.LogProgress | None, timeout: float) -> None:
    """Let interpreter exit wait for `progress`, at most `timeout` seconds."""
    for earlier in [p for p in _closing if p.done]:
        _closing.pop(earlier, None)
    if progress is not None and not progress.done:
        _closing[progress] = timeout


def _at_exit() -> None:
    while _closing:
        progress, timeout = _closing.popitem()
        progress.wait(timeout)


# Exit handlers run last in, first out: the worker stops after all waited.
atexit.register(_rust.stop_worker)
atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    # What the parent closes is the parent's to wait for.
    os.register_at_fork(after_in_child=_closing.clear)
