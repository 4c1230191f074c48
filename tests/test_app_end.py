"""The grace period, and what is told of a process that outlives it."""

import asyncio
import io
import logging
import sys
import threading
from types import SimpleNamespace

import pytest

import virtual_time
from mtaio import _lifecycle, _process_end
from mtaio._process_end import Grace, keepers
from mtaio.app import Application, ExitCode
from mtaio.exceptions import StartupError


class End:
    """In the place of what ends the process: the due times it was told."""

    def __init__(self, loop=None, code=None):
        self.told, self.code = [], code

    def due(self, at):
        self.told.append(at)


@pytest.fixture
def clock(monkeypatch):
    clock = virtual_time.VirtualClock(100.0)
    monkeypatch.setattr(_process_end, "time", SimpleNamespace(monotonic=clock))
    return clock


def test_it_begins_once_however_often_it_is_asked_for(clock):
    async def main():
        grace, end = Grace(30), End()
        grace.ends_process(end)
        grace.begin()
        clock.advance(5)
        grace.begin()
        return set(end.told), grace.deadline() - asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == ({130}, 25)


def test_one_that_has_begun_ends_the_process_in_time(clock):
    grace, end = Grace(30), End()
    grace.begin()
    clock.advance(5)

    grace.ends_process(end)
    grace.begin()

    assert end.told == [130]


def test_a_deadline_stays_where_it_is(clock):
    async def main():
        grace = Grace(30)
        first = grace.deadline()
        await asyncio.sleep(7)
        return grace.deadline() - first

    assert virtual_time.run(main()) == 0


@pytest.fixture
def ends(monkeypatch):
    """The ends of processes that applications have made; none is a real one."""
    made = []

    def make(loop, code):
        made.append(End(loop, code))
        return made[-1]

    monkeypatch.setattr(_lifecycle, "ProcessEnd", make)
    return made


def test_a_process_is_ended_also_if_there_was_nothing_to_stop(ends):
    async def main():
        app = Application()
        app.request_stop()
        await app.run(ends_process=True)

    virtual_time.run(main())

    assert [len(end.told) for end in ends] == [1]


def test_a_drain_that_no_stop_follows_ends_no_process(ends):
    async def main():
        app = Application()
        running = asyncio.create_task(app.run(ends_process=True))
        await asyncio.sleep(1)
        app.begin_drain()
        await asyncio.sleep(3600)
        told = list(ends[0].told)
        app.request_stop()
        await running
        return told

    assert virtual_time.run(main()) == []
    assert ends[0].told


def test_what_stops_after_a_failed_start_is_bounded_too(ends):
    told = []

    def fail():
        raise OSError

    async def main():
        app = Application()
        app.add("part", start=list, stop=lambda: told.extend(ends[0].told))
        app.add("broken", start=fail, depends_on=["part"])
        await app.run(ends_process=True)

    with pytest.raises(StartupError):
        virtual_time.run(main())

    assert told


@pytest.fixture
def outcome(monkeypatch):
    """What was done instead of ending this process."""
    done, flushed, codes = threading.Event(), [], []

    def end(code):
        codes.append(code)
        done.set()

    monkeypatch.setattr(_process_end.os, "_exit", end)
    monkeypatch.setattr(_process_end._rust, "exit_after", lambda *_: None)
    monkeypatch.setattr(logging, "shutdown", lambda: flushed.append(True))
    monkeypatch.setattr(logging, "raiseExceptions", True)
    return SimpleNamespace(done=done, flushed=flushed, codes=codes)


class Nameless(asyncio.Task):
    def get_name(self):
        raise RuntimeError("no name")


@pytest.mark.parametrize("stream", [None, "closed"])
async def test_it_ends_and_flushes_whatever_fails_on_the_way(
    outcome, monkeypatch, caplog, stream
):
    if stream is not None:
        stream = io.StringIO()
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(sys, "stdout", stream)
    loop = asyncio.get_running_loop()
    task = Nameless(asyncio.sleep(3600), loop=loop)

    _process_end.ProcessEnd(loop, lambda: 3).due(0.0)
    await asyncio.to_thread(outcome.done.wait, 30)

    task.cancel()
    assert (outcome.codes, outcome.flushed) == ([3], [True])
    assert "kept by\n  what could not be named: RuntimeError" in caplog.text


def test_no_process_is_ended_unasked(ends):
    async def main():
        app = Application()
        app.request_stop()
        await app.run()

    virtual_time.run(main())

    assert ends == []


@pytest.mark.parametrize(
    ("crashes", "code"), [(True, ExitCode.CRASHED), (False, ExitCode.UNCLEAN)]
)
def test_a_process_that_is_ended_has_the_code_of_what_went_wrong_first(
    ends, crashes, code
):
    async def fail():
        raise OSError

    async def main():
        app = Application()
        if crashes:
            app.spawn("work", fail)
        asyncio.get_running_loop().call_later(1, app.request_stop)
        await app.run(ends_process=True)

    virtual_time.run(main())

    assert [end.code() for end in ends] == [code]


async def test_what_keeps_a_process_is_named_with_its_place_and_what_does_not_is_not():
    go_on = threading.Event()
    threads = [
        threading.Thread(target=go_on.wait, name=name, daemon=daemon)
        for name, daemon in [("mine", False), ("a daemon", True)]
    ]
    for thread in threads:
        thread.start()
    await asyncio.to_thread(int)  # leaves an idle worker behind
    task = asyncio.create_task(asyncio.sleep(3600), name="sleeper")
    await asyncio.sleep(0)
    try:
        told = list(keepers(asyncio.get_running_loop()))
    finally:
        go_on.set()
        task.cancel()

    assert any(line.startswith("task sleeper at ") for line in told)
    assert any(line.startswith("thread mine at ") for line in told)
    assert any(line.endswith(" in keepers") for line in told)  # the main thread
    assert not any("a daemon" in line or "thread asyncio_" in line for line in told)


async def test_thousands_of_tasks_are_counted_not_listed():
    tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(1000)]

    told = list(keepers(asyncio.get_running_loop()))

    for task in tasks:
        task.cancel()
    listed = sum(line.startswith("task ") for line in told)
    assert 0 < listed < 100
    assert f"{1000 + 1 - listed} more tasks" in told
