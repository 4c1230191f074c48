"""All that asyncio does with an awaitable, under each event loop."""

import asyncio
import sys

if sys.platform != "win32":
    import uvloop

    LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
else:
    LOOPS = [asyncio.new_event_loop]


async def wrapped(awaitable):
    return await awaitable


async def in_group(make):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(make())
    return task.result()


async def eager(make):
    if sys.version_info < (3, 12):
        return await make()
    loop = asyncio.get_running_loop()
    return await asyncio.eager_task_factory(loop, wrapped(make()))


async def in_context(make):
    return (await asyncio.gather(make(), make(), return_exceptions=True))[1]


WAYS = {
    "await": lambda make: make(),
    "gather": in_context,
    "wait_for": lambda make: asyncio.wait_for(make(), 10),
    "shield": lambda make: asyncio.shield(make()),
    "ensure_future": lambda make: asyncio.ensure_future(make()),
    "create_task of a wrapper": lambda make: asyncio.create_task(wrapped(make())),
    "create_task": lambda make: asyncio.create_task(make()),
    "task group": in_group,
    "eager task": eager,
}
