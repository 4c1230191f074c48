"""A thousand starts and stops: no thread, descriptor or memory is left."""

import asyncio
import sys
import threading
import time

import psutil
import pytest

from mtaio.monitoring import ProbeServer, Watchdog
from probe_client import request

linux = pytest.mark.skipif(sys.platform != "linux", reason="counts by /proc")


def census(process):
    """Threads and descriptors, once joined threads have left the kernel too.

    `Thread.join` returns a moment before that.
    """
    for _ in range(200):
        if process.num_threads() == threading.active_count():
            break
        time.sleep(0.01)
    return process.num_threads(), process.num_fds(), threading.active_count()


def assert_no_more(after, before):
    """Fewer is well: a thread of an earlier test may have ended since."""
    assert all(now <= then for now, then in zip(after, before, strict=True))


def start_and_stop(times, ask=False):
    for _ in range(times):
        probes = ProbeServer()
        probes.publish(ready=True, health={"status": "pass"})
        probes.start()
        if ask:
            assert request(probes, "/metrics")[0] == 200
        probes.stop()


@linux
@pytest.mark.parametrize("ask", [False, True])
def test_a_server_leaves_nothing_behind(ask):
    process = psutil.Process()
    start_and_stop(50, ask)
    before, memory = census(process), process.memory_info().rss

    start_and_stop(1000 if not ask else 300, ask)

    assert_no_more(census(process), before)
    assert process.memory_info().rss - memory < 8 * 1024 * 1024


@linux
def test_a_watchdog_leaves_nothing_behind():
    process = psutil.Process()

    async def watch():
        async with Watchdog(0.5):
            await asyncio.sleep(0)

    def run(times):
        for _ in range(times):
            asyncio.run(watch())

    run(20)
    before, memory = census(process), process.memory_info().rss
    run(300)

    assert_no_more(census(process), before)
    assert process.memory_info().rss - memory < 8 * 1024 * 1024


def test_starting_and_stopping_from_many_threads_at_once_is_safe():
    probes, watchdog = ProbeServer(), Watchdog()

    def churn():
        for _ in range(50):
            probes.start()
            watchdog.start()
            probes.publish(live="x")
            watchdog.stop()
            probes.stop()

    threads = [threading.Thread(target=churn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    probes.stop()
    assert not probes.running
    assert not any(t.name.startswith("mtaio") for t in threading.enumerate())
