"""TaskExecutor: few workers, nothing left behind, errors as they were."""

import asyncio
import contextlib
import contextvars
import itertools
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import virtual_time
from mtaio.core import AsyncQueue, Latch, LIFOQueue, PriorityQueue, TaskExecutor
from mtaio.exceptions import ExecutionError
from mtaio.exceptions import TimeoutError as OurTimeoutError


def others() -> set[asyncio.Task]:
    return asyncio.all_tasks() - {asyncio.current_task()}


async def double(x):
    return x * 2


async def double_later(x):
    await asyncio.sleep(1 / (1 + x % 7))
    return x * 2


class Named:
    def __init__(self, name) -> None:
        self.name = name

    async def __call__(self, x):
        """Not what making one calls."""


class Peak:
    """Counts how many run at once."""

    def __init__(self) -> None:
        self.now = self.most = self.calls = 0

    async def __call__(self, x):
        self.now += 1
        self.calls += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(1)
        finally:
            self.now -= 1
        return x


async def numbers(count):
    for n in range(count):
        await asyncio.sleep(0)
        yield n


@pytest.mark.parametrize("bad", [0, -1, True, 1.0, "4", None, 2**64])
def test_max_workers_is_checked(bad):
    with pytest.raises((ValueError, TypeError), match="max_workers must be an int"):
        TaskExecutor(max_workers=bad)


async def test_a_limit_is_checked_and_the_refused_coroutines_are_closed():
    for bad in (0, -1, True, 1.5, "2"):
        with pytest.raises((ValueError, TypeError), match="limit must be an int"):
            await TaskExecutor(2).gather(double(1), double(2), limit=bad)


async def test_a_class_is_called_as_any_plain_function_even_if_its_objects_are_async():
    assert [type(o) for o in await TaskExecutor(1).map(Named, "ab")] == [Named] * 2


async def test_arguments_of_map_are_checked():
    executor = TaskExecutor(2)

    for func, sources in [(None, [[1]]), (double, []), (double, [3]), (double, [None])]:
        with pytest.raises(TypeError, match=r"func must be|sources must be"):
            await executor.map(func, *sources)
        with pytest.raises(TypeError, match=r"func must be|sources must be"):
            executor.stream(func, *sources)
    with pytest.raises(TypeError, match="on_progress must be a plain callable, got 3"):
        await executor.map(double, [1], on_progress=3)
    with pytest.raises(TypeError, match="on_progress must be a plain callable"):
        await executor.map(double, [1], on_progress=double)


def test_an_executor_made_outside_a_loop_serves_many_loops():
    executor = TaskExecutor(max_workers=3)

    for _ in range(2):
        assert asyncio.run(executor.map(double, range(5))) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("func", [double, double_later, lambda x: x * 2])
def test_map_keeps_the_order(func):
    got = virtual_time.run(TaskExecutor(4).map(func, range(50)))

    assert got == [x * 2 for x in range(50)]


async def test_map_reads_several_sources_together_sync_or_async():
    async def pair(a, b):
        return a, b

    executor = TaskExecutor(2)

    assert await executor.map(pair, [1, 2, 3], "ab") == [(1, "a"), (2, "b")]
    assert await executor.map(pair, numbers(2), itertools.count(7)) == [(0, 7), (1, 8)]
    assert await executor.map(pair, [], numbers(2)) == []


@pytest.mark.parametrize("source", [lambda: range(20), lambda: numbers(20)])
@pytest.mark.parametrize("limit", [None, 1, 3, 100])
def test_no_more_run_at_once_than_allowed(source, limit):
    work = Peak()

    virtual_time.run(TaskExecutor(5).map(work, source(), limit=limit))

    assert work.calls == 20
    assert work.most == min(5, limit or 5)


def test_work_goes_on_at_full_width():
    async def main():
        begun = asyncio.get_running_loop().time()
        await TaskExecutor(10).map(Peak(), range(100))
        return asyncio.get_running_loop().time() - begun

    assert virtual_time.run(main()) == pytest.approx(10)


