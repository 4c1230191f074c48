"""The end of a process that something keeps beyond its grace period."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from queue import SimpleQueue
from types import FrameType

from . import _rust

_log = logging.getLogger("mtaio.app")

# After the grace period: for what ends by itself once the stop is over, then for
# telling what does not.
_SPARE_SECONDS = 1.0
_TELL_SECONDS = 0.75
# The 2 seconds that the guides promise; a moment more than what comes before.
LATEST_SECONDS = 2.0
# Lines for tasks, and for threads; a service has thousands.
_MOST_TOLD = 20
# The system's calls take no time of any length.
_LONGEST_SLEEP = 3600.0


class Grace:
    """The grace period of a stop: it counts once, from the first ask or drain.

    Args:
        seconds: How long it is.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began: float | None = None
        self._began_on_loop: float | None = None
        self._end: ProcessEnd | None = None

    def ends_process(self, end: "ProcessEnd") -> None:
        """From the ask for a stop on, let `end` know when the grace period is over."""
        self._end = end

    def begin(self) -> None:
        """A stop is asked for. From any thread, and from a signal handler."""
        if self._began is None:
            self._began = time.monotonic()
        if self._end is not None:
            self._end.due(self._began + self.seconds)

    def began(self) -> float:
        """Since when it counts, by the running loop's clock: now, unless it does.

        It counts from the ask, however late a blocked loop comes to hear of it.
        """
        if self._began_on_loop is None:
            now = time.monotonic()
            if self._began is None:
                self._began = now
            late = now - self._began
            self._began_on_loop = asyncio.get_running_loop().time() - late
        return self._began_on_loop

    def deadline(self) -> float:
        """When it is over, by the running loop's clock."""
        return self.began() + self.seconds


class ProcessEnd:
    """Ends the process by `os._exit` if it is still there after a due time.

    `asyncio.run` waits for tasks that ignore their cancellation and for the
    threads of the loop's executor, the interpreter for every thread that is no
    daemon: all of it without end. A process that ends by itself never notices.
    What is stuck once the interpreter takes itself down, or in C code that never
    gives the GIL back, is ended too, but without a word. Only C code that did so
    when the signal came keeps the process: no handler is called then.

    Its threads start at once, because neither a signal handler nor an
    interpreter that is shutting down (Python 3.12) can start one.

    Args:
        loop: Whose tasks are told.
        code: Gives the exit code.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, code: Callable[[], int]
    ) -> None:
        self._loop = loop
        self._code = code
        # Its `put` may be called in a signal handler, amid another `put`.
        self._due: SimpleQueue[float] = SimpleQueue()
        self._is_due = False
        # Each by a thread of its own: a pipe or a log may be what is stuck.
        tellings = [_Telling(self._text, tell) for tell in (_print, _log_and_flush)]
        wait = threading.Thread(target=self._wait, args=tellings, daemon=True)
        wait.name = "mtaio-process-end"
        wait.start()

    def due(self, at: float) -> None:
        """Set the due time, of `time.monotonic()`; the first call counts.

        From any thread, and from a signal handler.
        """
        if self._is_due:
            return
        self._is_due = True
        self._due.put(at)
        # At once: it may take less than a turn of the GIL until the interpreter takes
        # itself down and no other thread runs Python. Time to tell is left also where
        # the ask was heard too late.
        left = max(at - time.monotonic(), -_SPARE_SECONDS)
        with suppress(OSError):  # no thread is to be had: the other end is left
            _rust.exit_after(left + LATEST_SECONDS, self._code())

    def _wait(self, *tellings: "_Telling") -> None:
        _sleep_until(self._due.get() + _SPARE_SECONDS)
        until = time.monotonic() + _TELL_SECONDS
        for telling in tellings:
            telling.begin()
        for telling in tellings:
            telling.wait(until)
        os._exit(self._code())

    def _text(self) -> str:
        try:
            kept = list(keepers(self._loop))
        except Exception as error:  # noqa: BLE001 - code of others: names, `repr`s
            kept = [f"what could not be named: {error!r}"]
        return "\n  ".join((f"ended with exit code {self._code()}; kept by", *kept))


class _Telling:
    """A thread that tells `text()` by `tell` once it is asked to."""

    def __init__(self, text: Callable[[], str], tell: Callable[[str], None]) -> None:
        self._text, self._tell = text, tell
        self._go, self._done = threading.Event(), threading.Event()
        threading.Thread(target=self._run, name="mtaio-telling", daemon=True).start()

    def begin(self) -> None:
        self._go.set()

    def wait(self, until: float) -> None:
        """Wait until it has told, or until then, of `time.monotonic()`."""
        self._done.wait(max(until - time.monotonic(), 0.0))

    def _run(self) -> None:
        self._go.wait()
        self._tell(self._text())
        self._done.set()


def _sleep_until(at: float) -> None:
    while (left := at - time.monotonic()) > 0:
        time.sleep(min(left, _LONGEST_SLEEP))


def _print(text: str) -> None:
    """Tell it on standard error, then flush what standard output holds back."""
    # A stream may be closed, absent, or a pipe that nobody reads any more.
    with suppress(Exception):
        sys.stderr.write(f"mtaio: {text}\n")
        sys.stderr.flush()
    with suppress(Exception):
        sys.stdout.flush()


def _log_and_flush(text: str) -> None:
    with suppress(Exception):
        if _log.hasHandlers():  # else logging itself would say it again there
            _log.critical("the process is %s", text)
    logging.raiseExceptions = False  # one that raises must not keep the others
    logging.shutdown()


def keepers(loop: asyncio.AbstractEventLoop) -> Iterator[str]:
    """What keeps the process: tasks of `loop`, threads, and where each stands."""
    tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in tasks[:_MOST_TOLD]:
        frames = task.get_stack(limit=1)
        yield f"task {task.get_name()}{_where(frames[0] if frames else None)}"
    if len(tasks) > _MOST_TOLD:
        yield f"{len(tasks) - _MOST_TOLD} more tasks"
    frames_now = sys._current_frames()
    threads = [(t, frames_now.get(t.ident or 0)) for t in threading.enumerate()]
    threads = [(t, at) for t, at in threads if not (t.daemon or _is_idle(at))]
    for thread, at in threads[:_MOST_TOLD]:
        yield f"thread {thread.name}{_where(at)}"
    if len(threads) > _MOST_TOLD:
        yield f"{len(threads) - _MOST_TOLD} more threads"


def _is_idle(frame: FrameType | None) -> bool:
    """Whether it waits for work in an executor, whose end lets it go."""
    if frame is None or frame.f_code.co_name != "_worker":
        return False
    return frame.f_globals.get("__name__") == "concurrent.futures.thread"


def _where(frame: FrameType | None) -> str:
    if frame is None:
        return ""
    code = frame.f_code
    return f" at {code.co_filename}:{frame.f_lineno} in {code.co_name}"
