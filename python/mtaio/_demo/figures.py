"""One live line of figures."""

import asyncio
import sys

from mtaio.cache import TTLCache
from mtaio.health import HealthMonitor
from mtaio.logging import AsyncFileHandler
from mtaio.resources import RateLimiter

from .load import Load


class Figures:
    """Prints a line a second; on a terminal it is always the same line."""

    def __init__(
        self,
        *,
        health: HealthMonitor,
        limiter: RateLimiter,
        cache: TTLCache[bytes],
        log: AsyncFileHandler,
        load: Load,
    ) -> None:
        self._health = health
        self._limiter = limiter
        self._cache = cache
        self._log = log
        self._load = load
        self._answered = 0

    async def print_for_ever(self) -> None:
        """Print until cancelled, then end the line."""
        end = {"end": "\r"} if sys.stdout.isatty() else {}
        try:
            while True:
                await asyncio.sleep(1)
                print(await self._line(), flush=True, **end)  # type: ignore[call-overload]
        finally:
            if end:
                print()

    def summary(self) -> str:
        """What was done in all."""
        answers = self._load.answers
        told = ", ".join(f"{answers[status]} x {status}" for status in sorted(answers))
        return (
            f"asked and answered {answers.total()} ({told}), "
            f"closed unread {self._load.unanswered}, "
            f"cache hits {self._cache.stats().hit_rate:.1%}, "
            f"log lines {self._log.stats().written}"
        )

    async def _line(self) -> str:
        health = await self._health.get_health_status()
        limits = self._limiter.stats()
        answered = self._load.answers.total()
        rate, self._answered = answered - self._answered, answered
        return (
            f"{health['status']:9} cpu {health['cpu_usage']:5.1f} %  "
            f"memory {health['memory_usage']:5.1f} %  {rate:5d} req/s  "
            f"waiting {limits.waiting:3d}  "
            f"refused {limits.refused:4d}  "
            f"hits {self._cache.stats().hit_rate:6.1%}  "
            f"log {self._log.stats().written:6d} lines"
        )
