"""The executor against ten lines of list scheduling, on virtual time."""

import asyncio
import heapq
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import virtual_time
from mtaio.core import TaskExecutor

# Whole seconds, so that the model's sums are exact.
SECONDS = st.lists(st.integers(0, 5), max_size=30)
WORKERS = st.integers(1, 6)
START = virtual_time.VirtualClock().now


def finish_times(seconds, workers):
    """When each item ends if the first free worker takes the next one."""
    free = [0.0] * workers
    ends = []
    for length in seconds:
        ends.append(heapq.heappop(free) + length)
        heapq.heappush(free, ends[-1])
    return ends


def now():
    return asyncio.get_running_loop().time() - START


async def items(values, is_async):
    for value in values:
        yield value


def source(values, is_async):
    return items(values, is_async) if is_async else iter(values)


@given(SECONDS, WORKERS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_map_takes_as_long_as_list_scheduling(seconds, workers, is_async):
    ended = {}

    async def work(pair):
        number, length = pair
        await asyncio.sleep(length)
        ended[number] = now()
        return number

    async def main():
        given = source(enumerate(seconds), is_async)
        return await TaskExecutor(workers).map(work, given)

    assert virtual_time.run(main()) == list(range(len(seconds)))
    assert [ended[n] for n in range(len(seconds))] == finish_times(seconds, workers)


@given(SECONDS, WORKERS, st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_stream_taken_at_once_yields_at_list_schedulings_times(
    seconds, workers, is_async
):
    async def work(pair):
        await asyncio.sleep(pair[1])
        return pair[0]

    async def main():
        given = source(enumerate(seconds), is_async)
        return [(n, now()) async for n in TaskExecutor(workers).stream(work, given)]

    got = virtual_time.run(main())

    ends = finish_times(seconds, workers)
    assert dict(got) == dict(enumerate(ends))
    assert [when for _, when in got] == sorted(ends)


@given(
    SECONDS,
    WORKERS,
    st.booleans(),
    st.lists(st.integers(0, 3), max_size=30),
    st.integers(0, 30),
)
@settings(max_examples=150, deadline=None)
def test_a_stream_under_any_consumer_keeps_its_window_and_its_order(
    seconds, workers, ordered, pauses, leave_after
):
    begun = handed = running = most_ahead = most_running = 0

    async def work(pair):
        nonlocal begun, running, most_ahead, most_running
        begun += 1
        running += 1
        most_ahead = max(most_ahead, begun - handed)
        most_running = max(most_running, running)
        try:
            await asyncio.sleep(pair[1])
        finally:
            running -= 1
        return pair[0]

    async def main():
        nonlocal handed
        got = []
        stream = TaskExecutor(workers).stream(work, enumerate(seconds), ordered=ordered)
        async with aclosing(stream) as results:
            async for number in results:
                handed += 1
                got.append(number)
                if len(got) > leave_after:
                    break
                await asyncio.sleep(pauses[len(got) % len(pauses)] if pauses else 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        return got

    got = virtual_time.run(main())

    assert len(got) == min(len(seconds), leave_after + 1)
    assert len(set(got)) == len(got)
    assert running == 0
    assert most_running <= workers
    assert most_ahead <= 2 * workers
    if ordered:
        assert got == list(range(len(got)))


@given(SECONDS, WORKERS, st.integers(0, 29), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_failure_ends_the_call_when_it_happens(seconds, workers, bad, is_async):
    running = 0

    async def work(pair):
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(pair[1])
        finally:
            running -= 1
        if pair[0] == bad:
            raise KeyError(bad)

    async def main():
        given = source(enumerate(seconds), is_async)
        try:
            await TaskExecutor(workers).map(work, given)
        except KeyError as error:
            assert asyncio.all_tasks() == {asyncio.current_task()}
            return error.args, now()
        return None

    outcome = virtual_time.run(main())

    if bad < len(seconds):
        assert outcome == ((bad,), finish_times(seconds, workers)[bad])
    else:
        assert outcome is None
    assert running == 0


@given(SECONDS, WORKERS, st.integers(0, 60), st.sampled_from(["map", "stream", "run"]))
@settings(max_examples=150, deadline=None)
def test_a_cancellation_ends_the_call_when_it_comes(seconds, workers, moment, call):
    running = 0

    async def work(pair):
        nonlocal running
        running += 1
        try:
            await asyncio.sleep(pair[1])
        finally:
            running -= 1

    async def body():
        executor = TaskExecutor(workers)

        async def run(length):
            await executor.run(work((0, length)))

        if call == "map":
            await executor.map(work, enumerate(seconds))
        elif call == "stream":
            async with aclosing(executor.stream(work, enumerate(seconds))) as results:
                async for _ in results:
                    pass
        else:
            await asyncio.gather(*map(run, seconds))

    async def main():
        task = asyncio.create_task(body())
        asyncio.get_running_loop().call_later(moment, task.cancel)
        await asyncio.wait([task])
        assert now() <= moment
        return task

    task = virtual_time.run(main())

    length = max(finish_times(seconds, workers), default=0)
    if length != moment:
        assert task.cancelled() == (moment < length)
    assert running == 0


@pytest.mark.parametrize("count", [1_000, 100_000])
async def test_memory_does_not_grow_with_the_length(count):
    import tracemalloc

    async def trivial(n):
        return None

    executor = TaskExecutor(100)
    tracemalloc.start()
    try:
        async for _ in executor.stream(trivial, range(count)):
            pass
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    # 100 workers with their tasks and places; measured 0.3 MB at both lengths.
    assert peak < 1_500_000
