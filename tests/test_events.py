"""EventEmitter: who is called, in what order, and what failures do."""

import asyncio
import functools
import math
import time

import pytest

import virtual_time
from mtaio.events import Event, EventEmitter, EventListener, EventPriority
from mtaio.exceptions import EventHandlerError
from mtaio.exceptions import TimeoutError as OurTimeoutError


@pytest.fixture
def emitter():
    return EventEmitter()


@pytest.fixture
def heard():
    return []


async def test_a_listener_hears_name_data_and_metadata(emitter, heard):
    emitter.add_listener("saved", heard.append)
    before = time.monotonic()

    await emitter.emit("saved", {"id": 1}, {"by": "ann"})
    await emitter.emit("saved")

    first, second = heard
    assert (first.name, first.data, first.metadata) == (
        "saved",
        {"id": 1},
        {"by": "ann"},
    )
    assert (second.data, second.metadata) == (None, {})
    assert first.propagate is True
    assert before <= first.timestamp <= second.timestamp <= time.monotonic()
    assert repr(second) == "Event('saved', None)"


async def test_listeners_may_be_sync_async_or_anything_callable(emitter, heard):
    class Sync:
        def __call__(self, event):
            heard.append("sync object")

    class Async:
        async def __call__(self, event):
            await asyncio.sleep(0)
            heard.append("async object")

        async def method(self, event):
            heard.append("method")

    @emitter.on("e")
    async def decorated(event):
        heard.append("decorated")

    async def partial(word, event):
        heard.append(word)

    for listener in (
        Sync(),
        Async(),
        Async().method,
        functools.partial(partial, "partial"),
        lambda event: partial("lambda", event),
        lambda event: 5,
    ):
        emitter.add_listener("e", listener)
        assert isinstance(listener, EventListener)

    await emitter.emit("e")

    assert heard == [
        "decorated", "sync object", "async object", "method", "partial", "lambda",
    ]  # fmt: skip


async def test_higher_priorities_come_first_and_equals_as_added(emitter, heard):
    for name, priority in [
        ("low", EventPriority.LOW),
        ("first", EventPriority.NORMAL),
        ("monitor", EventPriority.MONITOR),
        ("lowest", EventPriority.LOWEST),
        ("second", EventPriority.NORMAL),
        ("highest", EventPriority.HIGHEST),
        ("high", EventPriority.HIGH),
    ]:
        pattern = "*" if name in ("first", "high") else "e"
        emitter.on(pattern, priority)(lambda event, name=name: heard.append(name))

    await emitter.emit("e")

    assert heard == ["monitor", "highest", "high", "first", "second", "low", "lowest"]


@pytest.mark.parametrize(
    ("pattern", "hears", "is_deaf_to"),
    [
        ("*", ["user", "user.login", "x.y.z"], []),
        ("user.*", ["user.login", "user.login.failed", "user."], ["user", "a.user.b"]),
        ("*.failed", ["user.failed", "a.b.failed"], ["failed", "user.failed.x"]),
        ("a*c*e", ["ace", "abcde", "a.c\n.e"], ["ac", "acd", "bace"]),
        ("user", ["user"], ["users", "user.login", "USER"]),
        ("a.c", ["a.c"], ["abc"]),
        ("[x]*?", ["[x]1?"], ["x1?", "[x]"]),
    ],
)
async def test_patterns(emitter, heard, pattern, hears, is_deaf_to):
    emitter.on(pattern)(lambda event: heard.append(event.name))

    for name in [*is_deaf_to, *hears]:
        await emitter.emit(name)

    assert heard == hears


async def test_once_hears_one_event(emitter, heard):
    @emitter.once("e")
    async def listener(event):
        await emitter.emit("e", "inside")
        heard.append(event.data)

    await emitter.emit("e", 1)
    await emitter.emit("e", 2)

    assert heard == [1]
    assert emitter.listener_count() == 0


async def test_once_hears_one_of_events_emitted_together(emitter, heard):
    emitter.on("e", EventPriority.HIGH)(lambda event: asyncio.sleep(0))
    emitter.once("e")(lambda event: heard.append(event.data))

    await asyncio.gather(emitter.emit("e", 1), emitter.emit("e", 2))

    assert heard == [1]


async def test_removal_works_for_on_once_patterns_and_methods(emitter, heard):
    class Listener:
        def hear(self, event):
            heard.append(event)

    listener = Listener()
    for name in ("e", "*", "e.*"):
        for register in (emitter.on, emitter.once):
            register(name)(listener.hear)
            assert emitter.remove_listener(name, listener.hear)
            assert not emitter.remove_listener(name, listener.hear)

    await emitter.emit("e")

    assert heard == []


