"""`get_or_set` and `@cached`: one computation, however many wait for it."""

import asyncio
import functools
import gc
import inspect
import os
import signal
import sys
import threading
import traceback
import weakref

import pytest

from mtaio import _single_flight
from mtaio.cache import TTLCache
from mtaio.exceptions import CacheError


class Factory:
    """Counts its calls; each gives its number once the gate is open."""

    def __init__(self, error=None):
        self.calls = 0
        self.cancelled = 0
        self.error = error
        self.gate = asyncio.Event()

    async def __call__(self):
        self.calls += 1
        number = self.calls
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return number


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def waiting(cache, factory, count, **options):
    return [
        asyncio.create_task(cache.get_or_set("key", factory, **options))
        for _ in range(count)
    ]


async def test_ten_who_ask_share_one_computation():
    cache, factory = TTLCache[int](), Factory()
    tasks = waiting(cache, factory, 10)
    await turns()
    factory.gate.set()

    assert await asyncio.gather(*tasks) == [1] * 10
    assert factory.calls == 1
    assert await cache.get_or_set("key", factory) == 1
    assert cache.stats().loads == 1
    assert cache.stats().load_errors == 0


async def test_the_first_callers_cancellation_takes_nobody_down():
    cache, factory = TTLCache[int](), Factory()
    first, *others = waiting(cache, factory, 10)
    await turns()

    first.cancel()
    await turns()
    factory.gate.set()

    assert await asyncio.gather(*others) == [1] * 9
    assert first.cancelled()
    assert factory.calls == 1


async def test_when_all_callers_are_cancelled_so_is_the_computation():
    cache, factory = TTLCache[int](), Factory()
    tasks = waiting(cache, factory, 3)
    await turns()

    for task in tasks:
        task.cancel()
    await turns(10)

    assert factory.cancelled == 1
    assert len(asyncio.all_tasks()) == 1
    factory.gate.set()
    assert await cache.get_or_set("key", factory) == 2


async def test_who_comes_just_after_the_last_cancellation_is_served():
    cache, factory = TTLCache[int](), Factory()
    (only,) = waiting(cache, factory, 1)
    await turns()

    only.cancel()
    (late,) = waiting(cache, factory, 1)
    await turns(10)
    factory.gate.set()

    assert await late in (1, 2)


async def test_an_error_reaches_all_who_waited_and_is_not_cached():
    cache, factory = TTLCache[int](), Factory(error=LookupError("no such user"))
    tasks = waiting(cache, factory, 10)
    await turns()
    factory.gate.set()

    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert results == [factory.error] * 10
    assert factory.calls == 1
    factory.error = None
    assert await cache.get_or_set("key", factory) == 2
    assert (cache.stats().loads, cache.stats().load_errors) == (2, 1)


class Outcome(BaseException):
    """No `Exception`, as what test runners and other loops raise."""


async def test_an_error_that_is_no_exception_reaches_all_who_waited_too():
    cache, factory = TTLCache[int](), Factory(error=Outcome())
    tasks = waiting(cache, factory, 3)
    await turns()
    factory.gate.set()

    done, pending = await asyncio.wait(tasks, timeout=5)

    assert not pending
    assert [task.exception() for task in done] == [factory.error] * 3
    assert factory.calls == 1


async def test_a_shared_errors_traceback_does_not_grow_with_who_waits():
    async def lines(waiters):
        cache, factory = TTLCache[int](), Factory(error=LookupError())
        tasks = waiting(cache, factory, waiters)
        await turns()
        factory.gate.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        return len(traceback.extract_tb(factory.error.__traceback__))

    assert await lines(50) == await lines(1)


async def test_a_failed_computation_is_freed_at_once():
    class Resource:
        """What the factory held when it failed."""

    cache, alive = TTLCache[int](), []

    async def factory():
        resource = Resource()
        alive.append(weakref.ref(resource))
        await asyncio.sleep(0)
        raise LookupError

    gc.disable()
    try:
        with pytest.raises(LookupError):
            await cache.get_or_set("key", factory)
        await turns()
        assert alive[0]() is None
    finally:
        gc.enable()


async def test_an_error_still_tells_amid_which_other_it_was_raised():
    cache = TTLCache[int]()

    async def factory():
        try:
            raise OSError("down")
        except OSError:
            raise LookupError("no answer")  # noqa: B904  # so that it has a context

    with pytest.raises(LookupError) as caught:
        await cache.get_or_set("key", factory)

    assert "OSError: down" in "".join(traceback.format_exception(caught.value))


