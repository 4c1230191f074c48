"""Awaits that cross threads: at exit, over a fork, and after the loop closed."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mtaio.logging import AsyncFileHandler

pytestmark = pytest.mark.skipif(os.name != "posix", reason="a pipe stands for a disk")

# The writer hangs in `open` until somebody reads the pipe.
STALLED = """
import asyncio, logging, os, sys, threading, time
from mtaio.logging import AsyncFileHandler

path = sys.argv[1]
os.mkfifo(path)
handler = AsyncFileHandler(path, delay=True, durable=False, close_timeout=0.2)
logger = logging.Logger("app")
logger.addHandler(handler)
logger.info("hello")

def read():
    with open(path, "rb") as file:
        return file.read()
"""


def run(path, body):
    """Standard output of a process that must end well, in time and in silence."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            STALLED + body,
            path,
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def pipe(tmp_path):
    return str(tmp_path / "pipe")


def test_the_interpreter_exits_with_an_await_in_flight(pipe):
    body = """
async def main():
    task = asyncio.create_task(handler.aclose(60))
    flush = asyncio.ensure_future(handler.flush()._wait())
    await asyncio.sleep(0.05)
    print("leaving")
asyncio.run(main())
"""
    assert run(pipe, body) == "leaving\n"


def test_the_interpreter_exits_while_a_daemon_thread_awaits(pipe):
    body = """
async def main():
    await handler.flush()
threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
time.sleep(0.1)
print("leaving")
"""
    assert run(pipe, body) == "leaving\n"


def test_a_fork_with_an_await_in_flight_leaves_both_sides_working(pipe):
    body = """
async def parent():
    flush = asyncio.ensure_future(handler.flush()._wait())
    await asyncio.sleep(0.05)
    child = os.fork()
    if child == 0:
        # The parent's loop is not the child's to run; a new one is.
        asyncio._set_running_loop(None)
        own = AsyncFileHandler(path + ".child")
        own.emit(logging.makeLogRecord({"msg": "child"}))
        async def main():
            return await own.flush() and await own.aclose()
        os._exit(0 if asyncio.run(main()) else 1)
    status = (await asyncio.to_thread(os.waitpid, child, 0))[1]
    reader = threading.Thread(target=read)
    reader.start()
    print(os.waitstatus_to_exitcode(status), await flush)
    await handler.aclose()
    reader.join()
asyncio.run(parent())
print(open(path + ".child").read(), end="")
"""
    assert run(pipe, body) == "0 True\nchild\n"


def test_a_loop_closed_before_the_answer_harms_nobody(pipe):
    body = """
loop = asyncio.new_event_loop()
async def begin():
    return handler.flush()._progress.future()
future = loop.run_until_complete(begin())
loop.close()
reader = threading.Thread(target=read)
reader.start()
handler.flush(10)
time.sleep(0.05)
print(future.done())

async def again():
    return await handler.flush()
print(asyncio.run(again()))
handler.close()
reader.join()
"""
    assert run(pipe, body) == "False\nTrue\n"


async def test_a_flush_is_limited_also_in_a_task_that_is_being_cancelled(pipe):
    os.mkfifo(pipe)
    handler = AsyncFileHandler(pipe, delay=True, close_timeout=0)
    handler.emit(logging.makeLogRecord({"msg": "one"}))
    answers = []

    async def serve():
        try:
            await asyncio.sleep(60)
        finally:
            answers.append(await handler.flush(timeout=0.01))

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))

    assert task.cancelled()
    assert answers == [False]
    reading = asyncio.create_task(asyncio.to_thread(Path(pipe).read_bytes))
    assert await handler.aclose(30)
    assert await reading == b"one\n"


async def test_a_cancelled_flush_leaves_the_handler_usable(pipe):
    os.mkfifo(pipe)
    handler = AsyncFileHandler(pipe, delay=True)
    handler.emit(logging.makeLogRecord({"msg": "one"}))

    async def flush():
        await handler.flush()

    task = asyncio.create_task(flush())
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    reader = threading.Thread(target=Path(pipe).read_bytes, daemon=True)
    reader.start()

    assert await handler.flush() is True
    assert await handler.aclose() is True


async def test_a_flush_may_be_awaited_in_many_tasks(tmp_path):
    handler = AsyncFileHandler(tmp_path / "app.txt", gather=0.05)
    handler.emit(logging.makeLogRecord({"msg": "one"}))
    flush = handler.flush()

    async def wait():
        return await flush

    assert await asyncio.gather(*(wait() for _ in range(10))) == [True] * 10
    await handler.aclose()