async def test_gather_takes_any_awaitable_and_keeps_the_order():
    future = asyncio.get_running_loop().create_future()
    future.set_result("f")
    task = asyncio.create_task(double(4))

    got = await TaskExecutor(2).gather(double(1), future, task, double(2))

    assert got == [2, "f", 8, 4]
    assert await TaskExecutor(2).gather() == []


async def test_the_only_failure_surfaces_as_itself_with_its_traceback():
    async def fail(x):
        if x == 3:
            raise KeyError(x)
        await asyncio.sleep(10)

    with pytest.raises(KeyError) as caught:
        await TaskExecutor(4).map(fail, range(10))

    assert caught.value.args == (3,)
    assert any(frame.name == "fail" for frame in caught.traceback)
    assert others() == set()


async def test_several_failures_surface_as_a_group():
    others_began = asyncio.Barrier(3)

    async def fail(x):
        await others_began.wait()
        try:
            await asyncio.sleep(0 if x == 0 else 100)
        finally:
            raise ValueError(x)

    with pytest.raises(ExceptionGroup) as caught:
        await TaskExecutor(3).map(fail, range(10))

    assert sorted(e.args[0] for e in caught.value.exceptions) == [0, 1, 2]
    assert others() == set()


async def test_a_failure_stops_the_source_from_being_read():
    source = itertools.count()

    async def fail(x):
        raise ValueError

    with pytest.raises(ValueError):
        await TaskExecutor(2).map(fail, source)

    assert next(source) <= 2


async def test_a_failing_source_surfaces():
    def broken():
        yield 1
        raise LookupError("source")

    async def broken_async():
        yield 1
        raise LookupError("source")

    for source in (broken, broken_async):
        with pytest.raises(LookupError, match="source"):
            await TaskExecutor(3).map(double, source())


async def test_a_task_that_cancels_itself_is_a_failure_and_not_a_cancellation():
    async def odd(x):
        raise asyncio.CancelledError

    with pytest.raises(ExecutionError, match="cancelled by its own code"):
        await TaskExecutor(2).map(odd, [1])

    [got] = await TaskExecutor(2).map(odd, [1], return_exceptions=True)
    assert isinstance(got, asyncio.CancelledError)


async def test_failures_can_be_results():
    async def fail(x):
        if x % 2:
            raise ValueError(x)
        return x

    got = await TaskExecutor(2).map(fail, range(4), return_exceptions=True)

    assert got[::2] == [0, 2]
    assert [type(g) for g in got[1::2]] == [ValueError, ValueError]


async def test_a_cancelled_caller_cancels_its_work():
    work = Peak()
    caller = asyncio.create_task(TaskExecutor(3).map(work, itertools.count()))
    await asyncio.sleep(0.01)
    assert work.now == 3

    caller.cancel("enough")
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await caller

    assert work.now == 0
    assert others() == set()


async def test_work_that_swallows_the_cancellation_takes_no_more_items():
    taken = []

    async def stubborn(x):
        taken.append(x)
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)

    for workers in (1, 3):
        taken.clear()
        caller = asyncio.create_task(TaskExecutor(workers).map(stubborn, range(99)))
        await asyncio.sleep(0.01)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller

        assert len(taken) == workers


async def test_a_failure_met_by_a_cancellation_is_reported_and_the_caller_cancelled():
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, c: reported.append(c))

    async def fail(x):
        try:
            await asyncio.sleep(10)
        finally:
            raise ValueError("cleanup")

    caller = asyncio.create_task(TaskExecutor(1).map(fail, range(3)))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller

    assert [str(c["exception"]) for c in reported] == ["cleanup"]