async def test_added_twice_is_called_twice_and_removed_at_once(emitter, heard):
    emitter.add_listener("e", heard.append)
    emitter.add_listener("e", heard.append)
    emitter.add_listener("other", heard.append)
    assert (emitter.listener_count("e"), emitter.listener_count()) == (2, 3)

    await emitter.emit("e")
    assert len(heard) == 2

    assert emitter.remove_listener("e", heard.append)
    assert (emitter.listener_count("e"), emitter.listener_count()) == (0, 1)
    assert emitter.remove_all_listeners("other") == 1
    emitter.add_listener("e", heard.append)
    assert emitter.remove_all_listeners() == 1


async def test_one_removed_during_an_emit_is_not_called_and_one_added_is_next_time(
    emitter, heard
):
    def late(event):
        heard.append("late")

    def victim(event):
        heard.append("victim")

    @emitter.once("e", EventPriority.HIGH)
    async def change(event):
        emitter.remove_listener("e", victim)
        emitter.add_listener("e", late)

    emitter.add_listener("e", victim)

    await emitter.emit("e")
    assert heard == []
    await emitter.emit("e")
    assert heard == ["late"]


async def test_propagate_false_keeps_the_event_from_later_listeners(emitter, heard):
    @emitter.on("e", EventPriority.HIGH)
    def stop(event):
        event.propagate = event.data != "stop"

    emitter.add_listener("e", heard.append)
    emitter.add_listener("e", lambda e: heard.append("monitor"), EventPriority.MONITOR)

    await emitter.emit("e", "stop")

    assert heard == ["monitor"]


async def test_a_failing_listener_stops_no_other_and_is_logged(emitter, heard, caplog):
    @emitter.on("e")
    async def broken(event):
        raise KeyError("broken")

    emitter.on("e")(lambda event: 1 / 0)
    emitter.add_listener("e", heard.append)

    await emitter.emit("e")

    assert len(heard) == 1
    assert "broken" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_failing_listener_that_stops_propagation_does_stop_it(emitter, heard):
    emitter.on_error(lambda event, error: None)

    @emitter.on("e")
    def stop(event):
        event.propagate = False
        raise KeyError

    emitter.add_listener("e", heard.append)

    await emitter.emit("e")

    assert heard == []


async def test_errors_go_to_on_error_instead_of_the_log(emitter, heard, caplog):
    boom = KeyError("boom")

    @emitter.on_error
    def sync(event, error):
        heard.append(("sync", event.name, error))

    @emitter.on_error
    async def is_async(event, error):
        heard.append(("async", event.name, error))

    @emitter.on("e")
    def broken(event):
        raise boom

    await emitter.emit("e")

    assert heard == [("sync", "e", boom), ("async", "e", boom)]
    assert caplog.text == ""


async def test_a_failing_on_error_is_logged_and_stops_nothing(emitter, heard, caplog):
    emitter.on_error(lambda event, error: 1 / 0)
    emitter.on("e")(lambda event: {}["missing"])
    emitter.add_listener("e", heard.append)

    await emitter.emit("e")

    assert len(heard) == 1
    assert "on_error callback" in caplog.text


async def test_a_listener_cancelled_by_its_own_code_is_a_failed_listener(
    emitter, heard
):
    @emitter.on("e")
    async def odd(event):
        raise asyncio.CancelledError

    errors = []
    emitter.on_error(lambda event, error: errors.append(error))
    emitter.add_listener("e", heard.append)

    await emitter.emit("e")

    assert len(heard) == 1
    assert isinstance(errors[0], EventHandlerError)


async def test_a_cancelled_emit_stops_at_its_listener(emitter, heard):
    emitter.on("e")(lambda event: asyncio.sleep(10))
    emitter.add_listener("e", heard.append)
    emitting = asyncio.create_task(emitter.emit("e"))
    await asyncio.sleep(0)

    emitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await emitting

    assert heard == []


async def test_a_lone_listener_fails_and_is_cancelled_as_one_of_many(emitter):
    errors = []
    emitter.on_error(lambda event, error: errors.append(type(error)))

    async def listener(event):
        if event.data is asyncio.sleep:
            await event.data(10)
        raise event.data

    emitter.add_listener("e", listener)
    await emitter.emit("e", ValueError)
    await emitter.emit("e", asyncio.CancelledError)
    emitting = asyncio.create_task(emitter.emit("e", asyncio.sleep))
    await asyncio.sleep(0)
    emitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await emitting

    assert errors == [ValueError, EventHandlerError]


async def test_emits_do_not_wait_for_each_other(emitter, heard):
    gate = asyncio.Event()

    @emitter.on("e")
    async def listener(event):
        if event.data == "slow":
            await gate.wait()
        heard.append(event.data)

    slow = asyncio.create_task(emitter.emit("e", "slow"))
    await asyncio.sleep(0)
    await emitter.emit("e", "quick")
    gate.set()
    await slow

    assert heard == ["quick", "slow"]


