"""The watchdog: notices a blocked event loop from outside, and says where it is."""

import asyncio
import atexit
import contextlib
import faulthandler
import inspect
import itertools
import logging
import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable
from traceback import StackSummary, walk_stack
from types import TracebackType
from typing import Self

from . import _rust
from ._rust import LivenessGuard, MetricsSource, StallReport

__all__ = ("StallReport", "Watchdog")

logger = logging.getLogger("mtaio.watchdog")

# Beats per `stall_after`: the more, the finer the lag; each costs microseconds.
_BEATS = 4
_LONGEST_PERIOD = 0.25
# What `stop` grants a callback that is being run.
_JOIN_SECONDS = 1.0

# Elsewhere than on Linux there is no signal for it, so Python takes the stack.
_BY_SIGNAL = (
    sys.platform == "linux" and not getattr(sys, "_is_gil_enabled", lambda: True)()
)

OnStall = Callable[[StallReport], object]

_watchdogs: "weakref.WeakSet[Watchdog]" = weakref.WeakSet()


class Watchdog:
    """Reports event loops that stop running, while they are stuck.

    Each watched loop beats a few times per `stall_after`, which costs it
    microseconds a second. A native thread watches: past `stall_after` seconds
    without a beat there is exactly one report with the stack of the loop's
    thread, and one when the loop runs again or is watched no longer. That works
    while Python code spins, while it waits (a lock, a synchronous read), and
    while C code holds the interpreter: then no Python can run, so the report
    goes to standard error at once and reaches `on_stall` when it can.

    A stack is taken by a Python thread. When none can run for a quarter of a
    second, CPython's `faulthandler` writes it from a signal handler on a signal
    nobody uses (Linux only; elsewhere the report has no stack). Its limits are
    then `faulthandler`'s: 100 threads, 100 frames each, no source lines, and a
    remote risk of a crash if the interpreter is released just then. On
    free-threaded builds that is the only way, `all_threads` is not had, and the
    signal goes to the stalled thread, whose system call it interrupts.

    Feed it to a `ProbeServer` by `add_watchdog` for metrics and `/livez`.

    Args:
        stall_after: Seconds without a beat that make a stall.
        fail_after: Seconds after which `/livez` fails, so that the orchestrator
            restarts the process; None never does. More than `stall_after`.
        all_threads: Show the stacks of all threads, not the loop's only.
        on_stall: Called with a `StallReport`, on a thread of the watchdog, never
            on a loop. The default logs an error on `mtaio.watchdog`.
        on_recovery: The same for the end of a stall; the default logs a warning.

    Raises:
        TypeError, ValueError: An argument is wrong; it is named.
    """

    def __init__(
        self,
        stall_after: float = 1.0,
        fail_after: float | None = None,
        *,
        all_threads: bool = False,
        on_stall: OnStall | None = None,
        on_recovery: OnStall | None = None,
    ) -> None:
        self._stall_after = _rust.positive("stall_after", stall_after)
        if fail_after is not None:
            _rust.positive("fail_after", fail_after)
            if fail_after <= stall_after:
                raise ValueError(
                    f"fail_after must be more than stall_after ({stall_after:g} s), "
                    f"got {fail_after:g}"
                )
        if not isinstance(all_threads, bool):
            raise TypeError(f"all_threads must be a bool, got {all_threads!r}")
        self._all_threads = all_threads
        self._on_stall = _sync("on_stall", on_stall) or _log_stall
        self._on_recovery = _sync("on_recovery", on_recovery) or _log_recovery
        self._hearts = _rust.Hearts(fail_after)
        self._pulses: dict[int, _Pulse] = {}
        self._run: _Run | None = None
        self._changing = threading.Lock()
        _watchdogs.add(self)

    @property
    def source(self) -> MetricsSource:
        """Lag and stalls by loop, for `ProbeServer.add_source`."""
        return self._hearts.source()

    @property
    def guard(self) -> LivenessGuard:
        """What fails `/livez` after `fail_after`."""
        return self._hearts.guard()

    def start(self) -> None:
        """Start the native thread; no effect while it runs. Any thread, no waiting.

        Raises:
            OSError, RuntimeError: The system has no thread to give; nothing is
                left started.
        """
        with self._changing:
            if self._run is None:
                self._run = _Run(self)
                # So that no thread of ours is amid native code when the
                # interpreter is torn down.
                atexit.register(self.stop)

    def stop(self) -> None:
        """Stop watching; no effect when stopped. Blocks for a moment.

        A callback that is being run gets one second to end.
        """
        with self._changing:
            run, self._run = self._run, None
            pulses = list(self._pulses.values())
            self._pulses.clear()
        for pulse in pulses:
            self._hearts.remove(pulse.heart)
            pulse.stop()
        if run is not None:
            atexit.unregister(self.stop)
            run.stop()

    def watch(
        self, loop: asyncio.AbstractEventLoop | None = None, *, name: str = "main"
    ) -> None:
        """Watch a loop from its next turn on, until `unwatch` or `stop`.

        A loop that ends or pauses is not stalled. Watching it again only
        changes its name.

        Args:
            loop: The running one if None.
            name: For reports and metrics; one per loop.

        Raises:
            RuntimeError: No loop is given and none runs, or it is closed.
        """
        _rust.text("name", name)
        loop = asyncio.get_running_loop() if loop is None else loop
        if not isinstance(loop, asyncio.AbstractEventLoop):
            raise TypeError(f"loop must be an event loop, got {loop!r}")
        loop.call_soon_threadsafe(self._begin, loop, name)

    def unwatch(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        """Watch a loop (the running one if None) no longer."""
        loop = asyncio.get_running_loop() if loop is None else loop
        for pulse in list(self._pulses.values()):
            if pulse.loop is loop:
                self._drop(pulse)

    async def __aenter__(self) -> Self:
        """Start, and watch the running loop."""
        self.start()
        self.watch()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _begin(self, loop: asyncio.AbstractEventLoop, name: str) -> None:
        """Run on the loop's own thread, which its heart belongs to."""
        self.unwatch(loop)
        period = min(self._stall_after / _BEATS, _LONGEST_PERIOD)
        pulse = _Pulse(loop, name, period)
        self._pulses[pulse.key] = pulse
        self._hearts.add(pulse.heart)
        pulse.beat()

    def _drop(self, pulse: "_Pulse") -> None:
        self._pulses.pop(pulse.key, None)
        self._hearts.remove(pulse.heart)
        pulse.stop()

    def _capture(self, key: int) -> str | None:
        """Return the stack of the loop with that heart; None if it doesn't run.

        Empty on free-threaded builds: there `sys._current_frames` stops all
        threads and would wait for one that is stuck in C, so the signal does it.
        """
        pulse = self._pulses.get(key)
        if pulse is None or not pulse.loop.is_running():
            if pulse is not None and pulse.loop.is_closed():
                self._drop(pulse)
            return None
        if _BY_SIGNAL:
            return ""
        # All lines first, their source text later: reading files lets other
        # threads run on.
        stacks = {
            ident: StackSummary.extract(walk_stack(frame), lookup_lines=False)
            for ident, frame in sys._current_frames().items()
            if self._all_threads or ident == pulse.thread_ident
        }
        if not self._all_threads:
            return "".join(_lines(s) for s in stacks.values())
        names = {thread.ident: thread.name for thread in threading.enumerate()}
        return "\n".join(
            f"Thread {names.get(ident, '?')} (0x{ident:016x}):\n{_lines(stack)}"
            for ident, stack in stacks.items()
        )

    def _tell(self, report: StallReport) -> None:
        callback = self._on_recovery if report.ended else self._on_stall
        try:
            callback(report)
        except Exception:
            logger.exception("watchdog callback %r failed on %r", callback, report)

    def _after_fork_in_child(self) -> None:
        self._hearts.after_fork_in_child()
        self._changing = threading.Lock()
        run, self._run = self._run, None
        for pulse in list(self._pulses.values()):
            self._drop(pulse)
        if run is not None:
            atexit.unregister(self.stop)
            run.forget()


class _Pulse:
    """The beating of one loop. Made and run on the loop's thread."""

    _keys = itertools.count(1)

    def __init__(
        self, loop: asyncio.AbstractEventLoop, name: str, period: float
    ) -> None:
        self.loop = loop
        self.key = next(self._keys)
        self.thread_ident = threading.get_ident()
        self.heart = _rust.Heart(
            self.key,
            name,
            thread_ident=self.thread_ident,
            native_id=threading.get_native_id(),
            period=period,
        )
        self._period = period
        self._stopped = False

    def beat(self) -> None:
        if not self._stopped:
            self.heart.beat()
            self.loop.call_later(self._period, self.beat)

    def stop(self) -> None:
        # The timer that is still set finds this and sets no other; cancelling
        # it would need the loop's thread.
        self._stopped = True


class _Run:
    """The threads between one `start` and its `stop`."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog
        self._reports: queue.SimpleQueue[StallReport | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        with contextlib.ExitStack() as undo:
            self._dump = _open_dump()
            undo.callback(self._close_dump)
            self._native = _rust.WatchdogThread(
                watchdog._hearts,
                stall_after=watchdog._stall_after,
                signal=self._dump,
                all_threads=watchdog._all_threads,
            )
            undo.callback(self.stop)
            # Two threads, so that a slow callback never keeps a stack from being
            # taken. Daemons, so that one that hangs can't hold the exit up.
            self._start("mtaio-stacks", self._attend)
            self._start("mtaio-stalls", self._deliver)
            undo.pop_all()

    def _start(self, name: str, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _attend(self) -> None:
        while (task := self._native.next()) is not None:
            if isinstance(task, StallReport):
                self._reports.put(task)
            else:
                ticket, key = task
                self._native.answer(ticket, self._stack(key))
        self._reports.put(None)

    def _stack(self, key: int) -> str | None:
        try:
            return self._watchdog._capture(key)
        except Exception as error:  # noqa: BLE001 - a report without a stack beats none
            return f"no stack: {error!r}\n"

    def _deliver(self) -> None:
        while (report := self._reports.get()) is not None:
            self._watchdog._tell(report)

    def stop(self) -> None:
        self._native.stop()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(_JOIN_SECONDS)
        self._close_dump()

    def forget(self) -> None:
        """Let go in a forked child, where none of the threads exists."""
        self._native.forget()
        self._close_dump()

    def _close_dump(self) -> None:
        if self._dump is not None:
            signal, file, _ = self._dump
            self._dump = None
            faulthandler.unregister(signal)
            os.close(file)


def _open_dump() -> tuple[int, int, bool] | None:
    """Have `faulthandler` write stacks into a file in memory, on an unused signal.

    Returns the signal, the file, and whether to signal the stalled thread
    itself: free-threaded builds refuse to walk the frames of other threads.
    """
    signal = _rust.free_signal()
    if signal is None:
        return None
    try:
        file = os.memfd_create("mtaio-stacks")
    except OSError:  # a sandbox without it: reports come without such stacks
        return None
    all_threads = not _BY_SIGNAL
    faulthandler.register(signal, file=file, all_threads=all_threads, chain=False)
    return signal, file, _BY_SIGNAL


def _lines(stack: StackSummary) -> str:
    stack.reverse()  # `walk_stack` begins with the innermost call
    return "".join(stack.format())


def _sync(name: str, callback: OnStall | None) -> OnStall | None:
    if callback is not None and not callable(callback):
        raise TypeError(f"{name} must be callable, got {callback!r}")
    if inspect.iscoroutinefunction(callback):
        raise TypeError(
            f"{name} must be a plain function (the loop that would run a coroutine "
            f"is the one that is stuck), got {callback!r}"
        )
    return callback


def _log_stall(report: StallReport) -> None:
    logger.error(
        "event loop %r has not run for %.2f s\n%s",
        report.loop,
        report.lasted,
        report.stack or "no stack could be taken",
    )


def _log_recovery(report: StallReport) -> None:
    logger.warning("event loop %r runs again after %.2f s", report.loop, report.lasted)


def _after_fork_in_child() -> None:
    for watchdog in list(_watchdogs):
        watchdog._after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
