"""Fork, exit and signals: real processes, since that is the point."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from mtaio.monitoring import ProbeServer, Watchdog
from probe_client import request

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")


def run(
    code: str, *arguments: str, timeout: float = 30.0
) -> subprocess.CompletedProcess[str]:
    """Run a program that must end by itself."""
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            textwrap.dedent(code),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


SETUP = """
import asyncio, os, sys, threading, time
from mtaio.monitoring import ProbeServer, ResourceMonitor, Watchdog
probes = ProbeServer()
watchdog = Watchdog(0.2)
probes.add_watchdog(watchdog)
probes.start()
watchdog.start()
"""


@forks
def test_a_child_neither_serves_nor_hangs_and_may_serve_itself():
    done = run(
        SETUP
        + """
import socket, urllib.request
def livez(url):
    with urllib.request.urlopen(url + "/livez", timeout=10) as answer:
        return answer.status
kept = socket.create_connection((probes.host, probes.port))
child = os.fork()
if child == 0:
    assert not probes.running
    probes.stop()
    watchdog.stop()
    probes.publish(ready=True)
    probes.start()
    watchdog.start()
    assert livez(probes.url) == 200
    probes.stop()
    watchdog.stop()
    time.sleep(1.0)        # holds whatever it inherited
    os._exit(7)
assert livez(probes.url) == 200
assert probes.answer("GET", "/readyz")[0] == 503   # the child's state is its own
port = probes.port
probes.stop()
kept.settimeout(0.9)
kept.recv(1)               # the connection ends though the child lives on
again = ProbeServer(port=port)
again.start()              # and the port is free though the child lives on
again.stop()
watchdog.stop()
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    )

    assert (done.stdout.strip(), done.stderr) == ("7", "")


@forks
def test_a_fork_amid_publishing_and_serving_never_hangs_the_child():
    done = run(
        SETUP
        + """
import urllib.request
monitor = ResourceMonitor(interval=0.001)
monitor._sampler.start()
probes.add_source(monitor.source)
stop = threading.Event()
def publish():
    while not stop.is_set():
        probes.publish(ready="a", health={"x": 1})
def ask():
    while not stop.is_set():
        urllib.request.urlopen(probes.url + "/livez").read()
        urllib.request.urlopen(probes.url + "/metrics").read()
threads = [threading.Thread(target=publish), threading.Thread(target=ask)]
for thread in threads:
    thread.start()
for _ in range(40):
    child = os.fork()
    if child == 0:
        probes.publish(ready=True)
        assert probes.answer("GET", "/readyz")[0] == 200
        watchdog.guard.reasons()
        assert probes.answer("GET", "/metrics")[0] == 200
        probes.stop()
        os._exit(0)
    for _ in range(500):
        if os.waitpid(child, os.WNOHANG)[0]:
            break
        time.sleep(0.01)
    else:
        os.kill(child, 9)
        print("hung")
stop.set()
for thread in threads:
    thread.join()
probes.stop()
watchdog.stop()
monitor._sampler.stop(5.0)
print("done")
"""
    )

    assert (done.stdout.strip(), done.stderr) == ("done", "")


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "threading.Thread(target=os._exit, args=(0,)).start(); time.sleep(30)",
        "threading.Thread(target=lambda: probes.stop()).start()",
        "sys.exit(0)",
        "os._exit(0)",
        "threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()",
        "asyncio.run(asyncio.sleep(0.01)); del probes, watchdog",
        "watchdog.watch(asyncio.new_event_loop())",
        """
async def main():
    watchdog.watch()
    await asyncio.sleep(0)
    time.sleep(0.3)            # a stall is being reported while we leave
asyncio.run(main())
""",
        """
watchdog._on_stall = lambda report: time.sleep(3600)   # a callback that hangs
async def main():
    watchdog.watch()
    await asyncio.sleep(0)
    time.sleep(0.5)
asyncio.run(main())
""",
    ],
)
def test_the_interpreter_exits_whatever_still_runs(ending):
    began = time.monotonic()

    done = run(SETUP + ending)

    assert done.returncode == 0
    assert "Fatal" not in done.stderr
    assert time.monotonic() - began < 20


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
@pytest.mark.parametrize("ending", ["sys.exit(0)", "os._exit(0)"])
def test_an_exit_amid_starts_and_stops_neither_hangs_nor_crashes(ending):
    """A signal comes at any instruction of them; what it raises ends the program."""
    code = (
        SETUP
        + f"""
import signal
def leave(signum, frame):
    {ending}
signal.signal(signal.SIGALRM, leave)
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))
monitor = ResourceMonitor(interval=0.001)
async def churn():
    while True:
        async with monitor, probes, watchdog:
            await monitor.get_current_stats()
        watchdog.start()
        probes.start()
asyncio.run(churn())
"""
    )
    for number in range(12):
        done = run(code, str(0.02 + number * 0.031))

        assert done.returncode == 0, done.stderr
        assert "panicked" not in done.stderr
        assert "Fatal" not in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_start_for_which_there_is_no_thread_leaves_nothing_started():
    done = run(
        """
import asyncio, gc, os, resource
from mtaio.exceptions import ProbeError
from mtaio.monitoring import ProbeServer, ResourceMonitor, Watchdog

def census():
    return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

class Starved:
    # No room for another stack.
    def __enter__(self):
        size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        self.limits = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (size + (1 << 20), self.limits[1]))
    def __exit__(self, *_):
        resource.setrlimit(resource.RLIMIT_AS, self.limits)

async def main():
    probes, watchdog = ProbeServer(), Watchdog()
    monitor = ResourceMonitor(interval=0.01)
    before = census()  # no thread has ended yet whose stack could be had again
    with Starved():
        for start, error in ((probes.start, ProbeError), (watchdog.start, OSError)):
            try:
                start()
            except error as told:
                print(type(told).__name__)
        try:
            await monitor.start()
        except OSError as told:
            print(type(told).__name__)
    assert not monitor.running and not probes.running
    assert not gc.callbacks
    assert census() == before, (census(), before)
    async with monitor, probes, watchdog:
        await monitor.get_current_stats()

asyncio.run(main())
"""
    )

    assert (done.stdout.split(), done.stderr) == (
        ["ProbeError", "BlockingIOError", "BlockingIOError"],
        "",
    )