async def test_values_are_freed_that_each_asked_for_the_next():
    class Value:
        """What is cached."""

    cache, loop = TTLCache[Value](), asyncio.get_running_loop()
    values, tasks, held = [], [], loop.create_future()

    def renew():
        cache.delete_nowait("key")
        tasks.append(loop.create_task(cache.get_or_set("key", factory)))

    async def factory():
        if len(values) == 10:
            tasks.clear()
            gc.collect()
            held.set_result(sum(value() is not None for value in values))
        else:
            loop.call_soon(loop.call_soon, renew)  # after this one has landed
        value = Value()
        values.append(weakref.ref(value))
        return value

    await cache.get_or_set("key", factory)

    assert await asyncio.wait_for(held, 5) <= 1


async def test_a_plain_factory_and_a_plain_value_do_too():
    cache = TTLCache[int]()

    assert await cache.get_or_set("key", lambda: 7) == 7
    assert await cache.get_or_set("none", lambda: None) is None
    assert await cache.get_or_set("none", lambda: 1) is None


async def test_a_factory_that_cancels_itself_is_an_error_not_a_cancellation():
    cache = TTLCache[int]()

    async def factory():
        raise asyncio.CancelledError

    with pytest.raises(CacheError, match="computing 'key' was cancelled"):
        await cache.get_or_set("key", factory)


async def test_a_factory_that_asks_for_its_own_key_is_told():
    cache = TTLCache[int]()

    async def direct():
        return await cache.get_or_set("a", direct)

    async def by_task():
        return await asyncio.create_task(cache.get_or_set("a", direct))

    async def ring():
        return await cache.get_or_set("b", lambda: cache.get_or_set("a", ring))

    for factory in (direct, by_task, ring):
        with pytest.raises(CacheError, match="asks for the very key it computes"):
            await asyncio.wait_for(cache.get_or_set("a", factory), 5)


async def test_a_factory_may_ask_for_another_key():
    cache = TTLCache[int]()

    async def outer():
        return 1 + await cache.get_or_set("inner", lambda: 1)

    assert await cache.get_or_set("outer", outer) == 2


TAKEN_OUT = {
    "delete": lambda cache: cache.delete_nowait("key"),
    "delete_many": lambda cache: cache.delete_many_nowait(iter(["other", "key"])),
    "pop": lambda cache: cache.pop_nowait("key", None),
    "clear": lambda cache: cache.clear_nowait(),
}


@pytest.mark.parametrize("how", TAKEN_OUT)
async def test_what_was_computed_before_its_key_was_taken_out_is_not_held(how):
    cache, old, new = TTLCache[int](), Factory(), Factory()
    new.calls = 1  # gives 2
    before = waiting(cache, old, 2)
    await turns()

    TAKEN_OUT[how](cache)
    after = waiting(cache, new, 2)
    await turns()
    old.gate.set()
    assert await asyncio.gather(*before) == [1, 1]
    assert "key" not in cache
    new.gate.set()

    assert await asyncio.gather(*after) == [2, 2]
    assert cache.stats().loads == 2
    assert await cache.get("key") == 2


@pytest.mark.timeout(20)
async def test_a_key_may_be_taken_out_amid_any_step_of_its_computation():
    cache, factory = TTLCache[int](), Factory()
    factory.gate.set()
    steps = when = 0

    def step(frame, *_):
        """Stands for a finalizer, or the handler of a signal, at one step."""
        nonlocal steps
        if frame.f_globals is not vars(_single_flight):
            return None
        steps += 1
        if steps == when:
            cache.clear_nowait()
        return step

    before = sys.gettrace()
    while steps >= when:
        cache.clear_nowait()
        steps, when = 0, when + 1
        sys.settrace(step)
        try:
            value = await cache.get_or_set("key", factory)
        finally:
            sys.settrace(before)
        assert value == when == factory.calls

    assert when > 50


async def test_a_value_set_while_another_is_computed_stays():
    cache, factory = TTLCache[int](), Factory()
    tasks = waiting(cache, factory, 2)
    await turns()

    await cache.set("key", 7)
    factory.gate.set()

    assert await asyncio.gather(*tasks) == [1, 1]
    assert await cache.get("key") == 7