async def test_leaving_the_block_leaves_no_task():
    async with TaskExecutor(3) as executor:
        async for got in executor.stream(double, itertools.count()):
            if got > 10:
                break
        waiting = asyncio.create_task(executor.map(Peak(), range(9)))
        running = asyncio.create_task(executor.run(asyncio.sleep(100)))
        await asyncio.sleep(0.01)

    for task in (waiting, running):
        with pytest.raises(ExecutionError, match="executor was closed"):
            await task
    await asyncio.sleep(0)
    assert others() == set()


async def test_a_cancelled_leave_still_waits_for_every_task():
    ended = 0

    async def slow_to_end(x):
        nonlocal ended
        try:
            await asyncio.sleep(100)
        finally:
            try:
                await asyncio.sleep(0.01)
            finally:
                ended += 1

    async def leave():
        async with executor:
            await asyncio.sleep(0.01)

    executor = TaskExecutor(2)
    leaving = asyncio.create_task(leave())
    await asyncio.sleep(0)
    calls = [asyncio.create_task(executor.map(slow_to_end, [1, 2])) for _ in range(2)]
    await asyncio.sleep(0.015)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving

    assert ended == 4
    for got in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(got, ExecutionError)


async def test_an_executor_closed_by_its_own_work_does_not_deadlock():
    executor = TaskExecutor(2)

    async def close(x):
        await executor.aclose()

    with pytest.raises(ExecutionError, match="executor was closed"):
        await executor.map(close, range(5))

    assert others() == set()


async def test_a_closed_executor_refuses_until_entered_again():
    executor = TaskExecutor(2)
    async with executor:
        pass

    with pytest.raises(ExecutionError, match="executor is closed"):
        await executor.map(double, [1])
    with pytest.raises(ExecutionError, match="executor is closed"):
        await executor.gather(double(1))
    with pytest.raises(ExecutionError, match="executor is closed"):
        await executor.run(double(1))
    with pytest.raises(ExecutionError, match="executor is closed"):
        await anext(executor.stream(double, [1]))
    with pytest.raises(ExecutionError, match="executor is closed"):
        await executor.run_in_thread(time.time)
    async with executor:
        assert await executor.run(double(1)) == 2


async def test_run_gives_the_result_or_the_error():
    async def fail():
        raise KeyError("own")

    executor = TaskExecutor(1)

    assert await executor.run(double(4)) == 8
    with pytest.raises(KeyError, match="own"):
        await executor.run(fail())


@pytest.mark.parametrize("ordered", [False, True])
def test_an_async_sources_length_is_not_how_many_items_it_will_give(ordered):
    class Channel:
        """As long as what waits in it now."""

        def __len__(self):
            return 0

        async def __aiter__(self):
            for n in range(6):
                yield n

    async def main():
        work, executor = Peak(), TaskExecutor(3)
        assert await executor.map(work, Channel()) == list(range(6))
        stream = executor.stream(work, Channel(), ordered=ordered)
        assert sorted([n async for n in stream]) == list(range(6))
        assert work.most == 3

    virtual_time.run(main())


def test_runs_share_max_workers_places_first_come_first_served():
    async def main():
        work, executor = Peak(), TaskExecutor(3)
        got = await asyncio.gather(*(executor.run(work(n)) for n in range(9)))
        assert got == list(range(9))
        assert work.most == 3
        assert asyncio.get_running_loop().time() == pytest.approx(1003)

    virtual_time.run(main())


def test_a_run_inside_a_run_shares_its_place():
    async def main():
        executor = TaskExecutor(1)

        async def outer():
            inner = await executor.run(double(2))

            async def again(n):
                return await executor.run(double(n))

            return inner, await executor.map(again, [5, 6])

        assert await executor.run(outer()) == (4, [10, 12])

    virtual_time.run(main())


