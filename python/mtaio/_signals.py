"""Signals for a running loop."""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], object] | int

# Why readiness fails from the moment of the signal on.
STOP_ASKED = "a stop was asked for by a signal"


@contextmanager
def handled(
    handlers: Mapping[signal.Signals, Callable[[], None]],
) -> Iterator[Callable[[], object]]:
    """Call the handler of each signal; put those from before back at the end.

    Yields what takes the signals again, from whoever took them meanwhile.

    One that was not installed by Python can't be put back; its signal gets the
    system's default.

    Plain handlers, not the loop's: they run between two bytecodes of the main
    thread, so a loop that is stuck in Python code or in a sleep still learns of
    SIGTERM. A handler must therefore only do what is safe in the midst of
    anything, and wake the loop by `call_soon_threadsafe`.

    In a process that was forked meanwhile a signal does what it did before: a
    worker of `multiprocessing` ends at its `terminate()`.

    Only the main thread can have handlers; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    process = os.getpid()

    def on_signal(number: int, _: FrameType | None) -> None:
        if os.getpid() == process:
            handlers[signal.Signals(number)]()
        else:  # a fork, of which the application knows nothing
            _put_back(number, before[signal.Signals(number)])
            signal.raise_signal(number)

    def take() -> dict[signal.Signals, Handler | None]:
        return {number: signal.signal(number, on_signal) for number in handlers}

    before = take()
    try:
        yield take
    finally:
        for number, previous in before.items():
            _put_back(number, previous)


def _put_back(number: int, previous: Handler | None) -> None:
    signal.signal(number, signal.SIG_DFL if previous is None else previous)
