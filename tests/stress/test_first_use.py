"""A fork while another thread uses a part for the first time harms no child.

What is made on first use could be half made at that instant, for ever in the
child, which would then wait for it.
"""

import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

BODY = """
import asyncio, os, sys, tempfile, threading, time, warnings
from mtaio.cache import TTLCache
from mtaio.exceptions import MTAIOError
from mtaio.logging import AsyncFileHandler, AsyncLogger
from mtaio.resources import ConcurrencyLimiter, KeyedRateLimiter, RateLimiter

warnings.simplefilter("ignore")
sys.setswitchinterval(1e-6)
# asyncio's own first use holds a lock that a fork copies: not ours to mend.
asyncio.new_event_loop().close()
handler = AsyncFileHandler(os.path.join(tempfile.mkdtemp(), "log.txt"))

async def all_parts():
    limiter, keyed = RateLimiter(1e4, 1), KeyedRateLimiter(1e4, 1, max_keys=9)
    permits, cache = ConcurrencyLimiter(1), TTLCache()
    for _ in range(2):
        await limiter.acquire()
        await keyed.acquire("key")
    async with permits:
        waiting = asyncio.ensure_future(permits.acquire().__aenter__())
        await asyncio.sleep(0)
    await waiting
    for call in (
        lambda: limiter.try_acquire(2),
        lambda: permits.release() or permits.release(),
        lambda: cache.set_nowait([], 1),
    ):
        try:
            call()
        except (MTAIOError, TypeError):
            pass
    await AsyncLogger("app", handlers=[handler]).info("line")
    await handler.flush()

def use():
    asyncio.run(all_parts())

thread = threading.Thread(target=use)
thread.start()
children = []
for _ in range(12):
    pid = os.fork()
    if pid == 0:
        use()
        os._exit(0)
    children.append(pid)
    time.sleep(0.0005)
thread.join()
deadline = time.monotonic() + 30
for pid in children:
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(pid, 9)
            os._exit(9)
        time.sleep(0.001)
    if ended[1]:
        os._exit(8)
"""


def test_a_fork_amid_first_use_leaves_children_that_work():
    for _ in range(6):
        done = subprocess.run(
            [sys.executable, "-c", BODY], capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stderr) == (0, b"")