async def test_a_value_set_anew_as_another_is_to_be_held_stays():
    class Cache(TTLCache):
        def _add_stale(self, key, value, *options):
            """Stands for another thread, which comes just before."""
            self.delete_nowait(key)
            self.set_nowait(key, value)
            return super()._add_stale(key, value, *options)

    cache, value = Cache(), object()

    assert await cache.get_or_set("key", lambda: value) is value
    assert await cache.get("key") is value


async def being_renewed(clock):
    """A cache with a stale `key`, and the factory that computes it anew."""
    cache, factory = TTLCache[int](1.0, clock=clock), Factory()
    await cache.get_or_set("key", lambda: 0, stale=5.0)
    clock.advance(2.0)
    assert await cache.get_or_set("key", factory, stale=5.0) == 0
    await turns()
    return cache, factory


async def test_a_value_set_while_a_stale_one_is_renewed_stays(clock):
    cache, factory = await being_renewed(clock)

    await cache.set("key", 7)
    factory.gate.set()
    await turns()

    assert await cache.get("key") == 7


async def test_what_a_refresh_gives_after_its_key_was_deleted_is_not_held(clock):
    cache, factory = await being_renewed(clock)

    await cache.delete("key")
    factory.gate.set()
    await turns()

    assert await cache.get("key") is None
    assert await cache.get_or_set("key", lambda: 3) == 3


def test_a_thread_that_computes_while_its_key_is_deleted_does_not_hold_it():
    cache = TTLCache[int]()

    def factory():
        cache.delete_nowait("key")
        return 1

    assert cache.get_or_set_blocking("key", factory) == 1
    assert "key" not in cache
    assert cache.get_or_set_blocking("key", lambda: 2) == 2
    assert cache.get_nowait("key") == 2


async def test_a_stale_value_is_served_while_one_refreshes(clock):
    cache, factory = TTLCache[int](clock=clock), Factory()
    factory.gate.set()
    assert await cache.get_or_set("key", factory, 10.0, stale=5.0) == 1

    clock.advance(12.0)
    assert await cache.get("key") is None, "only those who ask for stale get it"
    factory.gate.clear()
    served = [await cache.get_or_set("key", factory, 10.0, stale=5.0) for _ in "abc"]
    await turns()
    factory.gate.set()
    await turns(10)

    assert served == [1, 1, 1]
    assert factory.calls == 2
    assert await cache.get_or_set("key", factory, 10.0, stale=5.0) == 2


async def test_past_its_grace_a_stale_value_is_gone(clock):
    cache, factory = TTLCache[int](clock=clock), Factory()
    factory.gate.set()
    await cache.get_or_set("key", factory, 10.0, stale=5.0)

    clock.advance(15.0)

    assert await cache.get_or_set("key", factory, 10.0, stale=5.0) == 2


async def test_a_failed_refresh_is_reported_and_the_stale_value_stays(clock):
    cache, factory = TTLCache[int](clock=clock), Factory()
    reports = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: reports.append(c))
    factory.gate.set()
    await cache.get_or_set("key", factory, 10.0, stale=50.0)
    clock.advance(12.0)
    factory.error = OSError("database away")

    for _ in range(2):
        assert await cache.get_or_set("key", factory, 10.0, stale=50.0) == 1
        await turns(10)

    assert [report["exception"] for report in reports] == [factory.error] * 2
    assert "stale value of 'key'" in reports[0]["message"]


async def test_a_caller_who_joins_a_refresh_may_leave_it(clock):
    cache, factory = TTLCache[int](clock=clock), Factory()
    factory.gate.set()
    await cache.get_or_set("key", factory, 10.0, stale=5.0)
    clock.advance(12.0)
    factory.gate.clear()
    await cache.get_or_set("key", factory, 10.0, stale=5.0)
    (joined,) = waiting(cache, factory, 1)
    await turns()

    joined.cancel()
    await turns(10)
    factory.gate.set()
    await turns(10)

    assert factory.cancelled == 0
    assert cache.get_nowait("key") == 2


async def test_cached_keeps_name_and_signature_and_computes_once():
    cache = TTLCache[int]()
    calls = []

    @cache.cached(ttl=60.0)
    async def double(number: int, *, plus: int = 0) -> int:
        """Twice the number."""
        calls.append(number)
        return 2 * number + plus

    assert await asyncio.gather(*(double(3) for _ in range(5))) == [6] * 5
    assert await double(3, plus=1) == 7
    assert await double(4) == 8
    assert calls == [3, 3, 4]
    assert double.__name__ == "double"
    assert double.__doc__ == "Twice the number."
    assert list(inspect.signature(double).parameters) == ["number", "plus"]
    assert inspect.iscoroutinefunction(double)


