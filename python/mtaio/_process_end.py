"""The end of a process that something keeps beyond its grace period."""

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from types import FrameType

_log = logging.getLogger("mtaio.app")

# After the grace period: for what ends by itself once the stop is over, then for
# telling what does not.
_SPARE_SECONDS = 1.0
_TELL_SECONDS = 1.0
# The 2 seconds that the guides promise.
LATEST_SECONDS = _SPARE_SECONDS + _TELL_SECONDS
# Lines for tasks, and for threads; a service has thousands.
_MOST_TOLD = 20


class Grace:
    """The grace period of a stop: it begins once, at the first ask.

    Args:
        seconds: How long it is.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began: float | None = None
        self._deadline: float | None = None
        self._end: ProcessEnd | None = None

    def ends_process(self, end: "ProcessEnd") -> None:
        """Let `end` know when it is over."""
        self._end = end
        if self._began is not None:
            end.due(self._began + self.seconds)

    def begin(self) -> None:
        """It begins, unless it has. From any thread, and from a signal handler."""
        if self._began is None:
            self._began = time.monotonic()
            if self._end is not None:
                self._end.due(self._began + self.seconds)

    def deadline(self) -> float:
        """When it is over, by the running loop's clock; it begins, unless it has.

        It counts from the ask, however late a blocked loop comes to hear of it.
        """
        if self._deadline is None:
            late = 0.0 if self._began is None else time.monotonic() - self._began
            self.begin()
            now = asyncio.get_running_loop().time()
            self._deadline = now - late + self.seconds
        return self._deadline


class ProcessEnd:
    """Ends the process by `os._exit` if it is still there after a due time.

    `asyncio.run` waits for tasks that ignore their cancellation and for the
    threads of the loop's executor, the interpreter for every thread that is no
    daemon: all of it without end. A process that ends by itself never notices.
    Code that holds the GIL for good is beyond this; for that there is SIGKILL.

    Both threads start at once, because neither a signal handler nor an
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
        self._telling = threading.Event()
        self._told = threading.Event()
        for work in (self._wait, self._tell):
            threading.Thread(target=work, name="mtaio-process-end", daemon=True).start()

    def due(self, at: float) -> None:
        """Set the due time, of `time.monotonic()`; the first call counts.

        From any thread, and from a signal handler.
        """
        self._due.put(at)

    def _wait(self) -> None:
        left = self._due.get() + _SPARE_SECONDS - time.monotonic()
        time.sleep(min(max(left, 0.0), threading.TIMEOUT_MAX))
        # Told by another thread: a log or a pipe may be what is stuck.
        self._telling.set()
        self._told.wait(_TELL_SECONDS)
        os._exit(self._code())

    def _tell(self) -> None:
        self._telling.wait()
        try:
            text = "\n  ".join(
                (f"ended with exit code {self._code()}; kept by", *keepers(self._loop))
            )
            print(f"mtaio: {text}", file=sys.stderr, flush=True)  # noqa: T201
            if _log.hasHandlers():  # else logging itself would say it again there
                _log.critical("the process is %s", text)
            print(end="", flush=True)  # noqa: T201 - what standard output holds back
            logging.shutdown()
        finally:
            self._told.set()


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
