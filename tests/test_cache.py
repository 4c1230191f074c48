"""`TTLCache`: what a caller sees, on a clock that a test moves."""

import asyncio
import gc
import math
import weakref

import pytest

from mtaio.cache import (
    EvictionPolicy,
    TTLCache,
    TTLFIFOCache,
    TTLLFUCache,
    TTLLRUCache,
)
from mtaio.exceptions import CacheError, CacheKeyError


def held(cache):
    return dict(cache.items_nowait())


async def test_a_value_lives_until_its_ttl_and_not_longer(clock):
    cache = TTLCache[str](default_ttl=10.0, clock=clock)
    await cache.set("default", "a")
    await cache.set("short", "b", ttl=1.0)

    clock.advance(0.999)
    assert await cache.get("short") == "b"
    clock.advance(0.001)
    assert await cache.get("short") is None
    assert await cache.get("short", "gone") == "gone"
    clock.advance(8.999)
    assert await cache.get("default") == "a"
    clock.advance(0.001)
    assert await cache.get("default") is None


async def test_no_default_ttl_is_for_ever(clock):
    cache = TTLCache[int](default_ttl=None, clock=clock)
    await cache.set("key", 1)

    clock.advance(1e9)

    assert await cache.get("key") == 1


async def test_set_again_starts_the_time_anew(clock):
    cache = TTLCache[int](default_ttl=10.0, clock=clock)
    await cache.set("key", 1)
    clock.advance(9.0)
    await cache.set("key", 2)
    clock.advance(9.0)

    assert await cache.get("key") == 2


async def test_touch_moves_the_end_of_a_live_entry_only(clock):
    cache = TTLCache[int](default_ttl=10.0, clock=clock)
    await cache.set("key", 1)

    assert await cache.touch("key", ttl=20.0)
    clock.advance(19.0)
    assert await cache.get("key") == 1
    assert await cache.touch("key")
    clock.advance(10.0)
    assert not await cache.touch("key")
    assert not await cache.touch("absent")


async def test_add_stores_only_where_nothing_lives(clock):
    cache = TTLCache[int](default_ttl=10.0, clock=clock)

    assert await cache.add("key", 1)
    assert not await cache.add("key", 2)
    assert await cache.get("key") == 1
    clock.advance(10.0)
    assert await cache.add("key", 3)
    assert await cache.get("key") == 3


async def test_delete_and_pop_take_out_what_lives(clock):
    cache = TTLCache[int](default_ttl=10.0, clock=clock)
    await cache.set_many({"a": 1, "b": 2, "c": 3, "old": 4})

    assert await cache.delete("a")
    assert not await cache.delete("a")
    assert await cache.pop("b") == 2
    assert await cache.pop("b", None) is None
    with pytest.raises(CacheKeyError) as caught:
        await cache.pop("b")
    assert caught.value.args == ("b",)
    assert await cache.delete_many(["c", "absent"]) == 1
    clock.advance(10.0)
    assert not await cache.delete("old")
    with pytest.raises(KeyError):
        cache.pop_nowait("old")
    assert len(cache) == 0


async def test_many_at_once_are_as_one_by_one(clock):
    cache = TTLCache[int](clock=clock)

    await cache.set_many({"a": 1, "b": 2}, ttl=5.0)

    assert await cache.get_many(["a", "b", "c"]) == {"a": 1, "b": 2, "c": None}
    assert await cache.get_many(iter("ac"), default=0) == {"a": 1, "c": 0}
    clock.advance(5.0)
    assert await cache.get_many(["a"]) == {"a": None}


async def test_the_container_protocol_shows_what_lives(clock):
    cache = TTLCache[int](clock=clock)
    await cache.set_many({"a": 1, "b": 2})
    await cache.set("old", 3, ttl=1.0)
    clock.advance(1.0)

    assert "a" in cache
    assert "old" not in cache
    assert sorted(cache) == ["a", "b"]
    assert sorted(await cache.items()) == [("a", 1), ("b", 2)]
    before = cache.stats()
    assert before.hits == before.misses == 0


async def test_clear_empties_and_the_cache_goes_on():
    cache = TTLCache[int](max_size=10)
    await cache.set_many(dict.fromkeys(range(10), 0))

    await cache.clear()

    assert len(cache) == 0
    assert await cache.get(1) is None
    await cache.set(1, 1)
    assert await cache.get(1) == 1


KEYS = [
    "text",
    "ünï",
    b"bytes",
    7,
    -1,
    2**80,
    1.5,
    ("tuple", 1),
    None,
    True,
    frozenset({1}),
    print,
]


