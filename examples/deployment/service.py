"""The guide's `main()`, with a workload: what is wired to what."""

import asyncio
import hashlib
import json
import logging
import math
import time

from mtaio.app import Application, ErrorHandler, ExitCode, Phase
from mtaio.cache import TTLCache
from mtaio.config import Settings
from mtaio.core import TaskExecutor
from mtaio.exceptions import ApplicationError, RateLimitError
from mtaio.health import (
    HealthMonitor,
    cache_loads,
    log_writer,
    loop_lag,
    saturation,
)
from mtaio.logging import AsyncFileHandler
from mtaio.monitoring import ProbeServer
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager

from .figures import Figures
from .http import Request, Response, Server
from .load import ITEMS, Load

logger = logging.getLogger("mtaio")
access = logging.getLogger("mtaio.access")

# What one item costs to make: about 5 ms of a core.
ROUNDS = 10_000
JSON = {"Content-Type": "application/json"}


class Deployment:
    """Items that are dear to make, served through limits from a cache."""

    def __init__(self, settings: Settings, log: AsyncFileHandler) -> None:
        self.probes = ProbeServer(settings.probe_host, settings.probe_port)
        self.health = HealthMonitor(
            probes=self.probes,
            cpu_threshold=settings.cpu_threshold,
            memory_threshold=settings.memory_threshold,
        )
        self.limiter = RateLimiter(rate=settings.rate_limit, burst=settings.burst_limit)
        self.errors = ErrorHandler()
        self.app = Application(
            rate_limiter=self.limiter,
            concurrency_limiter=ConcurrencyLimiter(limit=settings.concurrency_limit),
            timeout_manager=TimeoutManager(default_timeout=settings.default_timeout),
            error_handler=self.errors,
            health=self.health,
            drain_delay=settings.drain_delay,
            grace_period=settings.grace_period,
        )
        self.cache: TTLCache[bytes] = TTLCache(
            default_ttl=settings.cache_ttl, max_size=settings.cache_size
        )
        self.executor = TaskExecutor(max_workers=settings.max_workers)
        self.server = Server(self.answer, leaving=self.is_leaving)
        self.load = Load(self.server, clients=40, pause=0.2)
        self.figures = Figures(
            health=self.health,
            limiter=self.limiter,
            cache=self.cache,
            log=log,
            load=self.load,
        )
        self.app.on_reload(reload_settings)
        self._add_checks(log)
        self._add_components()

    async def run(self) -> ExitCode:
        """Serve until asked to stop."""
        self.errors.install()
        await self.app.start()
        logger.info("started on port %d", self.server.port)
        root = f"http://127.0.0.1:{self.server.port}"
        print(f"serving {root}/items/1 and {root}/health", flush=True)
        print(f"probes at {self.probes.url}/livez /readyz /metrics", flush=True)
        code = await self.app.run()
        logger.info("stopped: %s", code.name)
        return code

    async def answer(self, request: Request) -> Response:
        """Answer through the limits, and log it: each request exactly once."""
        begun = time.perf_counter()
        response = await self._respond(request)
        took = (time.perf_counter() - begun) * 1000
        access.info("%s %s %d %.1f ms", request.id, request.path, response.status, took)
        return response

    def is_leaving(self) -> bool:
        """Clients are better told to go elsewhere."""
        return self.app.phase is not Phase.READY

    def _add_checks(self, log: AsyncFileHandler) -> None:
        self.health.check("loop", critical=False)(loop_lag(self.health.monitor))
        self.health.check("log", critical=False)(log_writer(log))
        self.health.check("limiter", critical=False)(saturation(self.limiter))
        self.health.check("cache", critical=False)(cache_loads(self.cache))

    def _add_components(self) -> None:
        self.app.add("probes", self.probes)
        self.app.add("health", self.health, depends_on=["probes"])
        self.app.add("executor", self.executor)
        self.app.add("cache", self.cache)
        self.app.add("server", self.server, depends_on=["executor", "cache", "health"])
        self.app.add("load", self.load, depends_on=["server"])
        self.app.add("figures", self.figures, depends_on=["load"])

    async def _respond(self, request: Request) -> Response:
        if request.path == "/health":
            status = await self.health.get_health_status()
            return Response(200, json.dumps(status).encode(), JSON)
        try:
            return await self.app.handle(lambda: self._item(request.path))
        except RateLimitError as error:
            after = {"Retry-After": str(math.ceil(error.retry_after))}
            return Response(429, headers=after)
        except TimeoutError:
            return Response(504)
        except ApplicationError:
            return Response(503)
        except Exception:  # noqa: BLE001 - `handle` has told the error handler
            return Response(500)

    async def _item(self, path: str) -> Response:
        folder, _, number = path.rpartition("/")
        plain = number.isascii() and number.isdecimal() and len(number) <= 9
        if folder != "/items" or not plain or int(number) >= ITEMS:
            return Response(404)
        body = await self.cache.get_or_set(
            number, lambda: self.executor.run_in_thread(make_item, int(number))
        )
        return Response(200, body, JSON)


def make_item(number: int) -> bytes:
    """Work hard on one item."""
    digest = hashlib.pbkdf2_hmac("sha256", b"%d" % number, b"mtaio", ROUNDS)
    return json.dumps({"item": number, "digest": digest.hex()}).encode()


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


async def deploy(settings: Settings) -> ExitCode:
    """Run the deployment until it is asked to stop, or `demo_seconds` are over."""
    log = setup_logging(settings)
    try:
        deployment = Deployment(settings, log)
        if settings.demo_seconds:
            loop = asyncio.get_running_loop()
            loop.call_later(settings.demo_seconds, deployment.app.request_stop)
        code = await deployment.run()
    finally:
        logger.removeHandler(log)
        await log.aclose()
    print(deployment.figures.summary(), flush=True)
    return code
