"""What `cache.get` returns: taken like a coroutine, and leaves nothing behind."""

import asyncio
import gc
import inspect
import sys
import types
import weakref

import pytest

from await_ways import LOOPS, WAYS
from mtaio.cache import TTLCache


class Value:
    """Counts itself out by a weak reference."""


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("way", WAYS)
def test_a_get_is_awaited_anyhow(way, new_loop):
    async def main():
        cache = TTLCache[object]()
        # Exceptions and tuples as values are what a StopIteration could spoil.
        values = [1, None, (), (1, 2), StopIteration(3), KeyError("x"), int]
        for value in values:
            cache.set_nowait("key", value)
            assert await WAYS[way](lambda: cache.get("key")) is value
        assert await WAYS[way](lambda: cache.get("absent")) is None
        assert await WAYS[way](lambda: cache.get("absent", 7)) == 7
        assert await WAYS[way](lambda: cache.get(key="absent", default=8)) == 8

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


@pytest.mark.parametrize("key", ["text", b"bytes", 7, 2**80, ("a", 1), 1.5, None])
async def test_it_looks_when_it_is_awaited(key, clock):
    for cache in (TTLCache[int](), TTLCache[int](clock=clock)):
        getting = cache.get(key)
        cache.set_nowait(key, 1)

        assert await getting == 1
        assert cache.delete_nowait(key)
        assert await getting is None


async def test_errors_come_when_it_is_awaited():
    class Hostile:
        def __hash__(self):
            raise ArithmeticError

    cache = TTLCache[int]()
    getting = cache.get([]), cache.get(Hostile())

    with pytest.raises(TypeError, match="unhashable type: 'list'"):
        await getting[0]
    with pytest.raises(ArithmeticError):
        await getting[1]


@pytest.mark.parametrize("method", ["get", "get_nowait"])
def test_wrong_arguments_are_told_by_the_call(method):
    call = getattr(TTLCache[int](), method)
    for given, named in [
        ((), {}),
        ((1, 2, 3), {}),
        ((1,), {"key": 2}),
        ((1,), {"x": 2}),
    ]:
        with pytest.raises(TypeError, match=rf"{method}\(\)"):
            call(*given, **named)


def test_the_methods_tell_their_signature_and_refuse_other_objects():
    for name in ("get", "get_nowait"):
        method = getattr(TTLCache, name)
        signature = inspect.signature(method)
        assert list(signature.parameters) == ["self", "key", "default"]
        assert inspect.getdoc(method).startswith("Return the live value of `key`")
        with pytest.raises(TypeError, match="apply to a 'object'"):
            method(object(), "key")


def test_it_has_what_a_coroutine_has():
    cache = TTLCache[int]()
    cache.set_nowait("key", 1)
    getting = cache.get("key")

    assert inspect.isawaitable(getting)
    assert asyncio.iscoroutine(getting)
    assert list(getting) == []
    for _ in range(2):
        with pytest.raises(StopIteration) as caught:
            getting.send(None)
        assert caught.value.value == 1
    assert getting.close() is None
    for thrown in [(KeyError,), (KeyError("x"),), (KeyError, KeyError("x"), None)]:
        with pytest.raises(KeyError):
            getting.throw(*thrown)
    for thrown in [(), (1,), (1, 2, 3, 4)]:
        with pytest.raises(TypeError):
            getting.throw(*thrown)
    with pytest.raises(TypeError, match="cannot create"):
        type(getting)()


def test_a_stop_iteration_that_somebody_keeps_is_not_used_again():
    cache = TTLCache[int]()
    kept = []
    for number in range(3):
        cache.set_nowait("key", number)
        getting = cache.get("key")
        for _ in range(2):
            try:
                getting.send(None)
            except StopIteration as stop:
                kept.append(stop)
        del getting
        try:
            cache.get("key").send(None)
        except StopIteration as stop:
            stop.note = "mine"

    assert [stop.value for stop in kept] == [0, 0, 1, 1, 2, 2]
    assert len({id(stop) for stop in kept}) == 6
    assert not any(hasattr(stop, "note") for stop in kept)


