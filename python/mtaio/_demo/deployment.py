"""The guide's `main()`, with a workload: what is wired to what."""

import asyncio
import hashlib
import json
import logging
import math
import time
from collections.abc import Awaitable, Callable

from mtaio.app import Application, ErrorHandler, ExitCode, Phase
from mtaio.cache import TTLCache
from mtaio.config import Settings
from mtaio.core import TaskExecutor
from mtaio.exceptions import ApplicationError, RateLimitError
from mtaio.health import (
    HealthMonitor,
    cache_loads,
    http_get,
    log_writer,
    loop_lag,
    saturation,
)
from mtaio.logging import AsyncFileHandler
from mtaio.monitoring import ProbeServer, ResourceMonitor, Watchdog
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager

from .figures import Figures
from .http import Request, Response, Server
from .journal import Journal
from .load import ITEMS, Load
from .reporter import Reporter
from .stock import Stock, StockError

logger = logging.getLogger("mtaio")
access = logging.getLogger("mtaio.access")

# What one item costs to make: about 5 ms of a core.
ROUNDS = 10_000
JSON = {"Content-Type": "application/json"}
# A loop that stands still for the first is reported, for the second unfit to live.
STALL_AFTER = 1.0
FAIL_AFTER = 4.0
# So many callers waiting at the limiter raise an alert, so few clear it: the
# load's own clients are too few for either, a flood's line is longer.
CLIENTS = 40
CROWD = 50
CROWD_GONE = CLIENTS
# Checks without which no request should come.
CRITICAL = ("stock", "items")


