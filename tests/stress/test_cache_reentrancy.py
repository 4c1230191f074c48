"""Keys, values and hooks that call back into the cache, raise or sleep, while
four threads use it: no deadlock, no lost error, and nobody waits for them."""

import faulthandler
import random
import sys
import threading
import time

import pytest

from mtaio.cache import EvictionPolicy, TTLCache

THREADS = 4
ROUNDS = 400
PATIENCE = 60.0


@pytest.fixture(autouse=True)
def watchdog():
    """A deadlock ends the run with every thread's stack instead of hanging it."""
    faulthandler.dump_traceback_later(2 * PATIENCE, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture(autouse=True)
def switch_often():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


class Refused(Exception):
    """What a hostile `__eq__` raises."""


class Key:
    """Collides with all its kind; comparing it does what `mischief` says."""

    __slots__ = ("mischief", "number")

    def __init__(self, number, mischief=None):
        self.number = number
        self.mischief = mischief

    def __hash__(self):
        return 7

    def __eq__(self, other):
        if not isinstance(other, Key):
            return NotImplemented
        for key in (self, other):
            if key.mischief is not None:
                key.mischief()
        return self.number == other.number


class Value:
    """Its end calls back into the cache."""

    __slots__ = ("cache",)

    def __init__(self, cache):
        self.cache = cache

    def __del__(self):
        self.cache.get_nowait("absent")
        self.cache.set_nowait("last", 1)


def together(work):
    """Run `work(at)` in every thread at once; raise what any of them raised."""
    errors = []
    start = threading.Barrier(THREADS)

    def run(at):
        try:
            start.wait()
            work(at)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(at,)) for at in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not any(thread.is_alive() for thread in threads), "deadlock"
    if errors:
        raise errors[0]


def play(cache, rng, key):
    """One random call."""
    number = rng.randrange(12)
    action = rng.randrange(6)
    if action == 0:
        cache.set_nowait(key(number), number)
    elif action == 1:
        got = cache.get_nowait(key(number))
        assert got is None or got == number
    elif action == 2:
        cache.delete_nowait(key(number))
    elif action == 3:
        cache.add_nowait(key(number), number)
    elif action == 4:
        assert key(number) != key(number + 100)
        assert cache.pop_nowait(key(number), number) == number
    else:
        cache.touch_nowait(key(number))


@pytest.mark.parametrize("policy", list(EvictionPolicy))
def test_colliding_keys_keep_their_values_and_the_bound(policy):
    cache = TTLCache[int](max_size=8, eviction_policy=policy)

    def work(at):
        rng = random.Random(at)
        for _ in range(ROUNDS):
            play(cache, rng, Key)
            assert len(cache) <= 8

    together(work)

    items = cache.items_nowait()
    assert all(key.number == value for key, value in items)
    assert len({key.number for key, _ in items}) == len(items)


def test_an_eq_that_uses_the_same_cache_deadlocks_nobody():
    cache = TTLCache[int](max_size=8)
    rng = random.Random(0)

    def mischief():
        cache.set_nowait(("plain", rng.randrange(4)), 1)
        cache.get_nowait("plain")
        if rng.random() < 0.02:
            cache.clear_nowait()

    def work(at):
        own = random.Random(at)
        for _ in range(ROUNDS // 4):
            play(cache, own, lambda number: Key(number, mischief))

    together(work)
    assert len(cache) <= 8


def test_an_eq_that_raises_reaches_its_caller_every_time():
    cache = TTLCache[int]()
    cache.set_nowait(Key(1), 1)

    def refuse():
        raise Refused

    calls = [
        lambda key: cache.get_nowait(key),
        lambda key: cache.set_nowait(key, 2),
        lambda key: cache.add_nowait(key, 2),
        lambda key: cache.delete_nowait(key),
        lambda key: cache.touch_nowait(key),
        lambda key: cache.pop_nowait(key),
        lambda key: key in cache,
    ]

    def work(at):
        for _ in range(ROUNDS // 4):
            for call in calls:
                with pytest.raises(Refused):
                    call(Key(2, refuse))

    together(work)
    assert [(key.number, value) for key, value in cache.items_nowait()] == [(1, 1)]


def test_a_hash_that_raises_reaches_its_caller():
    class Unhashable:
        def __hash__(self):
            raise Refused

    cache = TTLCache[int]()
    with pytest.raises(Refused):
        cache.get_nowait(Unhashable())
    with pytest.raises(Refused):
        cache.set_nowait(Unhashable(), 1)


def test_a_hash_that_uses_the_same_cache_is_served():
    class Nested:
        def __hash__(self):
            cache.set_nowait("inner", 1)
            return 1

    cache = TTLCache[int]()
    cache.set_nowait(Nested(), 2)

    assert cache.get_nowait("inner") == 1
    assert len(cache) == 2


def test_a_del_that_uses_the_same_cache_deadlocks_nobody():
    cache = TTLCache[object](max_size=4)

    def work(at):
        for number in range(ROUNDS):
            cache.set_nowait(number % 16, Value(cache))
            if number % 50 == 0:
                cache.clear_nowait()

    together(work)
    cache.clear_nowait()
    assert len(cache) <= 4


def test_a_key_that_dies_while_it_is_compared_is_let_go_outside_the_lock():
    class Dying(Key):
        __slots__ = ("cache",)

        def __del__(self):
            self.cache.get_nowait("anything")

    cache = TTLCache[int]()
    key = Dying(1, lambda: cache.clear_nowait())
    key.cache = cache
    cache.set_nowait(key, 1)
    del key

    assert cache.get_nowait(Key(1)) is None
    assert len(cache) == 0


def test_a_hook_that_uses_the_cache_or_raises_harms_nobody(monkeypatch):
    reported = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: reported.append(args))

    def hook(key, value, cause):
        if isinstance(key, int) and key % 10 == 0:
            raise Refused
        cache.get_nowait(key)
        if cause == "size" and value < 3:
            cache.set_nowait(("again", key), value + 1)

    cache = TTLCache[int](max_size=8, on_evicted=hook)

    def work(at):
        for number in range(ROUNDS):
            cache.set_nowait(at * ROUNDS + number, 0)

    together(work)
    cache.clear_nowait()

    assert len(cache) == 0
    assert len(reported) == THREADS * ROUNDS // 10
    assert all(args.exc_type is Refused for args in reported)


def test_nobody_waits_for_an_eq_that_sleeps():
    cache = TTLCache[int]()
    asleep, wake = threading.Event(), threading.Event()

    def sleep():
        asleep.set()
        assert wake.wait(PATIENCE)

    cache.set_nowait(Key(1, sleep), 1)
    found = []
    sleeper = threading.Thread(target=lambda: found.append(cache.get_nowait(Key(1))))
    sleeper.start()
    assert asleep.wait(PATIENCE)
    for number in range(1000):
        cache.set_nowait(number, number)
        assert cache.get_nowait(number) == number
    assert sleeper.is_alive(), "all that was done while it slept"
    wake.set()
    sleeper.join(PATIENCE)

    assert found == [1]


def test_the_bound_holds_while_four_threads_write():
    cache = TTLCache[int](max_size=100, shards=3)
    done = threading.Event()
    seen = []

    def watch():
        while not done.is_set():
            seen.append(len(cache))
            time.sleep(0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    together(lambda at: [cache.set_nowait((at, n), n) for n in range(5000)])
    done.set()
    watcher.join(PATIENCE)

    assert max(seen) <= 100
    assert len(cache) == 100