async def test_what_it_gave_is_not_kept_alive():
    cache = TTLCache[Value]()
    alive = []
    gc.disable()
    try:
        for _ in range(3):
            cache.set_nowait("key", Value())
            value = await cache.get("key")
            alive.append(weakref.ref(value))
            cache.delete_nowait("key")
            del value
            assert alive[-1]() is None
    finally:
        gc.enable()


async def test_many_at_once_keep_their_own_answers():
    cache = TTLCache[int]()
    cache.set_many_nowait({n: n for n in range(1000)})
    getting = [cache.get(n) for n in range(1000)]

    assert await asyncio.gather(*getting) == list(range(1000))


def test_references_balance():
    cache, key, default = TTLCache[object](), "".join(["k", "ey"]), object()
    value = object()

    async def use():
        for _ in range(100):
            cache.get(key, default)
            await cache.get(key, default)
            cache.set_nowait(key, value)
            await cache.get(key, default)
            cache.delete_nowait(key)

    asyncio.run(use())
    before = [sys.getrefcount(one) for one in (cache, key, default, value)]
    asyncio.run(use())

    assert [sys.getrefcount(one) for one in (cache, key, default, value)] == before


def test_a_cycle_through_one_is_freed():
    cache = TTLCache[object]()
    cache.set_nowait("self", cache.get("self"))
    alive = weakref.ref(cache)
    del cache

    gc.collect()

    assert alive() is None


async def test_a_subclass_may_have_its_own():
    class Loud(TTLCache[str]):
        async def get(self, key, default=None):
            return str(await super().get(key, default)).upper()

    cache = Loud()
    cache.set_nowait("key", "value")

    assert await cache.get("key") == "VALUE"
    assert cache.get_nowait("key") == "value"


def taken(getting):
    with pytest.raises(StopIteration) as caught:
        getting.send(None)
    return caught.value.value


def test_an_eq_may_await_the_very_object_that_asks():
    class Key:
        asks = None

        def __hash__(self):
            return 5

        def __eq__(self, other):
            asks, Key.asks = Key.asks, None
            if asks is not None:
                assert taken(asks) == "value"
            return True

    cache = TTLCache[str]()
    cache.set_nowait(Key(), "value")
    getting = cache.get(Key())
    for _ in range(3):
        Key.asks = getting

        assert taken(getting) == "value"


def test_a_del_may_get_while_what_held_the_value_is_laid_by():
    heard = []

    class Dying:
        def __del__(self):
            heard.append((taken(cache.get("other")), taken(cache.get("no", 2))))

    cache = TTLCache[object]()
    cache.set_nowait("other", 1)
    for _ in range(3):
        cache.set_nowait("key", Dying())
        getting = cache.get("key", Dying())
        # A value that only the StopIteration holds, until it is used again.
        for value in (None, 3):
            with pytest.raises(StopIteration):
                getting.send(None)
            cache.set_nowait("key", value)
        del getting
        gc.collect()

    assert heard == [(1, 2)] * 6


async def test_an_error_raised_after_it_has_the_context_of_its_except():
    cache = TTLCache[int]()

    with pytest.raises(ValueError, match="second") as caught:
        try:
            raise KeyError("first")
        except KeyError:
            await cache.get("key")
            raise ValueError("second")  # noqa: B904 - the context is the point

    first = caught.value.__context__
    assert isinstance(first, KeyError)
    assert first.__context__ is None


@pytest.mark.parametrize("value", [(1, 2), StopIteration(3), KeyError("x")])
async def test_a_generator_may_yield_from_it(value):
    @types.coroutine
    def generator():
        return (yield from cache.get("key"))

    cache = TTLCache[object]()
    cache.set_nowait("key", value)

    assert await generator() is value


async def test_a_task_of_one_may_be_cancelled_before_it_starts():
    task = asyncio.create_task(TTLCache[int]().get("key"))
    assert "Reading" in repr(task)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
