"""KeyedRateLimiter: a limiter per key, in bounded memory, whatever the key."""

import asyncio
import gc
import math
import weakref

import pytest

from mtaio.exceptions import RateLimitError, ResourceLimitError
from mtaio.resources import KeyedRateLimiter
from on_virtual_time import about, on_virtual_time


class Key:
    """Equal by name; all in one hash bucket."""

    def __init__(self, name, on_eq=lambda: None):
        self.name = name
        self.on_eq = on_eq

    def __hash__(self):
        return 7

    def __eq__(self, other):
        self.on_eq()
        return isinstance(other, Key) and self.name == other.name


def test_each_key_has_its_own_bucket(clock):
    limiter = KeyedRateLimiter(10, 2, clock=clock)

    taken = [limiter.try_acquire(key) for key in "aabbab"]

    assert taken == [True, True, True, True, False, False]
    clock.advance(0.1001)
    assert limiter.try_acquire("a")
    assert not limiter.try_acquire("a")


@pytest.mark.parametrize(
    "keys",
    [
        ("a" * 10, "b"),
        (1, 2),
        (1.5, None),
        (b"x", "x"),
        (("a", 1), ("a", 2)),
        (("a", (1,)), ("a", (2,))),
        (Key("a"), Key("b")),
        (frozenset({1}), frozenset({2})),
        (-1, -2),  # one hash
    ],
)
def test_any_hashable_key_is_found_again(keys, clock):
    limiter = KeyedRateLimiter(1, 1, clock=clock)

    for key in keys:
        assert limiter.try_acquire(key)
        assert not limiter.try_acquire(key)

    assert len(limiter) == 2


def test_equal_keys_are_one_key(clock):
    limiter = KeyedRateLimiter(1, 1, clock=clock)

    assert limiter.try_acquire(1)
    assert not limiter.try_acquire(1.0)
    assert not limiter.try_acquire(True)
    assert limiter.try_acquire("".join(["k", "ey"]))
    assert not limiter.try_acquire("key")
    assert limiter.try_acquire(Key("x"))
    assert not limiter.try_acquire(Key("x"))


def test_an_eq_that_comes_back_in_does_not_hang(clock):
    limiter = KeyedRateLimiter(1, 5, clock=clock)
    for name in "abc":
        limiter.try_acquire(Key(name, lambda: limiter.try_acquire("inner")))

    assert limiter.try_acquire(Key("c", lambda: limiter.stats()))


def test_an_eq_that_raises_is_heard(clock):
    def fail():
        raise RuntimeError("no")

    limiter = KeyedRateLimiter(1, 5, clock=clock)
    limiter.try_acquire(Key("a", fail))

    with pytest.raises(RuntimeError, match="no"):
        limiter.try_acquire(Key("b"))


def test_an_unhashable_key_is_refused(clock):
    with pytest.raises(TypeError, match="unhashable"):
        KeyedRateLimiter(1, clock=clock).try_acquire([])


def test_a_full_bucket_is_forgotten(clock):
    limiter = KeyedRateLimiter(1000, 1, max_keys=100, clock=clock)

    for number in range(10_000):
        assert limiter.try_acquire(number)
        clock.advance(0.0010001)

    assert len(limiter) <= 100


def test_a_key_that_owes_is_never_forgotten(clock):
    limiter = KeyedRateLimiter(1, 1, max_keys=50, clock=clock)
    taken = [number for number in range(1000) if limiter.try_acquire(number)]

    assert len(taken) == len(limiter) == 50
    assert not any(limiter.try_acquire(number) for number in taken)
    clock.advance(1.0001)
    assert limiter.try_acquire("new")
    assert len(limiter) <= 50


@pytest.mark.parametrize("max_keys", [1, 3, 5000])
def test_memory_is_bounded_whatever_comes(max_keys, clock):
    limiter = KeyedRateLimiter(100, 1, max_keys=max_keys, clock=clock)

    for number in range(4 * max_keys + 100):
        limiter.try_acquire(number)
        clock.advance(1e-4)
        assert len(limiter) <= max_keys


@on_virtual_time
async def test_no_room_for_a_new_key_is_a_rate_limit_error(clock):
    limiter = KeyedRateLimiter(1, 2, max_keys=1, clock=clock)
    await limiter.acquire("a", 2)

    with pytest.raises(RateLimitError, match="max_keys=1 keys owe") as caught:
        await limiter.acquire("b")

    assert caught.value.retry_after == 2.0
    clock.advance(2.0001)
    await limiter.acquire("b")


@on_virtual_time
async def test_each_key_has_its_own_line(clock):
    limiter = KeyedRateLimiter(10, 1, clock=clock)
    served = []

    async def one(key):
        await limiter.acquire(key)
        served.append((key, clock() - 1000))

    await asyncio.gather(*map(one, ["a", "b", "a", "a", "b"]))

    expected = [("a", 0), ("b", 0), ("a", 0.1), ("b", 0.1), ("a", 0.2)]
    assert served == [(key, about(when)) for key, when in expected]
    assert limiter.stats().waiting == 0


@on_virtual_time
async def test_a_key_due_sooner_does_not_wait_for_one_that_came_before(clock):
    limiter = KeyedRateLimiter(1, 10, clock=clock)
    await limiter.acquire("slow", 10)
    await limiter.acquire("quick", 10)
    slow = asyncio.create_task(limiter.acquire("slow", 10))
    await asyncio.sleep(0)

    await limiter.acquire("quick", 1)

    assert clock() == about(1001)
    await slow
    assert clock() == about(1010)