def test_a_task_that_outlives_its_run_waits_for_a_place_as_others_do():
    async def main():
        work, executor = Peak(), TaskExecutor(1)
        left = []

        async def later():
            await asyncio.sleep(1)
            return await asyncio.gather(*(executor.run(work(n)) for n in range(3)))

        async def start():
            left.append(asyncio.create_task(later()))

        await executor.run(start())
        assert await left[0] == [0, 1, 2]
        assert work.most == 1

    virtual_time.run(main())


def test_the_timeout_of_a_run_covers_its_wait_for_a_place():
    async def main():
        executor = TaskExecutor(1)
        first = asyncio.create_task(executor.run(asyncio.sleep(10)))
        await asyncio.sleep(0)
        with pytest.raises(OurTimeoutError):
            await executor.run(asyncio.sleep(0), timeout=1)
        assert asyncio.get_running_loop().time() == pytest.approx(1001)
        await first
        await executor.run(asyncio.sleep(0))

    virtual_time.run(main())


def test_run_is_limited_by_its_timeout():
    async def main():
        with pytest.raises(OurTimeoutError, match="timed out after 2 seconds"):
            await TaskExecutor(1).run(asyncio.sleep(3), timeout=2)
        for bad in (-1, float("nan"), float("inf"), True, "1"):
            with pytest.raises((ValueError, TypeError), match="timeout must be"):
                await TaskExecutor(1).run(asyncio.sleep(0), timeout=bad)
        with pytest.raises(TypeError, match="coro must be awaitable, got 3"):
            await TaskExecutor(1).run(3)
        assert others() == set()

    virtual_time.run(main())


@pytest.mark.parametrize("func", [double, double_later])
@pytest.mark.parametrize("source", [lambda: range(40), lambda: numbers(40)])
def test_a_stream_yields_every_result_once(func, source):
    async def main():
        executor = TaskExecutor(5)
        loose = [r async for r in executor.stream(func, source())]
        ordered = [r async for r in executor.stream(func, source(), ordered=True)]
        return loose, ordered

    loose, ordered = virtual_time.run(main())

    assert sorted(loose) == ordered == [x * 2 for x in range(40)]


def test_an_unordered_stream_yields_as_they_come():
    async def wait(x):
        await asyncio.sleep(x)
        return x

    async def main():
        return [r async for r in TaskExecutor(3).stream(wait, [3, 1, 2])]

    assert virtual_time.run(main()) == [1, 2, 3]


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("is_async", [False, True])
async def test_a_stream_reads_no_further_than_its_consumer(ordered, is_async):
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield read

    async def endless_async():
        for n in endless():
            yield n

    source = endless_async() if is_async else endless()
    stream = TaskExecutor(4).stream(double, source, ordered=ordered)
    for taken in range(1, 50):
        await anext(stream)
        await asyncio.sleep(0.0001)
        assert read <= taken + 2 * 4
    await stream.aclose()

    assert others() == set()


@pytest.mark.parametrize("ordered", [False, True])
async def test_a_failure_ends_a_stream(ordered):
    async def fail(x):
        if x == 7:
            raise ValueError(x)
        await asyncio.sleep(0)
        return x

    with pytest.raises(ValueError, match="7"):
        async for _ in TaskExecutor(3).stream(fail, itertools.count(), ordered=ordered):
            pass

    assert others() == set()


async def test_a_cancelled_consumer_ends_its_stream():
    work = Peak()

    async def consume():
        async for _ in TaskExecutor(3).stream(work, itertools.count()):
            pass

    consumer = asyncio.create_task(consume())
    await asyncio.sleep(0.01)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer

    assert work.now == 0
    assert others() == set()


async def test_progress_counts_to_the_total():
    seen = []

    await TaskExecutor(2).map(
        double, [1, 2, 3], on_progress=lambda done, total: seen.append((done, total))
    )
    await TaskExecutor(2).map(
        double, iter([1, 2]), on_progress=lambda done, total: seen.append((done, total))
    )
    await TaskExecutor(2).gather(
        double(1), on_progress=lambda done, total: seen.append((done, total))
    )

    assert seen == [(1, 3), (2, 3), (3, 3), (1, None), (2, None), (1, 1)]