class Deployment:
    """Items that are dear to make, served through limits from a cache.

    Args:
        settings: What the environment says.
        log: The handler the log goes to.
        page_origin: Of the page that may read the probes in a browser.
    """

    def __init__(
        self, settings: Settings, log: AsyncFileHandler, page_origin: str | None = None
    ) -> None:
        self.settings = settings
        self.log = log
        self.journal = Journal()
        self.reporter = Reporter(self.journal)
        self.probes = ProbeServer(
            settings.probe_host, settings.probe_port, allowed_origin=page_origin
        )
        self.watchdog = Watchdog(
            STALL_AFTER,
            FAIL_AFTER,
            on_stall=self.reporter.stalled,
            on_recovery=self.reporter.recovered,
        )
        self.health = HealthMonitor(
            ResourceMonitor(settings.monitor_interval),
            probes=self.probes,
            cpu_threshold=settings.cpu_threshold,
            memory_threshold=settings.memory_threshold,
        )
        self.limiter = RateLimiter(rate=settings.rate_limit, burst=settings.burst_limit)
        self.errors = ErrorHandler()
        self.app = self._make_application()
        self.cache: TTLCache[bytes] = TTLCache(
            default_ttl=settings.cache_ttl, max_size=settings.cache_size
        )
        self.executor = TaskExecutor(max_workers=settings.max_workers)
        self.stock = Stock()
        self.server = Server(self.answer, leaving=self.is_leaving)
        self.load = Load(self.server, clients=CLIENTS, pause=0.2)
        self.figures = Figures(
            health=self.health,
            limiter=self.limiter,
            cache=self.cache,
            log=log,
            load=self.load,
        )
        self.app.on_reload(reload_settings)
        self._add_components()
        self._add_checks()
        self._watch()

    @property
    def url(self) -> str:
        """Where the workload is served."""
        return f"http://127.0.0.1:{self.server.port}"

    async def run(self, ready: Callable[[], Awaitable[None]]) -> ExitCode:
        """Start all of it and serve until asked to stop.

        `ready` is called once requests may come; signals are heeded by then.
        """
        self.errors.install()
        self.app.spawn("announce", lambda: self._announce(ready))
        code = await self.app.run(ends_process=True)
        logger.info("stopped: %s", code.name)
        told = f"stopped with exit code {code:d} ({code.name.lower()})"
        self.journal.tell("info", "application", told)
        return code

    async def _announce(self, ready: Callable[[], Awaitable[None]]) -> None:
        # Not ready before what is critical was seen to be well.
        await asyncio.gather(*(self.health.run_check(name) for name in CRITICAL))
        self.journal.tell("good", "application", "started, and ready")
        logger.info("started on port %d", self.server.port)
        print(f"serving {self.url}/items/1 and {self.url}/health", flush=True)
        print(f"probes at {self.probes.url}/livez /readyz /metrics", flush=True)
        await ready()

    async def answer(self, request: Request, timeout: float | None = None) -> Response:
        """Answer through the limits, and log it: each request exactly once."""
        begun = time.perf_counter()
        response = await self._respond(request, timeout)
        took = (time.perf_counter() - begun) * 1000
        access.info("%s %s %d %.1f ms", request.id, request.path, response.status, took)
        return response

    def is_leaving(self) -> bool:
        """Clients are better told to go elsewhere."""
        return self.app.phase is not Phase.READY

    def _make_application(self) -> Application:
        settings = self.settings
        return Application(
            rate_limiter=self.limiter,
            concurrency_limiter=ConcurrencyLimiter(limit=settings.concurrency_limit),
            timeout_manager=TimeoutManager(default_timeout=settings.default_timeout),
            error_handler=self.errors,
            health=self.health,
            drain_delay=settings.drain_delay,
            grace_period=settings.grace_period,
        )

    def _add_components(self) -> None:
        add = self.app.add
        add("probes", self.probes)
        add("watchdog", self.watchdog, depends_on=["probes"])
        add("stock", self.stock)
        add("health", self.health, depends_on=["probes", "stock"])
        add("executor", self.executor)
        add("cache", self.cache)
        add("server", self.server, depends_on=["executor", "cache", "health", "stock"])
        add("load", self.load, depends_on=["server"])
        self.app.spawn("figures", self.figures.print_for_ever, critical=False)

    def _add_checks(self) -> None:
        """Often enough to be watched; a service asks every ten seconds."""
        check, monitor = self.health.check, self.health.monitor
        check("loop", interval=1, critical=False)(loop_lag(monitor))
        check("log", interval=1, critical=False)(log_writer(self.log))
        check("limiter", interval=1, critical=False)(saturation(self.limiter))
        check("cache", interval=1, critical=False, depends_on=["stock"])(
            cache_loads(self.cache)
        )
        stock, items = CRITICAL
        check(stock, interval=1, timeout=2)(http_get(self.stock.url, timeout=2))
        check(items, interval=1, timeout=2, depends_on=[stock])(self._can_make)

    def _watch(self) -> None:
        """Have everything worth telling told to the journal and the probes."""
        self.reporter.listen(self.health)
        self.probes.add_watchdog(self.watchdog)
        monitor = self.health.monitor
        monitor.gauge("limiter_waiting", lambda: float(self.limiter.stats().waiting))
        monitor.set_threshold("limiter_waiting", CROWD, clear=CROWD_GONE)

    async def _can_make(self) -> None:
        await self.stock.count(0)

    async def _respond(self, request: Request, timeout: float | None) -> Response:
        if request.method != "GET":
            return Response(405, headers={"Allow": "GET"})
        if request.path == "/health":
            status = await self.health.get_health_status()
            return Response(200, json.dumps(status).encode(), JSON)
        try:
            return await self.app.handle(
                lambda: self._item(request.path), timeout=timeout
            )
        except RateLimitError as error:
            after = {"Retry-After": str(math.ceil(error.retry_after))}
            return Response(429, headers=after)
        except Exception as error:  # noqa: BLE001 - `handle` has told the error handler
            return Response(_status(error))

    async def _item(self, path: str) -> Response:
        folder, _, number = path.rpartition("/")
        plain = number.isascii() and number.isdecimal() and len(number) <= 9
        if folder != "/items" or not plain or int(number) >= ITEMS:
            return Response(404)
        body = await self.cache.get_or_set(number, lambda: self._make(int(number)))
        return Response(200, body, JSON)

    async def _make(self, number: int) -> bytes:
        left = await self.stock.count(number)
        return await self.executor.run_in_thread(make_item, number, left)


def make_item(number: int, left: int) -> bytes:
    """Work hard on one item."""
    digest = hashlib.pbkdf2_hmac("sha256", b"%d" % number, b"mtaio", ROUNDS)
    item = {"item": number, "left": left, "digest": digest.hex()}
    return json.dumps(item).encode()


def setup_logging(settings: Settings) -> AsyncFileHandler:
    """The guide's rotating log; returned so that it can be closed last."""
    handler = AsyncFileHandler(
        filename=settings.log_file,
        max_bytes=settings.log_max_bytes,
        backup_count=settings.log_backup_count,
    )
    handler.setFormatter(
        logging.Formatter("%(asctime)s - %(name)s - %(levelname)s - %(message)s")
    )
    logger.setLevel(settings.log_level)
    logger.addHandler(handler)
    return handler


def reload_settings() -> None:
    """At SIGHUP: what can change without a restart."""
    logger.setLevel(Settings.from_env().log_level)


def _status(error: Exception) -> int:
    known = ((StockError, 502), (ApplicationError, 503), (TimeoutError, 504))
    return next((status for kind, status in known if isinstance(error, kind)), 500)
