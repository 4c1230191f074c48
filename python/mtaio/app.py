"""The application: limits around its requests, and a start and stop in order."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from ._app_metrics import families
from ._asgi import AsgiApp, Mounted
from ._errors import ErrorHandler, HandlesErrors
from ._lifecycle import Lifecycle
from ._phases import ExitCode, Phase
from .resources import TimeoutManager

if TYPE_CHECKING:
    from .health import HealthMonitor
    from .resources import ConcurrencyLimiter, RateLimiter

__all__ = ("Application", "ErrorHandler", "ExitCode", "Phase")

T = TypeVar("T")

# Scrapes come every few seconds at most; a publish takes microseconds.
_METRICS_SECONDS = 1.0

_WITHOUT_DEFAULT = TimeoutManager()


class Application(Lifecycle):
    """Carries requests through the limits, and components through their life.

    ::

        async with Application(rate_limiter=limiter) as app:
            result = await app.handle(work)

    or `await app.run()`, which also waits for SIGTERM or SIGINT. The stop goes:
    readiness fails; `drain_delay` seconds more are served, for balancers to
    notice; the components' `drain` is called and new requests are refused; the
    requests under way are awaited; background tasks are cancelled; components
    stop in reverse order. All of it happens inside `grace_period` seconds.

    Args:
        rate_limiter: Paces the requests of `handle`.
        concurrency_limiter: Bounds how many of them are worked on at a time.
        timeout_manager: Bounds the time of each, waiting for the limits included.
        error_handler: Is told of every error; a new `ErrorHandler` by default, or
            an object of yours with `async handle_error(error, context)`.
        health: Is told the phase and of crashed tasks. Start it as a component
            (`app.add("health", health)`) or around the application.
        drain_delay: Seconds, 0 or more, below `grace_period`.
        grace_period: Seconds, above 0, for the whole stop.

    An application belongs to one event loop and lives once. Only
    `request_stop` and `request_reload` may be called from other threads and from
    signal handlers.
    """

    def __init__(
        self,
        *,
        rate_limiter: "RateLimiter | None" = None,
        concurrency_limiter: "ConcurrencyLimiter | None" = None,
        timeout_manager: TimeoutManager | None = None,
        error_handler: HandlesErrors | None = None,
        health: "HealthMonitor | None" = None,
        drain_delay: float = 0.0,
        grace_period: float = 30.0,
    ) -> None:
        super().__init__(
            error_handler=ErrorHandler() if error_handler is None else error_handler,
            health=health,
            drain_delay=drain_delay,
            grace_period=grace_period,
        )
        if health is not None and health.probes is not None:
            self.spawn(
                "mtaio:metrics", self._publish_metrics, critical=False, restart=True
            )
        self.rate_limiter = rate_limiter
        self.concurrency_limiter = concurrency_limiter
        self.timeout_manager = timeout_manager

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
            timeout: Seconds, 0 or more; by default those of the timeout manager.

        Raises:
            ValueError, TypeError: An argument is not as said.
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
                await self._reports.hand_over(error)
                raise

    def asgi(self, inner: AsgiApp) -> Mounted:
        """Mount an ASGI app: started, counted and stopped with this application.

        For uvicorn, hypercorn and others: serve what this returns. The server's
        lifespan starts and stops the application, requests count as under way,
        and a stop signal drains first. Bound the server's own wait for open
        connections (uvicorn: `timeout_graceful_shutdown`) below `grace_period`.
        """
        return Mounted(inner, self)

    async def _publish_metrics(self) -> None:
        """Keep `/metrics` of the health's probes up to date."""
        while self.health is not None and self.health.probes is not None:
            self.health.probes.publish_metrics(families(self), group="mtaio_app")
            await asyncio.sleep(_METRICS_SECONDS)

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
        manager = self.timeout_manager or _WITHOUT_DEFAULT
        return await manager.run(work, timeout=timeout)
