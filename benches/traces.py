"""Traces of keys: the shapes of traffic that tell eviction policies apart.

Each returns a list of ints, the same one for the same arguments.
"""

import random
from itertools import accumulate


def zipf(length: int, keys: int, skew: float, seed: int = 1) -> list[int]:
    """Key `n` is asked for in proportion to `1 / (n + 1) ** skew`."""
    chances = list(accumulate(1 / (n + 1) ** skew for n in range(keys)))
    return random.Random(seed).choices(range(keys), cum_weights=chances, k=length)


def loop(length: int, keys: int) -> list[int]:
    """All keys in turn, over and over: the worst case of LRU."""
    return [n % keys for n in range(length)]


def scans(length: int, keys: int, skew: float, scan: int, seed: int = 1) -> list[int]:
    """Zipf traffic, and every `2 * scan` requests a scan over `scan` new keys."""
    hot = iter(zipf(length, keys, skew, seed))
    trace: list[int] = []
    fresh = keys
    while len(trace) < length:
        trace.extend(next(hot) for _ in range(2 * scan))
        trace.extend(range(fresh, fresh + scan))
        fresh += scan
    return trace[:length]


def shifting(
    length: int, keys: int, skew: float, period: int, seed: int = 1
) -> list[int]:
    """Zipf traffic whose hot set moves to other keys every `period` requests."""
    hot = zipf(length, keys, skew, seed)
    return [(key + n // period * keys // 7) % keys for n, key in enumerate(hot)]
