"""What a type checker must see; `mypy` runs over it, nothing executes it."""

from collections.abc import AsyncGenerator
from typing import assert_type

from mtaio.core import AsyncQueue, PriorityQueue, TaskExecutor
from mtaio.events import Event, EventEmitter
from mtaio.resources import TimeoutContext, TimeoutGroup, TimeoutManager


async def fetch(url: str) -> bytes:
    return url.encode()


def parse(text: str) -> int:
    return len(text)


async def pair(a: int, b: str) -> tuple[int, str]:
    return a, b


async def numbers() -> AsyncGenerator[str, None]:
    yield "1"


async def executor() -> None:
    tasks = TaskExecutor(max_workers=4)
    assert_type(await tasks.map(fetch, ["a"]), list[bytes])
    assert_type(await tasks.map(fetch, numbers()), list[bytes])
    assert_type(await tasks.map(parse, ["a"]), list[int])
    assert_type(
        await tasks.map(fetch, ["a"], return_exceptions=True),
        list[bytes | BaseException],
    )
    await tasks.map(pair, [1], ["a"])
    await tasks.map(fetch, [1])  # type: ignore[arg-type]
    assert_type(await tasks.gather(fetch("a"), fetch("b")), list[bytes])
    assert_type(await tasks.run(fetch("a"), timeout=1.0), bytes)
    assert_type(await tasks.run_in_thread(parse, "a"), int)
    await tasks.run_in_thread(parse, 1)  # type: ignore[arg-type]
    async for page in tasks.stream(fetch, numbers(), ordered=True):
        assert_type(page, bytes)


async def timeouts() -> None:
    manager = TimeoutManager(default_timeout=30)
    assert_type(await manager.run(fetch("a"), timeout=2), bytes)
    async with TimeoutContext(5.0) as limit:
        assert_type(limit.remaining(), float | None)
    async with TimeoutGroup() as group:
        task = group.create_task(fetch("a"), timeout=1)
    assert_type(task.result(), bytes)


async def queues() -> None:
    queue = AsyncQueue[int](maxsize=3)
    assert_type(await queue.get(), int)
    ranked = PriorityQueue[str]()
    await ranked.put("a", priority=2)
    assert_type(ranked.get_nowait(), str)


async def events() -> None:
    emitter = EventEmitter()

    @emitter.on("saved")
    async def listener(event: Event[int]) -> None:
        assert_type(event.data, int)

    @emitter.once("user.*")
    def sync(event: Event[str]) -> None: ...

    @emitter.on_error
    def report(event: Event[object], error: Exception) -> None: ...

    emitter.remove_listener("saved", listener)
    await emitter.emit("saved", 1, {"by": "ann"})
    assert_type((await emitter.wait_for("saved", timeout=1)).name, str)
