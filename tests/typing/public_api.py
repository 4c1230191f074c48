"""What type checkers infer for users of the public API; checked, never run.

`make lint` runs mypy over this file with `strict`: an `assert_type` that no longer
holds, or an `ignore` that is no longer needed because a misuse passes, is an error.
"""

import logging
from typing import assert_type

from mtaio import MTAIOError
from mtaio.app import Application, ErrorHandler, ExitCode, Phase
from mtaio.cache import CacheStats, EvictionPolicy, TTLCache
from mtaio.config import Settings
from mtaio.core import TaskExecutor
from mtaio.events import Event, EventEmitter
from mtaio.exceptions import RateLimitError, SettingsError
from mtaio.health import HealthMonitor, Result, Status
from mtaio.logging import AsyncFileHandler, LogStats
from mtaio.monitoring import ResourceMonitor, SystemStats
from mtaio.resources import (
    ConcurrencyLimiter,
    RateLimiter,
    RateLimiterStats,
    TimeoutManager,
)


async def limits(limiter: RateLimiter, places: ConcurrencyLimiter) -> None:
    assert_type(limiter.try_acquire(), bool)
    assert_type(limiter.retry_after(2), float)
    assert_type(limiter.stats(), RateLimiterStats)
    await limiter.acquire()
    await limiter.acquire(3, timeout=0.5)
    async with limiter, places, places.acquire(timeout=1.0):
        pass

    @limiter.limit
    async def plain(user: str, *, retries: int = 3) -> bytes:
        return user.encode() * retries

    @limiter.limit(tokens=2)
    async def dear(user: str) -> bytes:
        return user.encode()

    @places.limit
    async def bounded() -> int:
        return 1

    assert_type(await plain("ada", retries=2), bytes)
    assert_type(await dear("ada"), bytes)
    assert_type(await bounded(), int)
    await plain(7)  # type: ignore[arg-type]
    await dear()  # type: ignore[call-arg]
    await limiter.acquire("3")  # type: ignore[arg-type]
    RateLimiter()  # type: ignore[call-arg]


async def timeouts(manager: TimeoutManager, executor: TaskExecutor) -> None:
    async def answer() -> int:
        return 42

    assert_type(await manager.run(answer()), int)
    assert_type(await manager.run(answer(), timeout=1.0), int)
    assert_type(await executor.run(answer()), int)
    assert_type(await executor.run_in_thread(len, "abc"), int)
    async with executor as same:
        assert_type(same, TaskExecutor)
    await executor.run_in_thread(len, 3)  # type: ignore[arg-type]
    await manager.run(answer)  # type: ignore[arg-type]


async def cache(names: TTLCache[str]) -> None:
    assert_type(TTLCache[str](default_ttl=1.0), TTLCache[str])
    assert_type(await names.get("a"), str | None)
    assert_type(await names.get("a", 0), str | int)
    assert_type(names.get_nowait("a"), str | None)
    assert_type(names.stats(), CacheStats)
    assert_type(names.stats().hit_rate, float)
    assert_type(await names.get_or_set("a", lambda: "b"), str)
    assert_type(names.get_or_set_blocking("a", lambda: "b"), str)

    @names.cached
    async def one(number: int) -> str:
        return str(number)

    @names.cached(ttl=1.0)
    def other(number: int) -> str:
        return str(number)

    assert_type(await one(1), str)
    assert_type(other(1), str)
    other("a")  # type: ignore[arg-type]
    assert_type(await names.delete(names.key_of(one, 1)), bool)
    names.key_of(one, "a")  # type: ignore[arg-type]
    async with names as same:
        assert_type(same, TTLCache[str])
    await names.set("a", 1)  # type: ignore[arg-type]
    TTLCache[str](eviction_policy=EvictionPolicy.LRU)
    TTLCache[str](eviction_policy="lru")  # type: ignore[arg-type]


async def log(handler: AsyncFileHandler) -> None:
    logging.getLogger().addHandler(handler)
    assert_type(await handler.flush(), bool)
    assert_type(await handler.aclose(), bool)
    assert_type(handler.stats(), LogStats)
    AsyncFileHandler("app.log", mode="b")  # type: ignore[arg-type]


async def monitoring(monitor: ResourceMonitor) -> None:
    stats = await monitor.get_current_stats()
    assert_type(stats, SystemStats)
    assert_type(stats.cpu.usage_percent, float | None)
    assert_type(stats.uptime, float)
    assert_type(monitor.get_history()[0], SystemStats)

    @monitor.on_threshold_exceeded
    async def alert(metric: str, value: float, threshold: float) -> None: ...

    await alert("cpu_usage", 1.0, 2.0)
    stats.uptime = 1.0  # type: ignore[misc]


async def events(emitter: EventEmitter) -> None:
    @emitter.on("user.*")
    async def greet(event: Event[str]) -> None:
        assert_type(event.data, str)

    assert_type(emitter.remove_listener("user.*", greet), bool)
    await emitter.emit("user.login", "ada")


async def health(monitor: HealthMonitor) -> None:
    @monitor.check("database", kind="ready", timeout=1.0)
    async def database() -> bool:
        return True

    assert_type(await database(), bool)
    assert_type(await monitor.run_check("database"), Result)
    assert_type(Result(Status.HEALTHY).status, Status)
    assert_type(monitor.ready, bool)


async def application(app: Application, handler: ErrorHandler) -> None:
    async def work() -> list[int]:
        return [1]

    assert_type(await app.handle(work), list[int])
    assert_type(app.phase, Phase)
    assert_type(await app.run(), ExitCode)
    assert_type(handler.counts(), dict[str, int])
    async with app.request():
        pass
    await app.handle(work())  # type: ignore[arg-type]


def settings() -> None:
    found = Settings.from_env({"MTAIO_RATE_LIMIT": "5"})
    assert_type(found.rate_limit, float)
    assert_type(found.burst_limit, int)


def errors(error: MTAIOError) -> None:
    if isinstance(error, RateLimitError):
        assert_type(error.retry_after, float)
    if isinstance(error, SettingsError):
        assert_type(error.faults, tuple[str, ...])
