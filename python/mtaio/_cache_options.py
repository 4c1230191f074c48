"""What a cache is told and what it tells: policies, figures, argument checks."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from inspect import (
    isasyncgenfunction,
    iscoroutinefunction,
    isgeneratorfunction,
    ismodule,
)
from typing import Any

__all__ = (
    "CacheStats",
    "EvictionPolicy",
    "check_cached",
    "check_codec",
    "check_hooks",
    "check_key",
    "check_policy",
    "key_of_call",
    "key_of_calls",
    "nothing",
)


class EvictionPolicy(Enum):
    """Who leaves a full cache first.

    `S3FIFO` (the default) reads like FIFO but gives what is read again a second
    life: the best hit ratio on skewed traffic, and a scan does not flush it
    (Yang et al., SOSP 2023). `LRU`: least recently used. `LFU`: least often used,
    among equals the least recent. `FIFO`: oldest.
    """

    S3FIFO = "s3fifo"
    LRU = "lru"
    LFU = "lfu"
    FIFO = "fifo"


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counted since the cache was made; `items` and `weight` are of now.

    Attributes:
        hits: Reads that found a live value.
        misses: Reads that found none.
        evictions: Entries that left for want of room.
        expirations: Entries that left because their time was over.
        loads: Computations of `get_or_set` and `@cached`.
        load_errors: Those of them that raised.
        items: Entries held; some may be expired and not swept yet.
        weight: The sum of their weights; 0 without `weigher`.
    """

    hits: int
    misses: int
    evictions: int
    expirations: int
    loads: int
    load_errors: int
    items: int
    weight: int

    @property
    def hit_rate(self) -> float:
        """Hits per read, 0.0 to 1.0; 0.0 before the first read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0


def check_policy(policy: object) -> None:
    if not isinstance(policy, EvictionPolicy):
        raise TypeError(f"eviction_policy must be an EvictionPolicy, got {policy!r}")


def check_hooks(on_evicted: object, weigher: object, max_weight: object) -> None:
    for name, hook in (("on_evicted", on_evicted), ("weigher", weigher)):
        if iscoroutinefunction(hook):
            raise TypeError(f"{name} must be a plain function, got {hook!r}")
    if (weigher is None) != (max_weight is None):
        raise ValueError("weigher and max_weight must be given together")


def check_codec(name: str, codec: Any) -> None:
    if codec is not None and not callable(codec):
        raise TypeError(f"{name} must be callable or None, got {codec!r}")


def check_key(key: object) -> None:
    if key is not None and not callable(key):
        raise TypeError(f"key must be callable or None, got {key!r}")
    if iscoroutinefunction(key):
        raise TypeError(f"key must be a plain function, got {key!r}")


def check_cached(function: object) -> None:
    if not callable(function):
        raise TypeError(f"cached needs a function, got {function!r}")
    if isgeneratorfunction(function) or isasyncgenfunction(function):
        raise TypeError(f"cached needs no generator function, got {function!r}")


def _call_key(who: Hashable, /, *args: Any, **kwargs: Any) -> Hashable:
    return (who, args, *sorted(kwargs.items()))


def key_of_calls(function: Any) -> Callable[..., Hashable]:
    name = getattr(function, "__qualname__", "<nameless>")
    owner = getattr(function, "__self__", None)  # a module, for built-in functions
    # Local functions and lambdas share their names, methods those of all objects.
    own = "<" not in name and (owner is None or ismodule(owner))
    return partial(_call_key, f"{function.__module__}.{name}" if own else function)


def key_of_call(function: Any, /, *args: Any, **kwargs: Any) -> Hashable:
    key_of = getattr(function, "_cache_key_of", None)
    if key_of is None:
        raise TypeError(f"function must be one that `cached` made, got {function!r}")
    owner = getattr(function, "__self__", None)
    call = args if owner is None else (owner, *args)
    key: Hashable = key_of(*call, **kwargs)
    return key


def nothing() -> None:
    """A factory for arguments that are only checked."""