async def test_cached_takes_a_key_and_two_functions_do_not_meet():
    cache = TTLCache[str]()

    @cache.cached
    async def one(name):
        return f"one {name}"

    @cache.cached(key=lambda name: name.lower())
    async def two(name):
        return f"two {name}"

    assert await one("A") == "one A"
    assert await two("A") == "two A"
    assert await two("a") == "two A"
    assert await one("a") == "one a"


async def test_cached_takes_arguments_of_any_name():
    cache = TTLCache[int]()

    @cache.cached
    async def call(function, args=0, **kwargs):
        return function

    assert await call(function=1, self=2, key=3) == 1


async def test_functions_that_share_a_name_do_not_share_answers():
    cache = TTLCache[int]()

    def adding(number):
        async def add(to):
            return number + to

        return add

    class Shop:
        def __init__(self, price):
            self.price = price

        async def buy(self, count):
            return self.price * count

    adders = [cache.cached(adding(n)) for n in (1, 2)]
    assert [await add(1) for add in adders] == [2, 3]
    shops = [Shop(3), Shop(4)]
    methods = [cache.cached(shop.buy) for shop in shops]
    assert [await buy(2) for buy in methods] == [6, 8]
    assert [await cache.cached(shops[0].buy)(2), cache.stats().loads] == [6, 4]
    partials = [cache.cached(functools.partial(adding(n), 1)) for n in (1, 2)]
    assert [await add() for add in partials] == [2, 3]
    lookups = [cache.cached(found.get) for found in ({1: 2}, {1: 3})]
    assert [get(1) for get in lookups] == [2, 3]


def test_a_callable_object_is_cached_by_itself():
    class Doubling:
        def __call__(self, number):
            return 2 * number

    double = TTLCache[int]().cached(Doubling())

    assert [double(2), double(2)] == [4, 4]


async def test_one_call_of_a_cached_function_can_be_taken_out():
    cache = TTLCache[str]()

    @cache.cached
    async def greet(name, *, loud=False):
        return name

    @cache.cached(key=lambda name: name.lower())
    def shout(name):
        return name.upper()

    class Shop:
        @cache.cached
        async def buy(self, what):
            return what

    shop = Shop()
    await greet("ann", loud=True), shout("Ann"), await shop.buy("tea")

    assert cache.key_of(shout, "Ann") == "ann"
    for key in (
        cache.key_of(greet, "ann", loud=True),
        cache.key_of(shout, "Ann"),
        cache.key_of(shop.buy, "tea"),
    ):
        assert await cache.delete(key)
    assert len(cache) == 0
    assert not await cache.delete(cache.key_of(greet, "ann"))
    with pytest.raises(TypeError, match="function must be one that `cached` made"):
        cache.key_of(len)


def test_cached_wants_a_function_and_a_callable_key():
    cache = TTLCache[int]()
    with pytest.raises(TypeError, match="cached needs a function, got 1"):
        cache.cached(1)
    with pytest.raises(ValueError, match="stale needs a coroutine function"):
        cache.cached(stale=1.0)(len)
    with pytest.raises(TypeError, match="key must be callable"):
        cache.cached(key="user")

    async def later(*_):
        yield

    async def key(*_):
        """Not awaited by anyone: each call would have a key of its own."""

    with pytest.raises(TypeError, match="key must be a plain function"):
        cache.cached(key=key)
    for generator in (later, lambda: (yield)):
        with pytest.raises(TypeError, match="cached needs no generator function"):
            cache.cached(generator)


@pytest.mark.parametrize("options", [{"stale": -1}, {"stale": True}, {"ttl": 0}])
async def test_bad_times_are_told_before_anything_is_computed(options):
    factory = Factory()
    with pytest.raises((TypeError, ValueError), match="must be a finite number"):
        await TTLCache[int]().get_or_set("key", factory, **options)
    with pytest.raises(TypeError, match="factory must be callable"):
        await TTLCache[int]().get_or_set("key", 1)
    assert factory.calls == 0


class Spiteful:
    """Equal to nothing, and says so with an error once armed."""

    armed = False

    def __hash__(self):
        return 1

    def __eq__(self, other):
        if Spiteful.armed:
            raise ArithmeticError("no comparison")
        return self is other