@pytest.mark.parametrize("key", KEYS, ids=repr)
def test_any_hashable_object_is_a_key(key):
    cache = TTLCache[str]()
    cache.set_nowait(key, "value")

    assert cache.get_nowait(key) == "value"
    assert key in cache
    assert cache.delete_nowait(key)
    assert key not in cache


def test_keys_are_equal_as_in_a_dict():
    cache = TTLCache[str]()
    model = {}
    for key in (1, 1.0, True, "1", b"1", (1,), (1.0,), 2**61 - 1 + 1):
        cache.set_nowait(key, repr(key))
        model[key] = repr(key)

    assert held(cache) == model
    assert cache.get_nowait(True) == model[1]


@pytest.mark.parametrize("method", ["get", "delete", "touch", "pop", "__contains__"])
def test_an_unhashable_key_is_a_type_error(method):
    cache = TTLCache[int]()
    name = method if method.startswith("_") else f"{method}_nowait"

    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        getattr(cache, name)([])


@pytest.mark.parametrize("shards", [1, 3, 8])
@pytest.mark.parametrize("policy", list(EvictionPolicy))
def test_the_size_is_never_above_the_bound(policy, shards):
    cache = TTLCache[int](max_size=8, eviction_policy=policy, shards=shards)

    for key in range(100):
        cache.set_nowait(key, key)
        assert len(cache) <= 8
    if shards == 1:
        assert len(cache) == 8
        assert cache.stats().evictions == 92


def test_lru_evicts_the_least_recently_used():
    cache = TTLLRUCache[int](max_size=3)
    cache.set_many_nowait({"a": 1, "b": 2, "c": 3})
    cache.get_nowait("a")
    cache.set_nowait("b", 2)
    cache.set_nowait("d", 4)

    assert sorted(cache) == ["a", "b", "d"]


def test_lfu_evicts_the_least_often_used_then_the_least_recent():
    cache = TTLLFUCache[int](max_size=3)
    cache.set_many_nowait({"a": 1, "b": 2, "c": 3})
    for _ in range(3):
        cache.get_nowait("a")
    cache.get_nowait("c")
    cache.get_nowait("b")
    cache.set_nowait("d", 4)  # in place of c: used as often as b, but before it
    cache.set_nowait("e", 5)  # in place of d: used once

    assert sorted(cache) == ["a", "b", "e"]


def test_fifo_evicts_the_oldest_however_used():
    cache = TTLFIFOCache[int](max_size=3)
    cache.set_many_nowait({"a": 1, "b": 2, "c": 3})
    for _ in range(3):
        cache.get_nowait("a")
    cache.set_nowait("a", 1)
    cache.set_nowait("d", 4)

    assert sorted(cache) == ["b", "c", "d"]


def test_a_scan_does_not_flush_the_default_policy():
    cache = TTLCache[int](max_size=100)
    hot = range(50)
    for _ in range(4):
        for key in hot:
            if cache.get_nowait(key) is None:
                cache.set_nowait(key, key)

    for key in range(1000, 3000):
        cache.set_nowait(key, key)

    assert sum(key in cache for key in hot) >= 45


def test_weight_is_bounded_and_what_is_too_heavy_is_not_kept():
    left = []
    cache = TTLCache[bytes](
        weigher=lambda _, value: len(value),
        max_weight=10,
        on_evicted=lambda *gone: left.append(gone),
    )
    cache.set_nowait("a", b"1234")
    cache.set_nowait("b", b"1234")
    assert cache.stats().weight == 8
    cache.set_nowait("c", b"1234")
    assert cache.stats().weight == 8
    cache.set_nowait("c", b"12345678901")

    assert left == [
        ("a", b"1234", "size"),
        ("c", b"1234", "replaced"),
        ("c", b"12345678901", "size"),
    ]
    assert held(cache) == {"b": b"1234"}
    cache.set_nowait("b", b"1234567890")
    assert held(cache) == {"b": b"1234567890"}
    assert cache.stats().weight == 10


@pytest.mark.parametrize("weight", [-1, 1.0, True, None])
def test_a_bad_weight_is_an_error_and_nothing_is_set(weight):
    cache = TTLCache[int](weigher=lambda *_: weight, max_weight=10)

    with pytest.raises((TypeError, ValueError), match="weigher"):
        cache.set_nowait("key", 1)
    assert len(cache) == 0


