"""Cancelled at any instant: after k turns of the loop, for every k there is.

Each case runs anew for k = 0, 1, 2, ... until it ends before the cancellation.
Whatever k: the caller ends as cancelled or with its result, no task is left, no
coroutine was "never awaited" (warnings are errors here), what was begun ended,
and the loop was told of nothing but failures that met the cancellation.
"""

import asyncio
import gc
import itertools
import weakref
from contextlib import aclosing

import pytest

import virtual_time
from mtaio.core import TaskExecutor
from mtaio.events import EventEmitter
from mtaio.exceptions import ExecutionError
from mtaio.exceptions import TimeoutError as OurTimeoutError
from mtaio.resources import TimeoutContext, TimeoutGroup, TimeoutManager

FAILURES = {KeyError, OurTimeoutError}


class Work:
    """Counts what began and what ended, whichever way."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        # A caller besides the cancelled one.
        self.other: asyncio.Task | None = None

    async def __call__(self, turns=3):
        self.begun += 1
        try:
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.sleep(1)
        finally:
            try:
                # An end that takes time must be waited for, too.
                await asyncio.sleep(0)
            finally:
                self.ended += 1
        return turns


async def numbers(count):
    for n in range(count):
        await asyncio.sleep(0)
        yield n


async def run(work):
    await TaskExecutor(2).run(work())


async def run_with_timeout(work):
    await TaskExecutor(2).run(work(), timeout=0.5)


async def gather(work):
    await TaskExecutor(2).gather(*(work() for _ in range(5)))


async def map_sync(work):
    await TaskExecutor(2).map(work, range(5))


async def map_async(work):
    await TaskExecutor(2).map(work, numbers(5))


async def map_trivial(work):
    async def trivial(n):
        return n

    await TaskExecutor(3).map(trivial, range(20))
    await work()


async def map_forgiving(work):
    await TaskExecutor(2).map(work, range(5), return_exceptions=True)


async def map_failing(work):
    async def fail(n):
        await work(n)
        if n == 3:
            raise KeyError(n)

    await TaskExecutor(2).map(fail, range(5))


async def stream(work):
    async with aclosing(TaskExecutor(2).stream(work, range(5))) as results:
        async for _ in results:
            await asyncio.sleep(0)


async def stream_ordered(work):
    source = TaskExecutor(2).stream(work, numbers(5), ordered=True)
    async with aclosing(source) as results:
        async for _ in results:
            await asyncio.sleep(0)


async def stream_left_early(work):
    async with TaskExecutor(2) as executor:
        async for _ in executor.stream(work, itertools.count()):
            break


async def entered(work):
    async with TaskExecutor(2) as executor:
        work.other = asyncio.create_task(executor.map(work, range(5)))
        await work(2)


async def nested(work):
    executor = TaskExecutor(2)

    async def inner(n):
        return await executor.gather(work(), work(n))

    await executor.map(inner, range(3))


async def manager(work):
    await TimeoutManager(10).run(work())


async def manager_late(work):
    await TimeoutManager(0.5).run(work())


async def context(work):
    async with TimeoutContext(0.5):
        await work()


async def group(work):
    async with TimeoutGroup() as tasks:
        tasks.create_task(work(), timeout=5)
        tasks.create_task(work(1), timeout=6)
        await tasks.gather()


async def group_late(work):
    async with TimeoutGroup(0.5) as tasks:
        tasks.create_task(work())
        await work()


async def group_with_a_late_task(work):
    async with TimeoutGroup() as tasks:
        tasks.create_task(work(), timeout=0.5)
        tasks.create_task(work(1))


async def emit(work):
    emitter = EventEmitter()
    emitter.on("e")(lambda event: work())
    emitter.once("*")(lambda event: work(1))
    emitter.on_error(lambda event, error: None)
    await emitter.emit("e")


CASES = [
    run, run_with_timeout, gather, map_sync, map_async, map_trivial, map_forgiving,
    map_failing, stream, stream_ordered, stream_left_early, entered, nested, manager,
    manager_late, context, group, group_late, group_with_a_late_task, emit,
]  # fmt: skip


async def cancel_after(turns, case, *, times=1):
    """Run `case`, cancel it after that many turns; return whether it got so far."""
    reported = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    work = Work()
    task = asyncio.create_task(case(work))
    for _ in range(turns):
        await asyncio.sleep(0)
        # While this test keeps the loop busy its time stands still: move it.
        loop.clock.advance(0.1)
        if task.done():
            break
    reached = not task.done()

    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    await asyncio.wait([task])
    if work.other is not None:
        # Leaving the executor left none of its tasks, whoever called it.
        assert work.begun == work.ended
        await asyncio.wait([work.other])
        assert isinstance(work.other.exception(), ExecutionError)

    if not task.cancelled() and (error := task.exception()) is not None:
        assert isinstance(error, tuple(FAILURES)), error
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert work.begun == work.ended
    assert {type(context["exception"]) for context in reported} <= FAILURES
    return reached


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("times", [1, 2])
def test_cancelled_after_any_turn_nothing_is_left(case, times):
    turns = 0
    while virtual_time.run(cancel_after(turns, case, times=times)):
        turns += 1
    gc.collect()

    assert turns > 5


@pytest.mark.parametrize(
    "call",
    [
        lambda work: TimeoutManager(1).run(work),
        lambda work: TaskExecutor(1).run(work, timeout=1),
        lambda work: TaskExecutor(1).gather(work, work),
    ],
    ids=["TimeoutManager.run", "TaskExecutor.run", "TaskExecutor.gather"],
)
async def test_a_call_dropped_before_its_first_step_closes_what_it_was_given(call):
    # A warning of "never awaited" would be an error here.
    work = Work()
    task = asyncio.create_task(call(work()))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    call(work()).close()

    assert work.begun == 0


class Local:
    """Stands for what the code inside holds: a connection, a large body."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
@pytest.mark.parametrize("end", ["result", "error", "cancellation"])
def test_what_the_code_inside_held_is_freed_at_once(case, end):
    # Reference cycles (an error holds its frames) would keep it until the
    # collector comes, so the collector is off.
    held = []

    async def work(turns=0):
        local = Local()
        held.append(weakref.ref(local))
        await asyncio.sleep(0)
        if end == "cancellation":
            await asyncio.sleep(0.2)
        if end == "error":
            raise KeyError(turns)

    async def main():
        work.other = None
        # Else the log, which pytest keeps, holds what is reported.
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        task = asyncio.create_task(case(work))
        await asyncio.sleep(0.1)
        if end == "cancellation":
            task.cancel()
        await asyncio.wait([task])
        if work.other is not None:
            await asyncio.wait([work.other])
            work.other = None
        if not task.cancelled():
            task.exception()
        del task
        await asyncio.sleep(0)
        return [ref for ref in held if ref() is not None]

    gc.collect()
    gc.disable()
    try:
        kept = virtual_time.run(main())
    finally:
        gc.enable()

    assert held or case is stream_left_early
    assert kept == []
