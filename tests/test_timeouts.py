"""Time limits: ours is told from every other, and nothing is left behind."""

import asyncio
import builtins
import math

import pytest

import virtual_time
from mtaio.exceptions import MTAIOError, TimeoutGroupError
from mtaio.exceptions import TimeoutError as OurTimeoutError
from mtaio.resources import TimeoutContext, TimeoutGroup, TimeoutManager

BAD = [-1, -0.001, math.nan, math.inf, True, "1", 10**400]


def now() -> float:
    return asyncio.get_running_loop().time()


def cancels() -> int:
    return asyncio.current_task().cancelling()


def others() -> set[asyncio.Task]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def value():
    return 7


async def by_manager(body, limit):
    return await TimeoutManager(limit).run(body)


async def by_context(body, limit):
    try:
        async with TimeoutContext(limit):
            return await body
    finally:
        if asyncio.iscoroutine(body):
            body.close()


async def by_group(body, limit):
    async with TimeoutGroup() as group:
        task = group.create_task(body, timeout=limit)
    return task.result()


each = pytest.mark.parametrize("limited", [by_manager, by_context, by_group])


@each
def test_in_time_the_result_comes_through(limited):
    async def main():
        assert await limited(value(), 1) == 7
        assert await limited(value(), 0) == 7
        assert cancels() == 0

    virtual_time.run(main())


@each
def test_too_late_is_our_error_at_the_limit_and_no_cancellation_stays(limited):
    async def main():
        begun = now()
        with pytest.raises(
            OurTimeoutError, match="timed out after 2 seconds"
        ) as caught:
            await limited(asyncio.sleep(10), 2)
        assert isinstance(caught.value, builtins.TimeoutError)
        assert isinstance(caught.value, MTAIOError)
        assert now() - begun == pytest.approx(2)
        assert cancels() == 0
        assert others() == set()

    virtual_time.run(main())


@each
def test_an_inner_timeout_error_is_not_mistaken_for_ours(limited):
    async def inner():
        raise builtins.TimeoutError("the body's own")

    async def inner_late():
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise builtins.TimeoutError("the body's own") from None

    async def main():
        for body in (inner, inner_late):
            with pytest.raises(builtins.TimeoutError, match="the body's own") as caught:
                await limited(body(), 2)
            assert not isinstance(caught.value, OurTimeoutError)
            assert cancels() == 0

    virtual_time.run(main())


@each
def test_an_outer_cancellation_is_never_a_timeout(limited):
    async def main():
        # At the very moment of the limit, too.
        for moment in (0, 1, 2, 2.5):
            caller = asyncio.create_task(limited(asyncio.sleep(10), 2))
            asyncio.get_running_loop().call_later(moment, caller.cancel, "outer")
            if moment > 2:
                with pytest.raises(OurTimeoutError):
                    await caller
            else:
                with pytest.raises(asyncio.CancelledError):
                    await caller
                assert caller.cancelled()
            await asyncio.sleep(0)
            assert others() == set()

    # A coroutine that never ran is not ours to close when the task never began.
    virtual_time.run(main())


@each
def test_an_outer_limit_ends_an_inner_one(limited):
    async def main():
        with pytest.raises(OurTimeoutError, match="after 1 seconds"):
            await by_manager(limited(asyncio.sleep(10), 5), 1)
        with pytest.raises(OurTimeoutError, match="after 1 seconds"):
            await by_manager(limited(asyncio.sleep(10), 1), 5)
        assert cancels() == 0

    virtual_time.run(main())


@each
def test_a_limit_works_in_a_task_that_is_being_cancelled(limited):
    async def work():
        try:
            await asyncio.sleep(100)
        finally:
            with pytest.raises(OurTimeoutError):
                await limited(asyncio.sleep(10), 1)
            assert cancels() == 1

    async def main():
        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    virtual_time.run(main())


@pytest.mark.parametrize("bad", BAD)
def test_limits_are_checked(bad):
    with pytest.raises((ValueError, TypeError), match="default_timeout must be a fin"):
        TimeoutManager(bad)
    with pytest.raises((ValueError, TypeError), match=r"^timeout must be a finite"):
        TimeoutContext(bad)
    with pytest.raises((ValueError, TypeError), match=r"^timeout must be a finite"):
        TimeoutGroup(bad)