def test_the_hook_hears_of_each_that_left_and_why(clock):
    left = []
    cache = TTLCache[int](
        max_size=2,
        eviction_policy=EvictionPolicy.FIFO,
        on_evicted=lambda *gone: left.append(gone),
        clock=clock,
    )
    cache.set_nowait("a", 1, ttl=1.0)
    cache.set_nowait("a", 2, ttl=1.0)
    clock.advance(1.0)
    cache.get_nowait("a")
    cache.set_many_nowait({"b": 3, "c": 4, "d": 5})
    cache.delete_nowait("c")
    cache.set_nowait("e", 6)
    cache.pop_nowait("e")
    cache.clear_nowait()

    assert left == [
        ("a", 1, "replaced"),
        ("a", 2, "expired"),
        ("b", 3, "size"),
        ("c", 4, "deleted"),
        ("d", 5, "deleted"),
    ]


@pytest.mark.parametrize("weight", [2, 8, 80])
def test_what_had_expired_when_it_was_replaced_counts_as_expired(clock, weight):
    left = []
    cache = TTLCache[int](
        weigher=lambda _, value: value,
        max_weight=10,
        on_evicted=lambda *gone: left.append(gone),
        clock=clock,
    )
    cache.set_nowait("b", 4, ttl=9.0)
    cache.set_nowait("a", 1, ttl=1.0)
    clock.advance(1.0)

    cache.set_nowait("a", weight)

    assert left[0] == ("a", 1, "expired")
    assert cache.stats().expirations == 1


def test_stats_count_what_happened(clock):
    cache = TTLCache[int](default_ttl=1.0, max_size=2, clock=clock)
    assert cache.stats().hit_rate == 0.0
    cache.set_many_nowait({"a": 1, "b": 2, "c": 3})
    hits = [cache.get_nowait(key) for key in "abc"]
    clock.advance(1.0)
    cache.get_nowait("c")

    stats = cache.stats()

    assert sum(hit is not None for hit in hits) == stats.hits == 2
    assert stats.misses == 2
    assert stats.evictions == 1
    assert stats.expirations == 1
    assert stats.hit_rate == 0.5
    assert stats.items == 1


SECONDS = [0, -1, -0.5, math.nan, math.inf, True, "1", [1]]


@pytest.mark.parametrize("seconds", SECONDS)
def test_a_bad_ttl_is_an_error_everywhere(seconds):
    cache = TTLCache[int]()
    cache.set_nowait("key", 1)
    calls = [
        lambda: TTLCache[int](default_ttl=seconds),
        lambda: TTLCache[int](cleanup_interval=seconds),
        lambda: cache.set_nowait("key", 2, seconds),
        lambda: cache.add_nowait("new", 2, seconds),
        lambda: cache.touch_nowait("key", seconds),
        lambda: cache.set_many_nowait({"key": 2}, seconds),
        lambda: cache.set_many_nowait({}, seconds),
        lambda: cache.cached(ttl=seconds),
        lambda: asyncio.run(cache.get_or_set("key", int, seconds)),
    ]
    for call in calls:
        with pytest.raises((TypeError, ValueError), match="must be a finite number >"):
            call()
    assert held(cache) == {"key": 1}


@pytest.mark.parametrize("name", ["max_size", "shards", "max_weight"])
@pytest.mark.parametrize("value", [0, -1, True, 1.0, math.nan, "1", 2**64])
def test_a_bad_bound_is_an_error(name, value):
    options = {"weigher": len} if name == "max_weight" else {}

    with pytest.raises((TypeError, ValueError), match=rf"{name} must be an int >= 1"):
        TTLCache[int](**{name: value}, **options)


@pytest.mark.parametrize("size", [10**12, 2**63, 2**64 - 1])
def test_a_bound_beyond_all_memory_costs_none(size):
    cache = TTLCache[int](max_size=size)

    cache.set_nowait("key", 1)

    assert cache.get_nowait("key") == 1
    assert cache._shards <= 4096
    with pytest.raises(ValueError, match="shards must be an int from 1 to 4096"):
        TTLCache[int](shards=size)


@pytest.mark.parametrize("items", [[("a", 1)], 1, None, "text"])
def test_many_items_must_be_a_mapping(items):
    with pytest.raises(TypeError, match="items must be a mapping"):
        TTLCache[int]().set_many_nowait(items)


@pytest.mark.parametrize("method", ["get_many_nowait", "delete_many_nowait"])
def test_many_keys_must_be_iterable(method):
    with pytest.raises(TypeError, match="keys must be an iterable, got 5"):
        getattr(TTLCache[int](), method)(5)


