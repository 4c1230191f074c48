"""Signals for a running loop."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def handled(
    signals: Iterable[signal.Signals], handler: Callable[[signal.Signals], None]
) -> Iterator[None]:
    """Call `handler` on each of `signals`; put the handlers before back at the end.

    Plain handlers, not the loop's: they run between two bytecodes of the main
    thread, so a loop that is stuck in Python code or in a sleep still learns of
    SIGTERM. `handler` must therefore only do what is safe in the midst of
    anything, and wake the loop by `call_soon_threadsafe`.

    Only the main thread can have handlers; elsewhere this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def on_signal(number: int, _: FrameType | None) -> None:
        handler(signal.Signals(number))

    before = {number: signal.signal(number, on_signal) for number in signals}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