async def test_emit_inside_a_listener(emitter, heard):
    @emitter.on("count")
    async def count(event):
        heard.append(event.data)
        if event.data:
            await emitter.emit("count", event.data - 1)

    await emitter.emit("count", 3)

    assert heard == [3, 2, 1, 0]


async def test_an_event_nobody_hears_is_no_error(emitter):
    await emitter.emit("nobody", 1)


async def test_wait_for_returns_the_next_event_that_passes_the_check(emitter):
    waiting = asyncio.create_task(
        emitter.wait_for("n.*", check=lambda event: event.data > 1)
    )
    await asyncio.sleep(0)
    for n in range(4):
        await emitter.emit("n.x", n)

    assert (await waiting).data == 2
    assert emitter.listener_count() == 0


async def test_wait_for_sees_what_is_stopped(emitter):
    emitter.on("e", EventPriority.HIGHEST)(
        lambda event: setattr(event, "propagate", False)
    )
    waiting = asyncio.create_task(emitter.wait_for("e"))
    await asyncio.sleep(0)
    await emitter.emit("e", 5)

    assert (await waiting).data == 5


def test_wait_for_is_limited():
    async def main():
        emitter = EventEmitter()
        with pytest.raises(OurTimeoutError, match="no event 'e' in 2 seconds"):
            await emitter.wait_for("e", timeout=2)
        assert asyncio.get_running_loop().time() == 1002
        assert emitter.listener_count() == 0

    virtual_time.run(main())


async def test_a_cancelled_wait_leaves_no_listener(emitter):
    waiting = asyncio.create_task(emitter.wait_for("e"))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert emitter.listener_count() == 0


async def test_a_failing_check_fails_the_wait_only(emitter, heard):
    def check(event):
        raise TimeoutError("the check's own")

    emitter.add_listener("e", heard.append)
    waiting = asyncio.create_task(emitter.wait_for("e", timeout=5, check=check))
    await asyncio.sleep(0)
    await emitter.emit("e")

    with pytest.raises(TimeoutError, match="the check's own") as caught:
        await waiting
    assert not isinstance(caught.value, OurTimeoutError)
    assert len(heard) == 1


@pytest.mark.parametrize("bad", ["", None, 3, b"e", ["e"], True])
async def test_names_are_checked(emitter, bad):
    async def nothing(event): ...

    for use in (
        lambda: emitter.on(bad),
        lambda: emitter.once(bad),
        lambda: emitter.add_listener(bad, nothing),
    ):
        with pytest.raises((ValueError, TypeError), match="event_name must be non-emp"):
            use()
    with pytest.raises((ValueError, TypeError), match="event_name must be non-empty"):
        await emitter.emit(bad)
    with pytest.raises((ValueError, TypeError), match="event_name must be non-empty"):
        await emitter.wait_for(bad)


async def test_a_pattern_cannot_be_emitted(emitter):
    with pytest.raises(ValueError, match=r"event_name must be a name without '\*'"):
        await emitter.emit("user.*")


async def test_other_arguments_are_checked(emitter):
    with pytest.raises(TypeError, match="listener must be callable, got 3"):
        emitter.add_listener("e", 3)
    with pytest.raises(TypeError, match="callback must be callable, got 3"):
        emitter.on_error(3)
    for bad in (3, None, "HIGH", True):
        with pytest.raises(TypeError, match="priority must be an EventPriority"):
            emitter.on("e", bad)
    for bad in (-1, math.nan, math.inf, True, "1"):
        with pytest.raises((ValueError, TypeError), match="timeout must be a finite"):
            await emitter.wait_for("e", timeout=bad)
    with pytest.raises(TypeError, match="check must be a plain callable"):
        await emitter.wait_for("e", check=3)

    async def check(event):
        """Not awaited by anyone, and true."""

    with pytest.raises(TypeError, match="check must be a plain callable"):
        await emitter.wait_for("e", check=check)


def test_wait_for_is_limited_also_in_a_task_that_is_being_cancelled():
    async def main():
        emitter = EventEmitter()
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            with pytest.raises(OurTimeoutError, match="no event 'e' in 2 seconds"):
                await emitter.wait_for("e", timeout=2)
            assert emitter.listener_count() == 0
            raise

    async def cancelled():
        task = asyncio.create_task(main())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait((task,))
        assert task.cancelled()

    virtual_time.run(cancelled())


async def test_made_up_names_take_no_memory_for_ever(emitter):
    for n in range(5000):
        await emitter.emit(f"user.{n}")

    assert len(emitter._routes) <= emitter._MAX_ROUTES


def test_an_event_can_be_made_by_hand():
    event = Event("e", 5)

    assert (event.name, event.data, event.propagate, event.metadata) == (
        "e",
        5,
        True,
        {},
    )