@pytest.mark.parametrize("kind", [TTLLRUCache, TTLLFUCache, TTLFIFOCache])
def test_a_cache_named_by_its_policy_needs_a_bound(kind):
    assert len(kind(5, default_ttl=1.0)) == 0
    for bad in (None, 0, True):
        with pytest.raises((TypeError, ValueError), match="max_size must be"):
            kind(bad)


async def _coroutine(*_):
    """Not a hook."""


BAD_OPTIONS = [
    ({"eviction_policy": "lru"}, "eviction_policy must be an EvictionPolicy"),
    ({"on_evicted": 1}, "on_evicted must be callable"),
    ({"on_evicted": _coroutine}, "on_evicted must be a plain function"),
    ({"weigher": 1, "max_weight": 1}, "weigher must be callable"),
    ({"weigher": len}, "given together"),
    ({"max_weight": 1}, "given together"),
    ({"clock": 1.0}, "clock must be callable"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_a_bad_option_is_named(options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        TTLCache[int](**options)


def test_pop_takes_one_default():
    with pytest.raises(TypeError, match="at most one default"):
        TTLCache[int]().pop_nowait("key", 1, 2)


def test_a_bad_clock_is_an_error():
    cache = TTLCache[int](clock=lambda: math.nan)
    with pytest.raises(ValueError, match=r"clock\(\) must return"):
        cache.set_nowait("key", 1)


def test_a_subclass_and_a_type_argument_are_only_for_types():
    class Sessions(TTLCache[dict]):
        """A subclass may add what it likes."""

        def __init__(self, *args, **kwargs):
            self.extra = 1

    sessions = Sessions(max_size=1)
    sessions.set_nowait("a", {})

    assert sessions.extra == 1
    assert sessions.get_nowait("a") == {}


class Node:
    """Collectable, and refers to its cache."""

    def __init__(self, cache):
        self.cache = cache


def test_a_value_that_refers_to_its_cache_is_freed():
    cache = TTLCache[Node]()
    node = Node(cache)
    cache.set_nowait("node", node)
    alive = weakref.ref(node), weakref.ref(cache)
    del node, cache

    gc.collect()

    assert [ref() for ref in alive] == [None, None]


def test_a_hook_that_refers_to_its_cache_is_freed():
    class Watched(TTLCache[int]):
        def left(self, *_):
            """A bound method can't be cleared, so the cache must let go of it."""

    def hook(*_):
        """Refers to the cache that holds it."""

    hook.cache = Watched(on_evicted=hook)
    alive = weakref.ref(hook.cache)
    del hook

    gc.collect()

    assert alive() is None


def test_without_its_cycle_a_cache_is_freed_at_once():
    gc.disable()
    try:
        cache = TTLCache[int]()
        cache.set_nowait("key", 1)
        alive = weakref.ref(cache)
        del cache
        assert alive() is None
    finally:
        gc.enable()


async def test_maintenance_frees_what_nobody_touches(clock):
    async with TTLCache[int](
        default_ttl=1.0, cleanup_interval=0.01, clock=clock
    ) as cache:
        await cache.set_many(dict.fromkeys(range(20_000), 0))
        clock.advance(1.0)
        for _ in range(1000):
            if not len(cache):
                break
            await asyncio.sleep(0.005)

        assert len(cache) == 0
        assert cache.stats().expirations == 20_000


async def test_maintenance_ends_with_the_block_and_keeps_no_cache_alive():
    async with TTLCache[int]() as cache:
        before = len(asyncio.all_tasks())
    assert len(asyncio.all_tasks()) == before - 1
    await cache.stop()
    await cache.start()
    await cache.stop()


async def test_maintenance_started_by_two_at_once_is_one():
    cache, before = TTLCache[int](), len(asyncio.all_tasks())
    await cache.start()

    await asyncio.gather(cache.start(), cache.start(), cache.start())
    assert len(asyncio.all_tasks()) == before + 1
    await cache.stop()

    assert len(asyncio.all_tasks()) == before


def test_sets_sweep_what_expired_before_they_evict_what_lives(clock):
    cache = TTLCache[int](max_size=100, clock=clock)
    for key in range(50):
        cache.set_nowait(key, key, ttl=1.0)
    for key in range(50, 100):
        cache.set_nowait(key, key, ttl=100.0)
    clock.advance(1.0)

    for key in range(100, 140):
        cache.set_nowait(key, key, ttl=100.0)

    assert cache.stats().evictions == 0
    assert all(key in cache for key in range(50, 140))


def test_cache_errors_are_of_our_tree():
    assert issubclass(CacheKeyError, CacheError)
