"""Limits: how often, how many at once, how long.

`RateLimiter` and `KeyedRateLimiter` bound a rate, `ConcurrencyLimiter` a number
at once, `ResourceLimiter` both. Every limiter may be shared by all threads and
event loops of the process. `TimeoutManager`, `TimeoutContext` and `TimeoutGroup`
bound the time.
"""

from ._concurrency import (
    ConcurrencyLimiter,
    ConcurrencyLimiterStats,
    ResourceLimiter,
)
from ._rate import KeyedRateLimiter, RateLimiter, RateLimiterStats
from ._timeout_group import TimeoutGroup
from ._timeouts import TimeoutContext, TimeoutManager

__all__ = (
    "ConcurrencyLimiter",
    "ConcurrencyLimiterStats",
    "KeyedRateLimiter",
    "RateLimiter",
    "RateLimiterStats",
    "ResourceLimiter",
    "TimeoutContext",
    "TimeoutGroup",
    "TimeoutManager",
)
