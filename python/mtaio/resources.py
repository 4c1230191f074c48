"""Limits: how often, how many at once, how long.

`RateLimiter` and `KeyedRateLimiter` bound a rate, `ConcurrencyLimiter` a number
at once, `ResourceLimiter` both. Every limiter may be shared by all threads and
event loops of the process.
"""

from ._concurrency import (
    ConcurrencyLimiter,
    ConcurrencyLimiterStats,
    ResourceLimiter,
)
from ._rate import KeyedRateLimiter, RateLimiter, RateLimiterStats

__all__ = (
    "ConcurrencyLimiter",
    "ConcurrencyLimiterStats",
    "KeyedRateLimiter",
    "RateLimiter",
    "RateLimiterStats",
    "ResourceLimiter",
)