@on_virtual_time
async def test_a_line_of_a_key_is_not_overtaken(clock):
    limiter = KeyedRateLimiter(10, 10, clock=clock)
    await limiter.acquire("a", 10)
    waiter = asyncio.create_task(limiter.acquire("a", 10))
    await asyncio.sleep(0.5)

    assert not limiter.try_acquire("a")
    assert limiter.try_acquire("b")
    assert limiter.retry_after("a") == about(0.6)
    assert limiter.retry_after("b") == 0
    assert limiter.retry_after("never seen") == 0
    await waiter
    assert clock() == about(1001)


@on_virtual_time
async def test_the_key_of_a_line_keeps_its_debt_afterwards(clock):
    limiter = KeyedRateLimiter(10, 2, clock=clock)
    await limiter.acquire("a", 2)
    await limiter.acquire("a", 2)

    assert clock() == about(1000.2)
    assert not limiter.try_acquire("a")
    clock.advance(0.1001)
    assert limiter.try_acquire("a")


@on_virtual_time
async def test_a_cancelled_waiter_of_a_key_takes_nothing(clock):
    limiter = KeyedRateLimiter(1, 5, clock=clock)
    await limiter.acquire("a", 5)
    large = asyncio.create_task(limiter.acquire("a", 5))
    small = asyncio.create_task(limiter.acquire("a"))
    await asyncio.sleep(2)

    large.cancel()
    await small

    assert clock() == about(1002)
    clock.advance(1e-6)  # Past the rounding of the second token.
    assert limiter.try_acquire("a")
    assert not limiter.try_acquire("a")
    assert limiter.stats().granted == 7


@on_virtual_time
async def test_a_timeout_of_a_key_is_judged_up_front(clock):
    limiter = KeyedRateLimiter(1, 1, clock=clock)
    await limiter.acquire("a")
    waiter = asyncio.create_task(limiter.acquire("a", timeout=1))
    await asyncio.sleep(0)

    with pytest.raises(RateLimitError) as caught:
        await limiter.acquire("a", timeout=1.5)

    assert caught.value.retry_after == about(2)
    assert limiter.stats().refused == 1
    await waiter


@on_virtual_time
async def test_a_function_is_limited_by_what_its_arguments_say(clock):
    limiter = KeyedRateLimiter(1, 2, clock=clock)

    @limiter.limit(lambda user, **_: user, tokens=2)
    async def greet(user: str, *, loud: bool = False) -> str:
        """Say hello."""
        return user

    assert await greet("ann", loud=True) == "ann"
    assert await greet("bob") == "bob"

    assert not limiter.try_acquire("ann")
    assert (greet.__name__, greet.__doc__) == ("greet", "Say hello.")
    with pytest.raises(TypeError, match="key must be a plain callable, got 'user'"):
        limiter.limit("user")

    async def key(user):
        """Not awaited by anyone: each call would have a bucket of its own."""

    with pytest.raises(TypeError, match="key must be a plain callable"):
        limiter.limit(key)
    with pytest.raises(TypeError, match="limit decorates an async function"):
        limiter.limit(str)(3)
    with pytest.raises(ResourceLimitError, match="3 tokens asked, burst is 2"):
        limiter.limit(str, tokens=3)


def test_a_key_that_refers_to_its_limiter_is_freed(clock):
    limiter = KeyedRateLimiter(1, 1, clock=clock)
    key = Key("a")
    key.limiter = limiter
    limiter.try_acquire(key)
    gone = weakref.ref(key)

    del limiter, key
    gc.collect()

    assert gone() is None


def test_a_forgotten_key_may_come_back_in_as_it_dies(clock):
    limiter = KeyedRateLimiter(1000, 1, max_keys=1, clock=clock)
    died = []

    class Dying(Key):
        def __del__(self):
            died.append(limiter.try_acquire("other"))

    limiter.try_acquire(Dying("a"))
    clock.advance(1)

    assert limiter.try_acquire("b")
    gc.collect()
    assert died == [False]


@pytest.mark.parametrize("value", [0, -1, 2**64])
def test_max_keys_out_of_range_is_refused(value):
    with pytest.raises(ValueError, match="max_keys must be an int >= 1"):
        KeyedRateLimiter(1, max_keys=value)


@pytest.mark.parametrize("value", [True, 1.0, "1", math.nan])
def test_max_keys_of_a_wrong_type_is_refused(value):
    with pytest.raises(TypeError, match="max_keys must be an int >= 1"):
        KeyedRateLimiter(1, max_keys=value)


@pytest.mark.parametrize("bad", [{"rate": 0}, {"rate": math.nan}, {"burst": 0}])
def test_a_quota_out_of_range_is_refused(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be"):
        KeyedRateLimiter(**{"rate": 1, **bad})


def test_tokens_and_timeouts_of_keys_are_checked(clock):
    limiter = KeyedRateLimiter(1, 3, clock=clock)
    for ask in (limiter.acquire, limiter.try_acquire, limiter.retry_after):
        with pytest.raises(ResourceLimitError, match="4 tokens asked, burst is 3"):
            ask("a", 4)
        with pytest.raises(ValueError, match="tokens must be"):
            ask("a", 0)
        with pytest.raises(TypeError, match="tokens must be"):
            ask("a", True)
    with pytest.raises(ValueError, match="timeout must be"):
        limiter.acquire("a", timeout=-1)
    assert len(limiter) == 0


def test_the_terms_of_a_keyed_limiter_can_be_read():
    limiter = KeyedRateLimiter(2.5, 7, max_keys=9)

    assert (limiter.rate, limiter.burst, limiter.max_keys) == (2.5, 7, 9)
    assert KeyedRateLimiter(1).max_keys == 100_000
