"""The test loop itself: time moves only when nothing else is to be done."""

import asyncio
import time

import virtual_time


def test_an_hour_passes_at_once():
    async def main():
        start = asyncio.get_running_loop().time()
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time() - start

    began = time.monotonic()

    assert virtual_time.run(main()) == 3600
    assert time.monotonic() - began < 5


def test_another_thread_wakes_the_loop():
    async def main():
        return await asyncio.to_thread(lambda: 7)

    assert virtual_time.run(main()) == 7