@pytest.mark.parametrize("delay_ms", [0, 1, 3, 10, 30, 100])
def test_an_exit_at_any_moment_of_a_stall_neither_hangs_nor_crashes(delay_ms):
    done = run(
        SETUP
        + f"""
async def main():
    watchdog.watch()
    await asyncio.sleep(0)
    time.sleep(0.2 + {delay_ms} / 1000)
asyncio.run(main())
"""
    )

    assert done.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_native_threads_take_no_signals_from_the_main_thread():
    probes, watchdog = ProbeServer(), Watchdog()
    probes.start()
    watchdog.start()
    native = {}
    for _ in range(500):  # a thread names itself once it runs
        tasks = [path.read_text() for path in Path("/proc/self/task").glob("*/status")]
        named = {text.split()[1]: text for text in tasks}
        # The system knows Python's threads by their names too, from 3.14 on.
        others = {thread.name[:15] for thread in threading.enumerate()}
        ours = {name for name in named if name.startswith("mtaio-")}
        native = {name: named[name] for name in ours - others}
        if {"mtaio-probes", "mtaio-watchdog"} <= set(native):
            break
        time.sleep(0.01)
    probes.stop()
    watchdog.stop()

    blocked = (text.split("SigBlk:\t")[1].split()[0] for text in native.values())
    masks = [int(mask, 16) for mask in blocked]
    needed = sum(1 << (s - 1) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD))
    assert {"mtaio-probes", "mtaio-watchdog"} <= set(native)
    assert all(mask & needed == needed for mask in masks)


@forks
def test_probes_are_answered_while_the_process_has_no_descriptor_left():
    code = """
        import os, resource, sys
        from mtaio.monitoring import ProbeServer
        probes = ProbeServer()
        probes.start()
        print(probes.port, flush=True)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        try:
            while True:
                os.dup(0)
        except OSError:
            print("none left", flush=True)
        sys.stdin.read()
        probes.stop()
    """
    starved = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with starved:
        there = ProbeServer(port=int(starved.stdout.readline()))
        assert starved.stdout.readline() == "none left\n"

        answers = [request(there, "/livez")[0] for _ in range(20)]

        starved.stdin.close()

    assert answers == [200] * 20
    assert starved.returncode == 0