@pytest.mark.parametrize("bad", BAD)
async def test_a_refused_coroutine_is_closed(bad):
    with pytest.raises((ValueError, TypeError), match=r"^timeout must be a finite"):
        TimeoutManager().run(value(), timeout=bad)
    async with TimeoutGroup() as group:
        with pytest.raises((ValueError, TypeError), match=r"^timeout must be a finite"):
            group.create_task(value(), timeout=bad)


async def test_what_cannot_be_awaited_is_refused_by_the_call_itself():
    with pytest.raises(TypeError, match="coro must be awaitable, got 3"):
        TimeoutManager(1).run(3)
    async with TimeoutGroup() as group:
        with pytest.raises(TypeError, match="coro must be a coroutine, got 3"):
            group.create_task(3)


async def test_a_manager_works_entered_or_not_and_awaits_anything():
    future = asyncio.get_running_loop().create_future()
    future.set_result("f")

    async with TimeoutManager(5) as manager:
        assert await manager.run(value()) == 7
        assert await manager.run(future) == "f"
        assert await manager.run(asyncio.create_task(value()), timeout=1) == 7
    assert await manager.run(value()) == 7
    assert await TimeoutManager().run(value()) == 7
    assert manager.default_timeout == 5.0


def test_the_default_holds_where_no_timeout_is_named():
    async def main():
        manager = TimeoutManager(default_timeout=3)
        for timeout, expected in [(None, 3), (1, 1), (4, 4)]:
            begun = now()
            with pytest.raises(OurTimeoutError):
                await manager.run(asyncio.sleep(10), timeout=timeout)
            assert now() - begun == pytest.approx(expected)

    virtual_time.run(main())


def test_a_context_tells_what_remains():
    async def main():
        limit = TimeoutContext(5)
        assert limit.remaining() is None
        async with limit:
            assert limit.remaining() == pytest.approx(5)
            await asyncio.sleep(2)
            assert limit.remaining() == pytest.approx(3)
            assert not limit.has_expired()
            await limit.check()
        assert limit.remaining() is None
        with pytest.raises(OurTimeoutError):
            async with limit:
                await asyncio.sleep(6)
        assert limit.has_expired()

    virtual_time.run(main())


async def test_check_stops_what_computes_without_waiting():
    with pytest.raises(OurTimeoutError):
        async with TimeoutContext(0) as limit:
            while True:
                await limit.check()


def test_a_context_may_raise_another_error_and_tell_it_first():
    told = []

    async def tell():
        await asyncio.sleep(0)
        told.append("async")

    async def main():
        for callback in (tell, lambda: told.append("sync")):
            with pytest.raises(ConnectionError, match="too slow"):
                async with TimeoutContext(
                    1,
                    on_timeout=callback,
                    exception_type=ConnectionError,
                    error_message="too slow",
                ):
                    await asyncio.sleep(2)
        assert cancels() == 0

    virtual_time.run(main())

    assert told == ["async", "sync"]


def test_a_failing_on_timeout_is_logged_and_the_limit_still_raises(caplog):
    async def main():
        with pytest.raises(OurTimeoutError):
            async with TimeoutContext(1, on_timeout=lambda: 1 / 0):
                await asyncio.sleep(2)

    virtual_time.run(main())

    assert "on_timeout callback" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_a_context_is_for_one_block_at_a_time():
    limit = TimeoutContext(5)
    async with limit:
        with pytest.raises(RuntimeError, match="already entered"):
            await limit.__aenter__()
    with pytest.raises(RuntimeError, match="not entered"):
        await limit.__aexit__(None, None, None)
    async with limit:
        pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_timeout": 3},
        {"exception_type": ValueError("x")},
        {"exception_type": BaseException},
        {"error_message": ""},
        {"error_message": 3},
    ],
)
def test_options_of_a_context_are_checked(wrong):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(wrong))} must be"):
        TimeoutContext(1, **wrong)


def test_a_group_gathers_in_order_of_creation():
    async def wait(seconds):
        await asyncio.sleep(seconds)
        return seconds

    async def main():
        begun = now()
        async with TimeoutGroup() as group:
            for seconds in (3, 1, 2):
                group.create_task(wait(seconds), timeout=5, name=f"wait {seconds}")
            assert await group.gather() == [3, 1, 2]
        assert now() - begun == pytest.approx(3)

    virtual_time.run(main())


