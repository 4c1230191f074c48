"""The application: limits around its requests, and a start and stop in order."""

import asyncio
import enum
import signal
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from . import _rust
from ._components import Component, Components, call, lifetime
from ._errors import ErrorHandler
from ._inflight import Inflight, Request
from ._signals import handled
from .exceptions import ApplicationError, StartupError

if TYPE_CHECKING:
    from ._components import Step
    from .health import HealthMonitor
    from .resources import ConcurrencyLimiter, RateLimiter, TimeoutManager

__all__ = ("Application", "ErrorHandler", "ExitCode", "Phase")

T = TypeVar("T")


class Phase(enum.StrEnum):
    """Where an application is in its one life; they follow in this order."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


class ExitCode(enum.IntEnum):
    """What `Application.run` returns, for `sys.exit`."""

    CLEAN = 0
    """Asked to stop, and everything stopped in time."""
    START_FAILED = 1
    """A component did not start; `run` raises `StartupError` instead."""
    BAD_SETTINGS = 2
    """For callers that read `Settings`; `run` itself never returns it."""
    UNCLEAN = 3
    """Work was abandoned or a component was cut off at its deadline."""
    CRASHED = 4
    """A component or a critical background task ended by itself."""


class Application:
    """Carries requests through the limits, and components through their life.

    ::

        async with Application(rate_limiter=limiter) as app:
            result = await app.handle(work)

    or `await app.run()`, which also waits for SIGTERM or SIGINT. The stop goes:
    readiness fails; `drain_delay` seconds more are served, for balancers to
    notice; the components' `drain` is called and new requests are refused; the
    requests under way are awaited; components stop in reverse order. All of it
    happens inside `grace_period` seconds.

    Args:
        rate_limiter: Paces the requests of `handle`.
        concurrency_limiter: Bounds how many of them are worked on at a time.
        timeout_manager: Bounds the time of each, waiting for the limits included.
        error_handler: Is told of every error; a new `ErrorHandler` by default.
        health: Is told the phase, so that readiness follows it.
        drain_delay: Seconds, 0 or more, below `grace_period`.
        grace_period: Seconds, above 0, for the whole stop.

    An application belongs to one event loop and lives once. Only
    `request_stop` may be called from other threads and from signal handlers.
    """

    def __init__(
        self,
        *,
        rate_limiter: "RateLimiter | None" = None,
        concurrency_limiter: "ConcurrencyLimiter | None" = None,
        timeout_manager: "TimeoutManager | None" = None,
        error_handler: ErrorHandler | None = None,
        health: "HealthMonitor | None" = None,
        drain_delay: float = 0.0,
        grace_period: float = 30.0,
    ) -> None:
        self.rate_limiter = rate_limiter
        self.concurrency_limiter = concurrency_limiter
        self.timeout_manager = timeout_manager
        self.error_handler = ErrorHandler() if error_handler is None else error_handler
        self.health = health
        self._drain_delay = _rust.non_negative("drain_delay", drain_delay)
        self._grace_period = _rust.positive("grace_period", grace_period)
        if self._drain_delay >= self._grace_period:
            raise ValueError(
                f"drain_delay must be below grace_period ({grace_period:g} s), "
                f"got {drain_delay:g} s"
            )
        self._components = Components()
        self._inflight = Inflight()
        self._phase = Phase.NEW
        self._exit_code = ExitCode.CLEAN
        self._stop_asked = asyncio.Event()
        self._hurry = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Task[None] | None = None

    @property
    def phase(self) -> Phase:
        """Where the application is in its life."""
        return self._phase

    @property
    def in_flight(self) -> int:
        """Requests under way now."""
        return len(self._inflight)

    @property
    def exit_code(self) -> ExitCode:
        """How the life ended; `CLEAN` until something went wrong."""
        return self._exit_code

    def add(
        self,
        name: str,
        component: object = None,
        *,
        start: "Step | None" = None,
        stop: "Step | None" = None,
        drain: "Step | None" = None,
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

    async def start(self) -> None:
        """Start every component and be ready.

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
        except BaseException as error:
            if isinstance(error, StartupError):
                self._exit_code = ExitCode.START_FAILED
            self._enter(Phase.STOPPED)
            raise
        for component in self._components:
            component.on_end(self._component_ended)
        self._enter(Phase.READY)

    async def run(self) -> ExitCode:
        """Start unless started, serve until asked to stop, stop.

        Asked by SIGTERM, SIGINT or `request_stop()`, also during the start. A
        second signal skips what is still waited for. Outside the main thread
        signals are not seen.

        Returns:
            How it ended, for `sys.exit`.

        Raises:
            StartupError: A component failed to start.
        """
        self._loop = asyncio.get_running_loop()
        with handled((signal.SIGTERM, signal.SIGINT), self._on_signal):
            try:
                if await self._start_unless_asked_to_stop():
                    await self._stop_asked.wait()
            finally:
                await self.stop()
        return self._exit_code

    def request_stop(self) -> None:
        """Ask `run` to stop; asked again, to skip what it waits for. Never waits.

        From any thread, and from a signal handler.
        """
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._ask_stop)

    async def stop(self) -> None:
        """Stop: drain, await what is under way, stop the components in reverse.

        Callers at the same time wait for the one stop; cancelling one doesn't
        cut it short. What went wrong goes to the error handler and into
        `exit_code`. Does nothing unless started.
        """
        if self._phase in (Phase.NEW, Phase.STOPPED):
            return
        if self._stopping is None:
            self._stopping = asyncio.create_task(self._stop(), name="mtaio:stop")
        await asyncio.shield(self._stopping)

    def request(self) -> Request:
        """`async with app.request():` counts work in, so that a stop awaits it.

        Raises (on entering):
            ApplicationError: The application is not started, or refuses new work
                because its stop has begun.
        """
        return Request(self._inflight, self._refusal)

    async def handle(
        self,
        work: Callable[[], Awaitable[T]],
        *,
        tokens: int = 1,
        timeout: float | None = None,
    ) -> T:
        """Run `work()` through the limits, counted as a request under way.

        The timeout spans the waits for tokens and for a place too. A request
        that could not have its tokens in that time is refused at once.

        Args:
            work: Makes the awaitable; not called when the request is refused.
            tokens: What it costs at the rate limiter.
            timeout: Seconds; by default those of the timeout manager.

        Raises:
            RateLimitError: The tokens can't be had in time.
            TimeoutError: It took longer than the timeout.
            ApplicationError: The application does not take requests now.
        """
        if not callable(work):
            raise TypeError(f"work must be an async function, got {work!r}")
        async with self.request():
            try:
                return await self._within(timeout, self._limited(work, tokens, timeout))
            except Exception as error:
                await self.error_handler.handle_error(error)
                raise

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

    async def _limited(
        self, work: Callable[[], Awaitable[T]], tokens: int, timeout: float | None
    ) -> T:
        if self.rate_limiter is not None:
            if timeout is None and self.timeout_manager is not None:
                timeout = self.timeout_manager.default_timeout
            await self.rate_limiter.acquire(tokens, timeout=timeout)
        if self.concurrency_limiter is None:
            return await work()
        async with self.concurrency_limiter:
            return await work()

    async def _within(self, timeout: float | None, work: Awaitable[T]) -> T:
        if self.timeout_manager is not None:
            return await self.timeout_manager.run(work, timeout=timeout)
        async with asyncio.timeout(timeout):
            return await work

    def _refusal(self) -> str | None:
        """Why a new request can't be taken now; None when it can."""
        if self._phase in (Phase.READY, Phase.DRAINING):
            return None
        return f"no request is taken by an application that is {self._phase}"

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        if self.health is not None:
            self.health.set_ready(phase is Phase.READY, f"the application is {phase}")

    def _component_ended(self, component: Component) -> None:
        self._exit_code = ExitCode.CRASHED
        error = component.failure or ApplicationError(f"{component.name} ended early")
        self.error_handler.report(error, {"component": component.name})
        self._ask_stop()

    async def _start_unless_asked_to_stop(self) -> bool:
        if self._phase is not Phase.NEW:
            return True
        starting = asyncio.create_task(self.start(), name="mtaio:start")
        asked = asyncio.create_task(self._stop_asked.wait())
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

    def _on_signal(self, number: signal.Signals) -> None:
        # Readiness is told from inside the handler: the loop may be stuck.
        if self.health is not None:
            self.health.set_ready(False, f"{number.name} received")
        self.request_stop()

    def _ask_stop(self) -> None:
        if self._stop_asked.is_set():
            self._hurry.set()
        self._stop_asked.set()

    async def _stop(self) -> None:
        deadline = asyncio.get_running_loop().time() + self._grace_period
        self._enter(Phase.DRAINING)
        await self._unless_hurried(asyncio.sleep(self._drain_delay), None)
        self._enter(Phase.STOPPING)
        await self._drain_components()
        await self._await_requests(deadline)
        for fault in await self._components.stop(deadline):
            self._went_wrong(fault)
        self.error_handler.flush()
        self._enter(Phase.STOPPED)

    async def _drain_components(self) -> None:
        for component in reversed(tuple(self._components)):
            if component.drain is None:
                continue
            try:
                async with asyncio.timeout(component.stop_timeout):
                    await call(component.drain)
            except Exception as error:  # noqa: BLE001 - reported; the stop goes on
                self._went_wrong(error)

    async def _await_requests(self, deadline: float) -> None:
        """Wait for requests; leave the components half of what time is left."""
        left = deadline - asyncio.get_running_loop().time()
        reserve = min(self._components.stop_seconds(), left / 2)
        await self._unless_hurried(self._inflight.wait_idle(), left - reserve)
        if abandoned := self._inflight.cancel():
            self._went_wrong(
                ApplicationError(f"{abandoned} requests were abandoned at the deadline")
            )
            await asyncio.sleep(0)  # one turn for them to end

    async def _unless_hurried(
        self, wait: Awaitable[object], timeout: float | None
    ) -> None:
        waits = {
            asyncio.ensure_future(wait),
            asyncio.ensure_future(self._hurry.wait()),
        }
        try:
            await asyncio.wait(
                waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            for each in waits:
                each.cancel()

    def _went_wrong(self, error: Exception) -> None:
        if self._exit_code is ExitCode.CLEAN:
            self._exit_code = ExitCode.UNCLEAN
        self.error_handler.report(error)
