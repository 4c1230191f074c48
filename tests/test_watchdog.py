"""One report per stall, with the stack, whatever the loop is stuck in."""

import asyncio
import ctypes
import logging
import math
import queue
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from mtaio import _watchdog
from mtaio.monitoring import ProbeServer, Watchdog
from probe_client import request

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
STALL = 0.2
ENOUGH = 20.0


class Reports:
    """Collects both kinds of reports, with the time each came."""

    def __init__(self):
        self._queue = queue.SimpleQueue()

    def __call__(self, report):
        self._queue.put((report, time.monotonic()))

    async def next(self):
        return await asyncio.to_thread(self._queue.get, timeout=ENOUGH)

    @property
    def none_left(self):
        return self._queue.empty()

    def watchdog(self, **options):
        return Watchdog(STALL, on_stall=self, on_recovery=self, **options)


def spin():
    until = time.monotonic() + 4 * STALL
    while time.monotonic() < until:
        pass


def sleep_in_python():
    time.sleep(4 * STALL)


def wait_for_a_lock():
    lock = threading.Lock()
    lock.acquire()
    threading.Timer(4 * STALL, lock.release).start()
    lock.acquire()


def hold_the_interpreter(seconds=STALL + 0.8):
    """Sleep in C without letting go of the GIL."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))


@pytest.mark.parametrize("stuck", [spin, sleep_in_python, wait_for_a_lock])
async def test_a_stall_is_told_once_while_it_lasts_and_once_at_its_end(stuck):
    reports = Reports()

    async with reports.watchdog():
        await asyncio.sleep(STALL / 2)
        stuck()
        ended_at = time.monotonic()
        begun, told_at = await reports.next()
        ended, _ = await reports.next()
        await asyncio.sleep(2 * STALL)

    assert told_at < ended_at
    assert (begun.loop, begun.ended, begun.interpreter_held) == ("main", False, False)
    assert begun.lasted >= STALL
    assert f"in {stuck.__name__}\n" in begun.stack
    assert (ended.ended, ended.stack) == (True, None)
    assert ended.lasted >= 3 * STALL
    assert reports.none_left


@linux
@pytest.mark.parametrize("on_stalled_thread", [False, True])
async def test_the_stack_is_had_while_c_code_holds_the_interpreter(
    on_stalled_thread, capfd, monkeypatch
):
    if on_stalled_thread:  # the way of free-threaded builds
        monkeypatch.setattr(_watchdog, "_BY_SIGNAL", True)
    reports = Reports()

    async with reports.watchdog():
        await asyncio.sleep(STALL / 2)
        hold_the_interpreter()
        begun, _ = await reports.next()
        ended, _ = await reports.next()
        await asyncio.sleep(2 * STALL)

    assert begun.interpreter_held
    assert " in hold_the_interpreter\n" in begun.stack
    assert " in test_the_stack_is_had_while" in begun.stack
    assert ended.ended
    assert reports.none_left
    shouted = capfd.readouterr().err
    assert 'event loop "main" has not run for' in shouted
    assert begun.stack in shouted


@linux
@pytest.mark.parametrize("stuck", [spin, wait_for_a_lock])
async def test_a_free_threaded_build_takes_the_stack_by_signal(stuck, monkeypatch):
    monkeypatch.setattr(_watchdog, "_BY_SIGNAL", True)
    reports = Reports()

    async with reports.watchdog():
        await asyncio.sleep(STALL / 2)
        stuck()
        begun, _ = await reports.next()
        ended, _ = await reports.next()

    assert f" in {stuck.__name__}\n" in begun.stack
    assert not begun.interpreter_held
    assert ended.ended


async def test_a_stack_that_takes_long_is_not_taken_for_a_held_interpreter(
    monkeypatch, capfd
):
    """Its source lines may lie on a slow disk; Python runs all the same."""
    reports, taken = Reports(), threading.Event()
    take = Watchdog._capture

    def slowly(watchdog, key):
        time.sleep(0.6)  # the watchdog waits less than this for Python to begin
        stack = take(watchdog, key)
        taken.set()
        return stack

    monkeypatch.setattr(Watchdog, "_capture", slowly)

    async with reports.watchdog():
        await asyncio.sleep(STALL / 2)
        taken.wait(ENOUGH)
        begun, _ = await reports.next()

    assert not begun.interpreter_held
    assert "in test_a_stack_that_takes_long" in begun.stack
    assert "interpreter is held" not in capfd.readouterr().err


@linux
async def test_the_stalled_system_call_is_not_interrupted():
    reports = Reports()
    libc = ctypes.PyDLL(None)

    async with reports.watchdog():
        await asyncio.sleep(STALL / 2)
        interrupted = libc.usleep(int((STALL + 0.8) * 1e6))
        await reports.next()

    assert interrupted == 0


async def test_all_threads_are_shown_on_request():
    reports = Reports()
    release = threading.Event()

    def bystander():
        release.wait(ENOUGH)

    thread = threading.Thread(target=bystander, name="bystander")
    thread.start()
    async with reports.watchdog(all_threads=True):
        await asyncio.sleep(STALL / 2)
        sleep_in_python()
        begun, _ = await reports.next()
    release.set()
    thread.join()

    assert "Thread bystander (0x" in begun.stack
    assert "in bystander\n" in begun.stack
    assert "in sleep_in_python\n" in begun.stack


async def test_each_loop_is_watched_by_its_name():
    reports = Reports()
    watchdog = reports.watchdog()
    watchdog.start()

    async def other():
        watchdog.watch(name="other")
        await asyncio.sleep(STALL / 2)
        sleep_in_python()
        await asyncio.sleep(STALL / 2)

    watchdog.watch(name="this one")
    try:
        await asyncio.to_thread(asyncio.run, other())
        told = [await reports.next(), await reports.next()]
        await asyncio.sleep(3 * STALL)  # the other one is closed: no stall
    finally:
        watchdog.stop()

    assert [report.loop for report, _ in told] == ["other", "other"]
    assert reports.none_left


def test_a_loop_that_is_not_running_is_not_stalled():
    reports = Reports()
    watchdog = reports.watchdog(fail_after=2 * STALL)
    loop = asyncio.new_event_loop()

    async def turn():
        watchdog.watch()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    try:
        watchdog.start()
        loop.run_until_complete(turn())
        time.sleep(4 * STALL)
        assert watchdog.guard.reasons() == []
        loop.run_until_complete(asyncio.sleep(2 * STALL))
    finally:
        watchdog.stop()
        loop.close()

    assert reports.none_left


async def test_a_running_loop_is_never_reported():
    reports = Reports()

    async with reports.watchdog():
        for _ in range(30):
            await asyncio.sleep(STALL / 10)

    assert reports.none_left


async def test_unwatching_ends_the_reports():
    reports = Reports()

    async with reports.watchdog() as watchdog:
        await asyncio.sleep(0)
        watchdog.unwatch()
        sleep_in_python()
        await asyncio.sleep(STALL)

    assert reports.none_left


@pytest.mark.parametrize("letting_go", ["unwatch", "stop"])
async def test_a_stall_ends_when_its_loop_is_let_go(letting_go):
    reports = Reports()
    watchdog = reports.watchdog()
    watchdog.start()
    watchdog.watch()
    await asyncio.sleep(STALL / 2)

    sleep_in_python()
    getattr(watchdog, letting_go)()  # before the loop could beat again
    begun, _ = await reports.next()
    ended, _ = await reports.next()
    watchdog.stop()

    assert (begun.ended, ended.ended) == (False, True)
    assert ended.lasted >= 3 * STALL
    assert reports.none_left


async def test_stopping_at_any_moment_never_takes_the_interpreter_for_held(capfd):
    for delay in range(8):
        reports = Reports()
        watchdog = reports.watchdog()
        watchdog.start()
        watchdog.watch()
        await asyncio.sleep(0.01)
        time.sleep(STALL + delay * 0.01)  # noqa: ASYNC251 - the loop is to stall
        watchdog.stop()

    assert "interpreter is held" not in capfd.readouterr().err


async def test_stalls_and_lag_are_metrics():
    reports = Reports()

    async with reports.watchdog() as watchdog:
        await asyncio.sleep(STALL / 2)
        sleep_in_python()
        await reports.next()
        await reports.next()
        values = {
            family.name: family.series[0][1] for family in watchdog.source.families()
        }

    assert values["mtaio_watchdog_stalls"] == 1
    assert values["mtaio_watchdog_stalled"] == 0
    assert values["mtaio_watchdog_stalled_seconds"] >= 3 * STALL
    assert values["mtaio_watchdog_lag_seconds"] >= 0


@linux
@pytest.mark.parametrize("stuck", [sleep_in_python, hold_the_interpreter])
async def test_livez_fails_while_a_loop_is_stuck_for_too_long(stuck):
    watchdog = Reports().watchdog(fail_after=2 * STALL)
    probes = ProbeServer()
    probes.add_watchdog(watchdog)
    code = f"""
        import time, urllib.error, urllib.request
        time.sleep({3 * STALL})
        try:
            urllib.request.urlopen("{{}}/livez")
        except urllib.error.HTTPError as error:
            print(error.code, error.read().decode())
    """

    async with probes, watchdog:
        before = request(probes, "/livez")[0]
        await asyncio.sleep(STALL / 4)
        script = textwrap.dedent(code).format(probes.url)
        client = subprocess.Popen(  # noqa: ASYNC220 - the loop is to be blocked
            [sys.executable, "-S", "-c", script], stdout=subprocess.PIPE, text=True
        )
        until = time.monotonic() + ENOUGH
        while client.poll() is None and time.monotonic() < until:
            stuck()  # again and again is one stall: the loop never runs
        after_at = await asyncio.to_thread(client.communicate)
        await asyncio.sleep(STALL)
        after = request(probes, "/livez")[0]

    assert before == 200
    assert after_at[0].startswith('503 {"status":"fail","notes":["event loop ')
    assert after == 200


async def test_a_failing_callback_is_logged_and_the_next_report_comes(caplog):
    reports = Reports()

    def fail(report):
        raise ZeroDivisionError

    async with Watchdog(STALL, on_stall=fail, on_recovery=reports):
        await asyncio.sleep(STALL / 2)
        sleep_in_python()
        ended, _ = await reports.next()

    assert ended.ended
    assert "watchdog callback" in caplog.text
    assert "ZeroDivisionError" in caplog.text


async def test_reports_are_logged_by_default(caplog):
    with caplog.at_level(logging.WARNING, "mtaio.watchdog"):
        async with Watchdog(STALL):
            await asyncio.sleep(STALL / 2)
            sleep_in_python()
            await asyncio.sleep(2 * STALL)

    levels = [r.levelname for r in caplog.records if r.name == "mtaio.watchdog"]
    assert levels == ["ERROR", "WARNING"]
    assert "in sleep_in_python" in caplog.text


async def test_a_callback_may_stop_the_watchdog():
    stopped = threading.Event()

    def stop(report):
        watchdog.stop()
        stopped.set()

    watchdog = Watchdog(STALL, on_stall=stop)
    watchdog.start()
    watchdog.watch()
    await asyncio.sleep(STALL / 2)
    sleep_in_python()

    assert await asyncio.to_thread(stopped.wait, ENOUGH)


def test_starting_and_stopping_leaves_no_thread_and_no_signal():
    before = threading.active_count()
    free = _watchdog._rust.free_signal()

    for _ in range(20):
        watchdog = Watchdog()
        watchdog.start()
        watchdog.start()
        watchdog.stop()
        watchdog.stop()

    # Fewer if an earlier test's thread was still ending.
    assert threading.active_count() <= before
    assert _watchdog._rust.free_signal() == free


@pytest.mark.parametrize("name", ["stall_after", "fail_after"])
@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf])
def test_limits_are_real_times(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a finite number > 0"):
        Watchdog(**{name: value})


@pytest.mark.parametrize("name", ["stall_after", "fail_after"])
@pytest.mark.parametrize("value", [True, "1", [1]])
def test_limits_are_numbers(name, value):
    with pytest.raises(TypeError, match=f"{name} must be a finite number > 0"):
        Watchdog(**{name: value})


def test_other_arguments_are_checked():
    with pytest.raises(ValueError, match="fail_after must be more than stall_after"):
        Watchdog(2.0, 2.0)
    with pytest.raises(TypeError, match="all_threads must be a bool"):
        Watchdog(all_threads=1)
    with pytest.raises(TypeError, match="on_stall must be callable"):
        Watchdog(on_stall=1)

    async def late(report):
        raise AssertionError

    with pytest.raises(TypeError, match="on_recovery must be a plain function"):
        Watchdog(on_recovery=late)


async def test_what_is_watched_is_a_loop_with_a_name():
    watchdog = Watchdog()

    with pytest.raises(ValueError, match="name must be non-empty text"):
        watchdog.watch(name="")
    with pytest.raises(TypeError, match="name must be non-empty text"):
        watchdog.watch(name=1)
    with pytest.raises(TypeError, match="loop must be an event loop"):
        watchdog.watch(1)


def test_without_a_loop_there_is_nothing_to_watch():
    closed = asyncio.new_event_loop()
    closed.close()

    with pytest.raises(RuntimeError):
        Watchdog().watch()
    with pytest.raises(RuntimeError):
        Watchdog().watch(closed)
