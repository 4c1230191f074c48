"""The one life of an application: start in order, serve, stop in order."""

import asyncio
import logging
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from . import _rust
from ._asks import StopAsks
from ._components import Component, Components, Step, call, lifetime
from ._errors import HandlesErrors, Reports, message
from ._inflight import Inflight, Request
from ._notify import Notifier
from ._phases import ExitCode, Phase
from ._process_end import Grace, ProcessEnd
from ._reload import flush_logs, reopen_logs
from ._signals import STOP_ASKED, handled
from ._tasks import BackgroundTasks, Spec, Work, whole
from .exceptions import ApplicationError, ShutdownError

if TYPE_CHECKING:
    from .health import HealthMonitor

R = TypeVar("R", bound=Step)

_log = logging.getLogger("mtaio.app")

# What abandoned requests get to end when they are cancelled.
_CANCELLED_SECONDS = 1.0

# What the logs get to write the last lines; the interpreter's exit waits longer.
_FLUSH_SECONDS = 1.0


class Lifecycle:
    """What `mtaio.app.Application` is without its limits; see there."""

    def __init__(
        self,
        *,
        error_handler: HandlesErrors,
        health: "HealthMonitor | None",
        drain_delay: float,
        grace_period: float,
    ) -> None:
        self.error_handler = error_handler
        self.health = health
        self._drain_delay = _rust.non_negative("drain_delay", drain_delay)
        self._grace = Grace(_rust.positive("grace_period", grace_period))
        if self._drain_delay >= self._grace.seconds:
            raise ValueError(
                f"drain_delay must be below grace_period ({grace_period:g} s), "
                f"got {drain_delay:g} s"
            )
        self._components = Components()
        self._tasks = BackgroundTasks(self._task_crashed, self._task_recovered)
        self._inflight = Inflight()
        self._notifier = Notifier()
        self._reports = Reports(error_handler)
        self._reloads: list[Step] = []
        self._phase = Phase.NEW
        self._exit_code = ExitCode.CLEAN
        self._start_ended = asyncio.Event()
        self._asks = StopAsks()
        self._runs = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None

    @property
    def phase(self) -> Phase:
        """Where the application is in its life."""
        return self._phase

    @property
    def in_flight(self) -> int:
        """Requests under way now."""
        return len(self._inflight)

    @property
    def requests(self) -> int:
        """Requests let in so far."""
        return self._inflight.total

    @property
    def exit_code(self) -> ExitCode:
        """How the life ended; `CLEAN` until something went wrong."""
        return self._exit_code

    @property
    def drain_delay(self) -> float:
        """Seconds served on after readiness failed."""
        return self._drain_delay

    @property
    def grace_period(self) -> float:
        """Seconds for the whole stop."""
        return self._grace.seconds

    @property
    def components(self) -> tuple[str, ...]:
        """Names of the components, in the order they were added."""
        return tuple(component.name for component in self._components)

    def add(
        self,
        name: str,
        component: object = None,
        *,
        start: Step | None = None,
        stop: Step | None = None,
        drain: Step | None = None,
        depends_on: Iterable[str] = (),
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
    ) -> None:
        """Take in a component, before the start.

        Args:
            name: Unique, non-empty.
            component: An async context manager, or an object with `start()` and
                `stop()` (sync or async, one may be absent).
            start: Called instead, together with `stop`.
            stop: Called at the stop, once all that depend on it have stopped.
            drain: Called before requests under way are awaited: take no new work.
                By default the component's method `drain`, if it has one.
            depends_on: Names of components that run while this one does. Those
                that don't depend on each other start at the same time.
            start_timeout: Seconds until the start has failed.
            stop_timeout: Seconds until it is cut off.

        Raises:
            ApplicationError: The application was started already.
            ValueError: The name is taken, or a figure out of range.
            TypeError: There is nothing to start or stop.
        """
        if self._phase is not Phase.NEW:
            raise ApplicationError(f"{name} added to an application that was started")
        self._components.add(
            Component(
                name,
                lifetime(component, start, stop),
                drain=drain or getattr(component, "drain", None),
                depends_on=depends_on,
                start_timeout=start_timeout,
                stop_timeout=stop_timeout,
            )
        )

    def spawn(
        self,
        name: str,
        work: Work,
        *,
        critical: bool = True,
        restart: bool = False,
        backoff: float = 1.0,
        max_backoff: float = 60.0,
    ) -> None:
        """Own a background task: start it with the application, or now if started.

        It is cancelled at the stop, after the requests under way and before the
        components. One that returns is done. One that raises is told to the
        error handler, and the health is unhealthy, or degraded if it isn't
        critical.

        Args:
            name: Unique, non-empty.
            work: Called for the awaitable that is the task.
            critical: Whether the service can't do without it.
            restart: Start it again after a crash; health recovers once it has
                run for `max_backoff` seconds.
            backoff: Seconds before the first restart; doubled for each in a row.
            max_backoff: Seconds before a restart at most.

        Raises:
            ValueError: The name is taken, or a figure out of range.
            ApplicationError: The tasks were cancelled already.
        """
        self._tasks.add(Spec(name, work, critical, restart, backoff, max_backoff))

    def on_reload(self, callback: R) -> R:
        """Call `callback`, sync or async, at every reload; for use as a decorator."""
        if not callable(callback):
            raise TypeError(f"callback must be a function, got {callback!r}")
        self._reloads.append(callback)
        return callback

    async def start(self) -> None:
        """Start every component, then the background tasks, and be ready.

        Raises:
            StartupError: A component failed; those started before it were stopped.
            ApplicationError: It was started before: an application lives once.
            ValueError: A dependency is unknown, or they form a circle.
        """
        if self._phase is not Phase.NEW:
            raise ApplicationError(f"start of an application that is {self._phase}")
        self._loop = asyncio.get_running_loop()
        self._enter(Phase.STARTING)
        try:
            await self._components.start()
            self._tasks.start()
            if self._notifier.watchdog_seconds:
                self.spawn("mtaio:systemd watchdog", self._feed_watchdog)
        except BaseException as error:
            if isinstance(error, Exception):  # not where the start was cancelled
                self._exit_code = ExitCode.START_FAILED
            deadline = self._grace.deadline()
            self._grace.begin()
            await self._end(deadline)
            self._start_ended.set()
            self._asks.stop()  # for a `run` that did not start it
            raise
        for component in self._components:
            component.on_end(self._component_ended)
        self._enter(Phase.READY)
        self._start_ended.set()
        self._notify("READY=1")

    async def run(self, *, ends_process: bool = False) -> ExitCode:
        """Start unless started, serve until asked to stop, stop.

        Asked by SIGTERM, SIGINT or `request_stop()`, also during the start. A
        second signal skips what is still waited for. SIGHUP reloads. Outside the
        main thread signals are not seen.

        The stop leaves behind a busy thread or a task that ignores its
        cancellation; `asyncio.run` and the interpreter wait for them.

        Args:
            ends_process: The process is there for this application alone: 2
                seconds after the grace period, counted from the ask, it ends by
                `os._exit`, with `UNCLEAN` if nothing went wrong before. What
                kept it is told to the log and standard error, and logs are
                flushed; what was to run at exit is not called.

        Returns:
            How it ended, for `sys.exit`.

        Raises:
            StartupError: A component failed to start.
            ApplicationError: One failed before: an application lives once.
        """
        if self._exit_code is ExitCode.START_FAILED:
            raise ApplicationError("run of an application that failed to start")
        self._loop = asyncio.get_running_loop()
        if ends_process:
            end = ProcessEnd(self._loop, lambda: self._exit_code or ExitCode.UNCLEAN)
            self._grace.ends_process(end)
        self._runs = True
        self._asks.take()  # of before there was a loop to hear them
        with handled(self._signal_handlers()) as take_again:
            try:
                if await self._start_unless_asked_to_stop():
                    # A server among the components may have taken them, uvicorn say.
                    take_again()
                    await self._asks.wait()
            finally:
                await self.stop()
                self._grace.begin()  # also if there was nothing to stop
        return self._exit_code

    def request_stop(self) -> None:
        """Ask `run` to stop; asked again, to skip what it waits for. Never waits.

        From any thread, and from a signal handler. Asked before `run` was called,
        it starts nothing.
        """
        self._asks.put()  # before the look at the loop: none is lost
        if self._runs:
            self._grace.begin()
        self._call_soon(self._asks.take)

    def request_reload(self) -> None:
        """Ask for a `reload`, unless one is under way. Never waits.

        From any thread, and from a signal handler.
        """
        self._call_soon(self._begin_reload)

    def begin_drain(self) -> None:
        """Fail readiness and serve on; the stop counts its times from here.

        `stop()` does this first. Does nothing unless the application is ready.
        """
        if self._phase is Phase.READY:
            self._grace.began()  # now
            self._enter(Phase.DRAINING)
            self._notify("STOPPING=1")

    async def stop(self) -> None:
        """Stop: drain, await what is under way, stop the components in reverse.

        Callers at the same time wait for the one stop; cancelling one doesn't
        cut it short. During the start it waits for the start to end. What went
        wrong goes to the error handler and into `exit_code`. Does nothing unless
        started.
        """
        if self._phase is Phase.STARTING:
            await self._start_ended.wait()
        if self._phase in (Phase.NEW, Phase.STOPPED):
            return
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="mtaio:stop")
        await asyncio.shield(self._stopping)

    async def reload(self) -> None:
        """Reopen the logs, then call what `on_reload` registered.

        A callback that raises is told to the error handler; the others go on.
        """
        self._notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        for callback in (reopen_logs, *self._reloads):
            try:
                await call(callback)
            except Exception as error:  # noqa: BLE001 - told; the others go on
                self._reports.tell(error, {"reload": repr(callback)})
        if self._phase is Phase.READY:
            self._notify("READY=1")

    def request(self) -> Request:
        """`async with app.request():` counts work in, so that a stop awaits it.

        Entering raises `ApplicationError` when the application is not started,
        or refuses new work because its stop has begun.
        """
        return Request(self._inflight, self.refusal)

    def refusal(self) -> str | None:
        """Why a new request can't be taken now; None when it can."""
        if self._phase in (Phase.READY, Phase.DRAINING):
            return None
        return f"no request is taken by an application that is {self._phase}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        ended = f", {self._exit_code.name}" if phase is Phase.STOPPED else ""
        _log.info("the application is %s%s", phase, ended)
        if self.health is not None:
            ready = phase is Phase.READY
            self.health.set_ready(ready, "" if ready else f"the application is {phase}")

    def _notify(self, *states: str) -> None:
        if error := self._notifier.send(*states):
            self._reports.tell(error, {"notify": states})

    async def _feed_watchdog(self) -> None:
        """Show systemd a sign of life while the loop turns and health is live."""
        seconds = self._notifier.watchdog_seconds or 0.0
        while True:
            if self.health is None or self.health.live:
                self._notify("WATCHDOG=1")
            await asyncio.sleep(seconds / 2)

    def _component_ended(self, component: Component) -> None:
        self._exit_code = ExitCode.CRASHED
        failure = component.failure
        if not isinstance(failure, Exception):
            failure = ApplicationError(f"{component.name} ended early: {failure!r}")
        self._reports.tell(failure, {"component": component.name})
        # No ask: amid a stop that would skip the wait for requests.
        self._asks.stop()

    def _task_crashed(self, spec: Spec, error: Exception) -> None:
        self._reports.tell(error, {"task": spec.name})
        if spec.critical and not spec.restart:
            self._exit_code = ExitCode.CRASHED
        if self.health is not None:
            reason = f"{type(error).__name__}: {message(error)}"
            self.health.set_fault(f"task {spec.name}", reason, critical=spec.critical)

    def _task_recovered(self, spec: Spec) -> None:
        if self.health is not None:
            self.health.clear_fault(f"task {spec.name}")

    async def _start_unless_asked_to_stop(self) -> bool:
        if self._phase is not Phase.NEW:
            return True
        if self._asks.is_asked():
            self._enter(Phase.STOPPED)
            return False
        starting = asyncio.create_task(self.start(), name="mtaio:start")
        asked = asyncio.create_task(self._asks.wait())
        try:
            await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()
            if not starting.done():
                starting.cancel()
                await asyncio.wait({starting})
        if starting.cancelled():
            return False
        starting.result()
        return True

    def _signal_handlers(self) -> dict[signal.Signals, Callable[[], None]]:
        handlers: dict[signal.Signals, Callable[[], None]] = {
            signal.SIGTERM: self._on_stop_signal,
            signal.SIGINT: self._on_stop_signal,
        }
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = self.request_reload
        return handlers

    def _on_stop_signal(self) -> None:
        # Readiness is told from inside the handler: the loop may be stuck.
        if self.health is not None:
            self.health.set_ready(False, STOP_ASKED)
        self.request_stop()

    def _call_soon(self, callback: Callable[[], None]) -> None:
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed, maybe only just now
                self._loop.call_soon_threadsafe(callback)

    def _begin_reload(self) -> None:
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self.reload(), name="mtaio:reload")

    async def _stop(self) -> None:
        deadline = self._grace.deadline()
        self._grace.begin()
        self._asks.stop()  # for a `run` that knows nothing of this
        self.begin_drain()
        drained = self._grace.began() + self._drain_delay
        await self._asks.unless_hurried(asyncio.sleep(self._left(drained)))
        self._enter(Phase.STOPPING)
        await self._drain_components(deadline)
        await self._await_requests(deadline)
        await self._end(deadline)

    async def _drain_components(self, deadline: float) -> None:
        """Call each `drain`; one that hangs gets half of what time is left."""
        for component in reversed(tuple(self._components)):
            if component.drain is None:
                continue
            seconds = min(component.stop_timeout, self._left(deadline) / 2)
            try:
                async with asyncio.timeout(seconds):
                    await whole(call(component.drain))
            except Exception as error:  # noqa: BLE001 - told; the stop goes on
                self._went_wrong(error)

    async def _await_requests(self, deadline: float) -> None:
        """Wait for requests; leave the components half of what time is left."""
        left = self._left(deadline)
        reserve = min(self._components.stop_seconds(), left / 2)
        await self._asks.unless_hurried(self._inflight.wait_idle(), left - reserve)
        if abandoned := self._inflight.cancel():
            text = f"{abandoned} requests were abandoned at the deadline"
            self._went_wrong(ApplicationError(text))
            ends = asyncio.ensure_future(self._inflight.wait_idle())
            await asyncio.wait({ends}, timeout=min(_CANCELLED_SECONDS, reserve / 2))
            ends.cancel()

    async def _stop_tasks(self, deadline: float) -> None:
        for name in await self._tasks.stop(self._left(deadline) / 2):
            self._went_wrong(ShutdownError(f"task {name} did not end when cancelled"))

    async def _end(self, deadline: float) -> None:
        await self._stop_tasks(deadline)
        for fault in await self._components.stop(deadline):
            self._went_wrong(fault)
        await self._reports.finish(self._left(deadline))
        self._enter(Phase.STOPPED)
        await flush_logs(min(self._left(deadline), _FLUSH_SECONDS))

    def _left(self, deadline: float) -> float:
        return max(deadline - asyncio.get_running_loop().time(), 0.0)

    def _went_wrong(self, error: Exception) -> None:
        if self._exit_code is ExitCode.CLEAN:
            self._exit_code = ExitCode.UNCLEAN
        self._reports.tell(error)
