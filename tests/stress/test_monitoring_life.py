"""Starts, stops, forks and exits by the hundred leave nothing and hang nowhere."""

import asyncio
import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from mtaio.monitoring import ResourceMonitor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks in /proc")


def held():
    """Threads, descriptors, and kibibytes resident."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    rss = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return (
        len(os.listdir("/proc/self/task")),
        len(os.listdir("/proc/self/fd")),
        int(rss.split()[1]),
    )


async def settled(threads):
    """As `held`, once joined threads have left the kernel too, a moment later."""
    for _ in range(500):
        if held()[0] <= threads:
            break
        await asyncio.sleep(0.01)
    return held()


async def _starts_and_stops(monitor, times):
    for _ in range(times):
        await monitor.start()
        await monitor.stop()


async def test_a_thousand_starts_and_stops_leave_nothing():
    monitor = ResourceMonitor(interval=0.001, history_size=10)
    # The loop's executor has its one thread, for a stop that is held up.
    await asyncio.to_thread(int)
    await _starts_and_stops(monitor, 100)
    threads, descriptors, rss = held()

    await _starts_and_stops(monitor, 1000)

    after = await settled(threads)
    # Fewer if what ran before was still ending when they were counted.
    assert after[0] <= threads
    assert after[1] <= descriptors
    # A thread's stack or a sample kept each time would be far more.
    assert after[2] - rss < 8192


async def test_monitors_that_are_dropped_leave_nothing():
    async def make(times):
        for _ in range(times):
            monitor = ResourceMonitor(interval=0.001)
            await monitor.start()
            monitor._turns.cancel()
            await asyncio.sleep(0)
            del monitor
        gc.collect()
        # Each thread was told to go and needs a moment to.
        await settled(most)

    most = 10**6
    await make(20)
    most, descriptors, rss = held()

    await make(200)

    after = held()
    assert after[0] <= most
    assert after[1] <= descriptors
    assert after[2] - rss < 8192


def run(program, *, timeout=60):
    """The program in an interpreter of its own; hanging fails the test."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        timeout=timeout,
        capture_output=True,
        text=True,
        check=False,
    )


FORKS = """
    import asyncio, os, signal
    from mtaio.monitoring import ResourceMonitor

    def descriptors():
        return len(os.listdir("/proc/self/fd"))

    async def use(monitor):
        told = asyncio.Event()
        monitor.set_threshold("uptime", 0)
        monitor.on_threshold_exceeded(lambda *alert: told.set())
        async with monitor:
            await told.wait()
        assert monitor.get_history()[0].uptime < 60

    def child(monitor, inherited):
        signal.alarm(60)
        # A loop of its own: the parent's runs here no more.
        asyncio.events._set_running_loop(None)
        kept = descriptors()
        stats = asyncio.run(monitor.get_current_stats())
        assert 0 < stats.process.rss_bytes
        if {interval} > 1:
            # The parent's sampler gave its descriptors back.
            assert kept <= inherited, (kept, inherited)
        else:
            asyncio.run(use(monitor))

    async def main():
        async with ResourceMonitor(interval={interval}) as monitor:
            await monitor.get_current_stats()
            inherited, children = descriptors(), []
            for _ in range({forks}):
                pid = os.fork()
                if pid == 0:
                    try:
                        child(monitor, inherited)
                    except BaseException as error:
                        os.write(2, repr(error).encode())
                        os._exit(1)
                    os._exit(0)
                children.append(pid)
                await asyncio.sleep(0.002)
            codes = [os.waitpid(pid, 0)[1] for pid in children]
            assert not any(codes), codes
            assert (await monitor.get_current_stats()).uptime > 0

    asyncio.run(main())
"""


# Caught between two samples, and amid them.
@pytest.mark.parametrize(("interval", "forks"), [(60, 3), (0.001, 30)])
def test_a_forked_childs_monitor_works(interval, forks):
    done = run(FORKS.format(interval=interval, forks=forks))

    assert done.returncode == 0, done.stderr


def test_a_sample_in_flight_survives_a_fork_and_a_loop_that_closes():
    done = run(
        """
        import asyncio, os
        from mtaio.monitoring import ResourceMonitor

        monitor = ResourceMonitor()

        def ask(how_many):
            return [
                asyncio.ensure_future(monitor.get_current_stats(max_age=0))
                for _ in range(how_many)
            ]

        async def fork_in_flight():
            await monitor.get_current_stats()
            asking = ask(20)
            await asyncio.sleep(0)
            pid = os.fork()
            if pid == 0:
                asyncio.events._set_running_loop(None)
                stats = asyncio.run(monitor.get_current_stats())
                os._exit(0 if stats.process.rss_bytes else 1)
            assert os.waitpid(pid, 0)[1] == 0
            assert len(await asyncio.gather(*asking)) == 20

        for _ in range(10):
            asyncio.run(fork_in_flight())

        for _ in range(50):
            loop = asyncio.new_event_loop()

            async def leave():
                for task in ask(3):
                    task.add_done_callback(lambda task: task.cancelled())
                await asyncio.sleep(0)
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()

            loop.run_until_complete(leave())
            loop.close()
        assert asyncio.run(monitor.get_current_stats()).uptime > 0
        """
    )

    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


EXITS = {
    "end of program": ("pass", 0),
    "sys.exit": ("sys.exit(3)", 3),
    "os._exit": ("os._exit(4)", 4),
    "error": ("raise ValueError", 1),
    "interrupt": ("signal.raise_signal(signal.SIGINT)", -2),
    "killed": ("os.kill(os.getpid(), signal.SIGKILL)", -9),
}


@pytest.mark.parametrize("how", EXITS)
@pytest.mark.parametrize("where", ["in the loop", "after the loop"])
def test_the_interpreter_exits_at_any_moment(how, where):
    leave, code = EXITS[how]
    inside = leave if where == "in the loop" else "pass"
    after = leave if where == "after the loop" else "pass"

    done = run(
        f"""
        import asyncio, os, signal, sys
        from mtaio.monitoring import ResourceMonitor

        # Ignored in what a shell has put in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)

        async def main():
            global monitor
            monitor = ResourceMonitor(interval=0.001)
            other = ResourceMonitor(interval=0.001)
            await monitor.start()
            await other.start()
            asking = [
                asyncio.ensure_future(monitor.get_current_stats(max_age=0))
                for _ in range(20)
            ]
            await asyncio.sleep(0.01)
            {inside}

        asyncio.run(main())
        {after}
        """,
        timeout=30,
    )

    assert done.returncode in (code, 128 - code), done.stderr
    assert "panicked" not in done.stderr