async def test_an_error_of_a_keys_eq_reaches_the_caller_and_hangs_nobody():
    cache = TTLCache[int]()
    cache.set_nowait(Spiteful(), 0)
    Spiteful.armed = True
    try:
        with pytest.raises(ArithmeticError, match="no comparison"):
            await asyncio.wait_for(cache.get_or_set(Spiteful(), lambda: 1), 5)
    finally:
        Spiteful.armed = False
    assert await cache.get_or_set(Spiteful(), lambda: 1) == 1


def in_threads(count, main):
    """Run `main(at)` in a loop of its own in each of `count` threads."""
    results = [None] * count

    def run(at):
        results[at] = asyncio.run(main(at))

    threads = [threading.Thread(target=run, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return results


def test_loops_in_four_threads_share_one_computation():
    cache = TTLCache[int]()
    calls = []
    start = threading.Barrier(4)

    async def factory():
        calls.append(threading.current_thread())
        await asyncio.sleep(0.05)
        return 7

    async def main(_):
        await asyncio.to_thread(start.wait)
        return await asyncio.gather(
            *(cache.get_or_set("key", factory) for _ in range(5))
        )

    assert in_threads(4, main) == [[7] * 5] * 4
    assert len(calls) == 1


def test_a_loop_that_ends_early_leaves_the_others_served():
    cache = TTLCache[int]()
    flying, left = threading.Event(), threading.Event()
    calls = []

    async def factory():
        calls.append(1)
        if len(calls) == 1:
            flying.set()
            await asyncio.sleep(3600)
        return len(calls)

    async def main(at):
        if at == 0:
            task = asyncio.create_task(cache.get_or_set("key", factory))
            await asyncio.to_thread(left.wait)
            return task.done()
        await asyncio.to_thread(flying.wait)
        waiter = asyncio.create_task(cache.get_or_set("key", factory))
        await asyncio.sleep(0.01)
        left.set()
        return await waiter

    assert in_threads(3, main) == [False, 2, 2]


def test_a_loop_closed_without_a_word_does_not_block_the_key():
    cache = TTLCache[int]()
    loop = asyncio.new_event_loop()
    never = loop.create_future()
    task = loop.create_task(cache.get_or_set("key", lambda: never))
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    async def main():
        return await asyncio.wait_for(cache.get_or_set("key", lambda: 1), 5)

    assert asyncio.run(main()) == 1
    assert not task.done()
    # The loop would log the task it left pending; nothing else may come.
    loop.set_exception_handler(lambda *_: None)
    del task
    gc.collect()


def test_a_loop_closed_while_another_waits_leaves_that_one_served(monkeypatch):
    monkeypatch.setattr(_single_flight, "_LOOK_AFTER", 0.01)
    cache = TTLCache[int]()
    loop = asyncio.new_event_loop()
    never = loop.create_future()
    task = loop.create_task(cache.get_or_set("key", lambda: never))
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))

    async def main():
        waiter = asyncio.create_task(cache.get_or_set("key", lambda: 1))
        await turns()
        loop.close()
        return await asyncio.wait_for(waiter, 5)

    assert asyncio.run(main()) == 1
    assert not task.done()
    loop.set_exception_handler(lambda *_: None)
    del task
    gc.collect()