async def test_a_failing_progress_callback_fails_the_call():
    with pytest.raises(ZeroDivisionError):
        await TaskExecutor(2).map(double, [1], on_progress=lambda d, t: d / 0)


async def test_trivial_items_let_the_loop_turn():
    turns = 0
    done = False

    async def ticker():
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    async def burn(x):
        end = time.perf_counter() + 20e-6
        while time.perf_counter() < end:
            pass

    ticking = asyncio.create_task(ticker())
    await TaskExecutor(50).map(burn, range(2000))
    done = True
    await ticking

    # 40 ms of work in slices of 1 ms; slower machines only turn more often.
    assert turns >= 20


async def test_a_nested_call_in_a_task_does_not_deadlock():
    executor = TaskExecutor(1)

    async def outer(x):
        return await executor.map(double, range(x))

    assert await executor.map(outer, [1, 2]) == [[0], [0, 2]]


async def test_a_thread_sees_context_and_gives_result_or_error():
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(5)
    executor = TaskExecutor(2)

    def look(a, *, b):
        return variable.get(), a, b, threading.current_thread().name

    got = await executor.run_in_thread(look, 1, b=2)

    assert got[:3] == (5, 1, 2)
    assert got[3].startswith("mtaio-executor")
    with pytest.raises(KeyError):
        await executor.run_in_thread({}.__getitem__, 1)
    await executor.aclose()


async def test_stop_iteration_in_a_thread_is_an_error_and_no_hang():
    async with TaskExecutor(1) as executor:
        with pytest.raises(RuntimeError, match="StopIteration"):
            await executor.run_in_thread(next, iter(()))


async def test_what_an_abandoned_thread_raises_is_logged(caplog):
    leave = threading.Event()

    def fail():
        leave.wait(10)
        raise KeyError("late")

    async with TaskExecutor(1) as executor:
        caller = asyncio.create_task(executor.run_in_thread(fail))
        await asyncio.sleep(0.01)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        leave.set()

    assert "an abandoned call in a thread failed" in caplog.text
    assert "KeyError: 'late'" in caplog.text


async def test_leaving_waits_for_threads():
    finished = threading.Event()

    async with TaskExecutor(1) as executor:
        waiting = asyncio.create_task(
            executor.run_in_thread(lambda: (time.sleep(0.05), finished.set()))
        )
        await asyncio.sleep(0.01)

    assert finished.is_set()
    with pytest.raises(ExecutionError, match="executor was closed"):
        await waiting


async def test_priority_queue_gives_the_lowest_first_and_equals_in_order():
    queue = PriorityQueue[dict]()
    for name, priority in [("c", 2), ("a", -1.5), ("d", 2), ("b", 0)]:
        await queue.put({"name": name}, priority)
    queue.put_nowait({"name": "f"}, 10**400)
    queue.put_nowait({"name": "e"}, 9)

    assert [queue.get_nowait()["name"] for _ in range(6)] == list("abcdef")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), True, "1", None])
async def test_a_priority_is_a_finite_number(bad):
    with pytest.raises((ValueError, TypeError), match="priority must be a finite"):
        await PriorityQueue().put("x", bad)
    with pytest.raises((ValueError, TypeError), match="priority must be a finite"):
        PriorityQueue().put_nowait("x", bad)


async def test_queues_are_asyncios_own():
    lifo = LIFOQueue[int](maxsize=2)
    lifo.put_nowait(1)
    await lifo.put(2)

    with pytest.raises(asyncio.QueueFull):
        lifo.put_nowait(3)
    assert [await lifo.get(), await lifo.get()] == [2, 1]
    lifo.task_done()
    lifo.task_done()
    await lifo.join()
    fifo = AsyncQueue[int]()
    fifo.put_nowait(1)
    fifo.put_nowait(2)
    assert [await fifo.get(), fifo.get_nowait(), fifo.empty()] == [1, 2, True]


