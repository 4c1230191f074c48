"""A service in a process of its own, for the lifecycle tests.

It prints what happens, a line each. Its protocol: a line in, `answer LINE` out.
"""

import asyncio
import contextlib
import logging.handlers
import multiprocessing
import os
import sys
import threading
import time

from mtaio.app import Application
from mtaio.exceptions import ApplicationError, StartupError
from mtaio.health import HealthMonitor
from mtaio.monitoring import ProbeServer


def say(*words):
    # In one write: several processes may share the pipe.
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Ready:
    """In the place of a health monitor: says what the application tells it."""

    live = True
    probes = None

    def set_ready(self, ready, reason=""):
        say("ready" if ready else "unready", reason)

    def set_fault(self, name, reason, *, critical):
        say("fault", name, reason)

    def clear_fault(self, name):
        say("well", name)


class Server:
    """Answers each line it has read, `work` seconds later."""

    def __init__(self, app, work=0.05):
        self.app, self.work = app, work
        self.connections = set()

    async def start(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        say("port", self.server.sockets[0].getsockname()[1])

    def drain(self):
        self.server.close()

    async def stop(self):
        if self.connections:
            await asyncio.wait(self.connections)
        say("server stopped")

    async def serve(self, reader, writer):
        task = asyncio.current_task()
        self.connections.add(task)
        try:
            while line := (await reader.readline()).strip():
                writer.write(await self.answer(line))
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            self.connections.discard(task)
            writer.close()

    async def answer(self, line):
        try:
            await self.app.handle(lambda: asyncio.sleep(self.work))
        except ApplicationError:
            say("refused", line.decode())
            return b"refused\n"
        say("answered", line.decode())
        return b"answer %s\n" % line


def part(name, *, start=0.0, stop=0.0):
    async def begin():
        say(name, "starts")
        await asyncio.sleep(start)
        say(name, "started")

    async def end():
        say(name, "stops")
        await asyncio.sleep(stop)
        say(name, "stopped")

    return {"start": begin, "stop": end}


def under_load(drain_delay=0.5):
    app = Application(health=Ready(), drain_delay=drain_delay, grace_period=20)
    app.add("db", **part("db"))
    app.add("server", Server(app), depends_on=["db"])
    return app


def slow_to_answer():
    app = Application(health=Ready(), drain_delay=30, grace_period=60)
    app.add("db", **part("db"))
    app.add("server", Server(app, work=0.2), depends_on=["db"])
    return app


def hangs_at_stop():
    app = Application(grace_period=20)
    app.add("db", **part("db"))
    app.add("hung", **part("hung", stop=3600), depends_on=["db"], stop_timeout=0.5)
    return app


def ignores_its_cancellation():
    async def stubborn():
        say("stubborn stops")
        while True:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)

    app = Application(grace_period=2)
    app.add("db", **part("db"))
    app.add("stubborn", stop=stubborn, depends_on=["db"], stop_timeout=0.3)
    return app


def sleeps_in_a_thread():
    async def sleepy():
        await asyncio.to_thread(time.sleep, 3600)

    app = Application(grace_period=1)
    app.add("sleepy", stop=sleepy, stop_timeout=0.1)
    app.add("db", **part("db"))
    return app


def has_a_thread_without_end():
    app = Application(grace_period=0.5)
    app.add("db", **part("db"))
    threading.Thread(target=time.sleep, args=(3600,), name="endless").start()
    # What the standard library keeps back until the end.
    kept = logging.handlers.MemoryHandler(10, target=logging.StreamHandler(sys.stdout))
    logging.basicConfig(handlers=[kept], level="WARNING")
    logging.warning("kept back")
    return app


def has_nobody_to_read_its_errors():
    app = has_a_thread_without_end()
    _, write = os.pipe()
    os.set_blocking(write, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write, bytes(4096))
    os.set_blocking(write, True)
    os.dup2(write, 2)
    return app


class Sticky:
    def __del__(self):
        time.sleep(3600)


def is_stuck_at_its_end():
    app = Application(grace_period=0.1)
    app.add("db", **part("db"))
    # Freed with the last of the modules, when no other thread runs Python any more.
    sys.modules["sticky"] = Sticky()
    return app


def has_a_worker():
    """It inherits the handlers of signals, and is ended by one."""
    app = Application(health=Ready(), grace_period=20)
    # As `multiprocessing` has it: ended by SIGTERM, then joined, at exit.
    worker = multiprocessing.get_context("fork").Process(
        target=time.sleep, args=(60,), daemon=True
    )
    app.add("worker", start=worker.start, stop=lambda: None)
    return app


def blocks_for_ever():
    app = Application(grace_period=0.5)
    app.add("db", **part("db"))

    async def block():
        say("blocked")
        time.sleep(3600)  # noqa: ASYNC251 - the point of it

    app.spawn("block", block)
    return app


def has_a_stuck_log():
    app = blocks_for_ever()

    class Stuck(logging.Handler):
        def emit(self, record):
            time.sleep(3600)

    logging.getLogger("mtaio.app").addHandler(Stuck("CRITICAL"))
    return app


def fails_at_start():
    def fail():
        raise OSError("no such host")

    app = Application()
    app.add("db", **part("db"))
    app.add("broken", start=fail, depends_on=["db"])
    app.add("never", **part("never"), depends_on=["broken"])
    return app


def slow_to_start():
    app = Application()
    app.add("db", **part("db"))
    app.add("slow", **part("slow", start=3600), depends_on=["db"], start_timeout=3600)
    return app


def blocked():
    app = under_load(drain_delay=0.0)

    async def block():
        say("blocked")
        time.sleep(2)  # noqa: ASYNC251 - the point of it
        say("free")
        await asyncio.sleep(3600)

    app.spawn("block", block)
    return app


def probed():
    probes = ProbeServer()
    health = HealthMonitor(probes=probes)
    app = Application(health=health)

    async def block():
        say("probes", probes.url)
        await asyncio.sleep(0.2)
        say("blocked")
        time.sleep(3)  # noqa: ASYNC251 - the point of it
        say("free")

    app.add("probes", probes)
    app.add("health", health, depends_on=["probes"])
    app.add("db", **part("db"))
    app.spawn("block", block)
    return app


def reloading():
    app = under_load(drain_delay=0.0)
    app.on_reload(lambda: say("reloaded"))
    return app


def under_systemd():
    app = Application(grace_period=1e300)  # beyond what any clock counts
    app.add("db", **part("db"))
    return app


async def main(scenario):
    app = globals()[scenario]()
    try:
        code = await app.run(ends_process=True)
    except StartupError as error:
        say("failed:", error)
        code = app.exit_code
    say("exit", code.name)
    return code


if __name__ == "__main__":
    name, loop = sys.argv[1:]
    if loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    else:
        factory = asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        sys.exit(runner.run(main(name)))