def in_blocking_threads(count, work):
    """`work()` in `count` threads at once; what each returned or raised."""
    results = [None] * count
    start = threading.Barrier(count)

    def run(at):
        start.wait(30)
        try:
            results[at] = work()
        except Exception as error:
            results[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return results


def waiters_of(cache, key):
    return len(cache._flights.flying[key]._waiters)


def test_threads_share_one_computation_and_its_error():
    cache = TTLCache[int]()
    calls = []

    def factory():
        calls.append(1)
        while waiters_of(cache, "key") < 3:
            threading.Event().wait(0.001)
        if len(calls) == 1:
            raise error
        return 7

    error = LookupError("no such user")

    def ask():
        return cache.get_or_set_blocking("key", factory)

    assert in_blocking_threads(4, ask) == [error] * 4
    assert in_blocking_threads(4, ask) == [7] * 4
    assert len(calls) == 2
    assert cache.get_or_set_blocking("key", factory) == 7
    assert (cache.stats().loads, cache.stats().load_errors) == (2, 1)


@pytest.mark.parametrize("begins", ["loop", "thread"])
def test_threads_and_loops_share_one_computation_whoever_began(begins):
    cache = TTLCache[int]()
    flying, gate = threading.Event(), threading.Event()
    calls, results = [], []

    def blocking():
        calls.append(1)
        flying.set()
        assert gate.wait(30)
        return 7

    async def awaited():
        return await asyncio.to_thread(blocking)

    def by_thread():
        results.append(cache.get_or_set_blocking("key", blocking))

    def by_loop():
        results.append(asyncio.run(cache.get_or_set("key", awaited)))

    first, second = by_loop, by_thread
    if begins == "thread":
        first, second = second, first
    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert flying.wait(30)
    threads += [threading.Thread(target=second) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    while waiters_of(cache, "key") < 3:
        threading.Event().wait(0.001)
    gate.set()
    for thread in threads:
        thread.join(30)

    assert results == [7] * 4
    assert len(calls) == 1


def test_a_thread_outlives_the_loop_that_computed_for_it(monkeypatch):
    monkeypatch.setattr(_single_flight, "_LOOK_AFTER", 0.01)
    cache = TTLCache[int]()
    loop = asyncio.new_event_loop()
    never = loop.create_future()
    task = loop.create_task(cache.get_or_set("key", lambda: never))
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    results = []
    thread = threading.Thread(
        target=lambda: results.append(cache.get_or_set_blocking("key", lambda: 1))
    )
    thread.start()
    while waiters_of(cache, "key") < 2:
        threading.Event().wait(0.001)

    loop.close()
    thread.join(30)

    assert results == [1]
    loop.set_exception_handler(lambda *_: None)
    del task
    gc.collect()


async def test_a_thread_that_would_block_the_computing_loop_is_told():
    cache, factory = TTLCache[int](), Factory()
    (task,) = waiting(cache, factory, 1)
    await turns()

    with pytest.raises(CacheError, match="would block the event loop"):
        cache.get_or_set_blocking("key", lambda: 2)

    factory.gate.set()
    assert await task == 1


def test_a_blocking_factory_that_asks_for_its_own_key_or_awaits_is_told():
    cache = TTLCache[int]()

    def own():
        return cache.get_or_set_blocking("key", own)

    async def awaited():
        return 1

    with pytest.raises(CacheError, match="asks for the very key it computes"):
        cache.get_or_set_blocking("key", own)
    with pytest.raises(TypeError, match="factory must not be awaitable here"):
        cache.get_or_set_blocking("key", awaited)
    assert cache.get_or_set_blocking("key", lambda: 3) == 3


def test_an_interrupted_computation_is_nobodys_error():
    cache = TTLCache[int]()

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_set_blocking("key", interrupted)
    assert cache.get_or_set_blocking("key", lambda: 1) == 1


def test_cached_keeps_a_plain_function_plain():
    cache = TTLCache[int]()
    calls = []

    @cache.cached(ttl=60.0)
    def double(number: int) -> int:
        """Twice the number."""
        calls.append(number)
        return 2 * number

    assert in_blocking_threads(4, lambda: double(3)) == [6] * 4
    assert double(4) == 8
    assert calls == [3, 4]
    assert double.__name__ == "double"
    assert not inspect.iscoroutinefunction(double)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_forked_child_waits_for_no_computation_of_its_parent():
    cache, factory = TTLCache[int](), Factory()
    (task,) = waiting(cache, factory, 1)
    await turns()

    child = os.fork()
    if not child:
        signal.alarm(20)
        found = cache.get_or_set_blocking("key", lambda: 2)
        os._exit(found)
    _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - it ends by its alarm
    factory.gate.set()

    assert os.waitstatus_to_exitcode(status) == 2
    assert await task == 1


@pytest.mark.parametrize("how", TAKEN_OUT)
async def test_a_forked_child_takes_out_what_its_parent_computes(how):
    cache, factory = TTLCache[int](), Factory()
    (task,) = waiting(cache, factory, 1)
    await turns()
    (flight,) = cache._flights.flying.values()

    with flight._lock:  # as another thread may have it, which is not in the child
        child = os.fork()
        if not child:
            signal.alarm(20)
            TAKEN_OUT[how](cache)
            os._exit(2)
    _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - it ends by its alarm
    factory.gate.set()

    assert os.waitstatus_to_exitcode(status) == 2
    assert await task == 1
    assert "key" in cache