async def test_a_full_priority_queue_makes_put_wait():
    queue = PriorityQueue[str](maxsize=1)
    await queue.put("late", 5)
    putting = asyncio.create_task(queue.put("soon", 1))
    await asyncio.sleep(0)
    assert not putting.done()

    assert await queue.get() == "late"
    await putting
    assert await queue.get() == "soon"


@pytest.mark.parametrize("kind", [AsyncQueue, PriorityQueue, LIFOQueue])
@pytest.mark.parametrize("bad", [-1, True, 1.0, "1", None])
def test_maxsize_is_checked(kind, bad):
    with pytest.raises((ValueError, TypeError), match="maxsize must be an int >= 0"):
        kind(maxsize=bad)


def test_a_latch_opens_when_counted_down():
    async def main():
        latch = Latch(2)
        assert await latch.wait(timeout=5) is False
        await latch.count_down()
        waiting = asyncio.create_task(latch.wait())
        await asyncio.sleep(0)
        assert (waiting.done(), latch.get_count()) == (False, 1)
        latch.count_down_nowait()
        assert await waiting is True
        latch.count_down_nowait()
        assert latch.get_count() == 0
        assert await latch.wait(0) is True
        assert await Latch(0).wait() is True

    virtual_time.run(main())


def test_a_latchs_limit_works_in_a_task_that_is_being_cancelled():
    async def work():
        try:
            await asyncio.sleep(10)
        finally:
            assert await Latch(1).wait(1) is False

    async def main():
        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.get_running_loop().time() == pytest.approx(1001)

    virtual_time.run(main())


async def test_a_latch_checks_its_arguments():
    for bad in (-1, True, 1.0, "1", None):
        with pytest.raises((ValueError, TypeError), match="count must be an int >= 0"):
            Latch(bad)
    for bad in (-1, float("nan"), float("inf"), True, "1"):
        with pytest.raises((ValueError, TypeError), match="timeout must be a finite"):
            await Latch(1).wait(bad)


class Ways:
    """One call of each kind, for loops and factories of other kinds."""

    @staticmethod
    async def all(executor):
        assert await executor.map(double, range(300)) == [n * 2 for n in range(300)]
        assert await executor.map(double_soon, range(20)) == list(range(0, 40, 2))
        assert await executor.gather(double(1), double_soon(2)) == [2, 4]
        assert await executor.run(double_soon(3), timeout=5) == 6
        assert await executor.run_in_thread(divmod, 7, 2) == (3, 1)
        got = [r async for r in executor.stream(double_soon, range(20), ordered=True)]
        assert got == list(range(0, 40, 2))
        with pytest.raises(KeyError):
            await executor.map(fail_at_three, range(300))
        assert others() == set()


async def double_soon(x):
    await asyncio.sleep(0)
    return x * 2


async def fail_at_three(x):
    if x == 3:
        raise KeyError(x)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
async def test_eager_tasks_change_nothing():
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)

    async with TaskExecutor(4) as executor:
        await Ways.all(executor)


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop isn't for Windows")
def test_uvloop_changes_nothing():
    import uvloop

    async def main():
        async with TaskExecutor(4) as executor:
            await Ways.all(executor)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def test_loops_in_four_threads_share_one_executor():
    executor = TaskExecutor(4)

    def serve(_):
        asyncio.run(Ways.all(executor))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(serve, range(4)))
    asyncio.run(executor.aclose())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_gets_threads_of_its_own():
    executor = TaskExecutor(1)
    assert asyncio.run(executor.run_in_thread(os.getpid)) == os.getpid()

    child = os.fork()
    if child == 0:
        try:
            answer = asyncio.run(executor.run_in_thread(os.getpid))
            os._exit(0 if answer == os.getpid() else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    asyncio.run(executor.aclose())