def test_a_late_task_ends_its_group():
    async def main():
        begun = now()
        with pytest.raises(OurTimeoutError, match="after 1 seconds"):
            async with TimeoutGroup() as group:
                group.create_task(asyncio.sleep(10), timeout=1)
                group.create_task(asyncio.sleep(10), timeout=5)
                await asyncio.sleep(100)
        assert now() - begun == pytest.approx(1)
        assert cancels() == 0
        assert others() == set()

    virtual_time.run(main())


def test_a_group_can_collect_what_failed():
    async def fail():
        raise KeyError(1)

    async def main():
        async with TimeoutGroup() as group:
            group.create_task(asyncio.sleep(10, "late"), timeout=1)
            group.create_task(asyncio.sleep(5, "in time"), timeout=6)
            group.create_task(fail())
            late, in_time, failed = await group.gather(return_exceptions=True)
        assert isinstance(late, OurTimeoutError)
        assert in_time == "in time"
        assert isinstance(failed, KeyError)

    virtual_time.run(main())


def test_the_groups_own_limit_ends_all():
    async def main():
        for inside in (0, 100):
            with pytest.raises(TimeoutGroupError, match="after 3 seconds") as caught:
                async with TimeoutGroup(timeout=3) as group:
                    group.create_task(asyncio.sleep(10))
                    await asyncio.sleep(inside)
            assert isinstance(caught.value, builtins.TimeoutError)
            assert cancels() == 0
            assert others() == set()

    virtual_time.run(main())


def test_failures_of_block_and_tasks_surface_together():
    async def fail():
        try:
            await asyncio.sleep(100)
        finally:
            raise KeyError("task")

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with TimeoutGroup() as group:
                group.create_task(fail())
                await asyncio.sleep(1)
                raise ValueError("block")
        assert [type(e) for e in caught.value.exceptions] == [ValueError, KeyError]
        assert cancels() == 0

    virtual_time.run(main())


def test_a_failing_block_cancels_its_tasks():
    async def main():
        with pytest.raises(ValueError, match="block"):
            async with TimeoutGroup() as group:
                task = group.create_task(asyncio.sleep(100))
                await asyncio.sleep(1)
                raise ValueError("block")
        assert task.cancelled()
        assert cancels() == 0

    virtual_time.run(main())


def test_an_outer_cancellation_that_meets_a_failure_stays_a_cancellation():
    async def fail():
        try:
            await asyncio.sleep(100)
        finally:
            raise KeyError

    async def grouped():
        async with TimeoutGroup() as group:
            group.create_task(fail())

    async def main():
        reported = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: reported.append(context))
        caller = asyncio.create_task(grouped())
        await asyncio.sleep(1)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert [type(c["exception"]) for c in reported] == [KeyError]
        assert others() == set()

    virtual_time.run(main())


async def test_a_group_takes_tasks_only_while_it_stands():
    group = TimeoutGroup()
    with pytest.raises(TimeoutGroupError, match="not entered"):
        group.create_task(value())
    async with group:
        pass
    with pytest.raises(TimeoutGroupError, match="has ended"):
        group.create_task(value())
    with pytest.raises(RuntimeError, match="already entered"):
        await group.__aenter__()


def test_a_failure_in_the_blocks_last_turn_is_not_lost():
    async def fail():
        raise KeyError("last turn")

    async def main():
        for turns in range(4):
            with pytest.raises(KeyError, match="last turn"):
                async with TimeoutGroup() as group:
                    group.create_task(fail())
                    for _ in range(turns):
                        await asyncio.sleep(0)

    virtual_time.run(main())


def test_what_fails_when_the_groups_limit_passes_comes_with_it():
    async def fail():
        try:
            await asyncio.sleep(100)
        finally:
            raise KeyError("cleanup")

    async def main():
        with pytest.raises(ExceptionGroup) as caught:
            async with TimeoutGroup(timeout=1) as group:
                group.create_task(fail())
        late, failed = caught.value.exceptions
        assert isinstance(late, TimeoutGroupError)
        assert isinstance(failed, KeyError)
        assert cancels() == 0

    virtual_time.run(main())
