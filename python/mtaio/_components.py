"""The parts of an application: started in order of dependency, stopped in reverse."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from graphlib import CycleError, TopologicalSorter
from typing import Any, cast

from . import _rust
from .exceptions import ShutdownError, StartupError

# What is cancelled gets this long to end before it is left behind and reported;
# beyond the deadline only the latter.
_CANCEL_SECONDS = 1.0
_LATE_SECONDS = 0.05

Step = Callable[[], object]


class Component:
    """One part, living in a task of its own.

    Start, life and stop share that task, because cancel scopes and task groups
    must be left by the task that entered them.
    """

    def __init__(
        self,
        name: str,
        life: Callable[[], AbstractAsyncContextManager[object]],
        *,
        drain: Step | None = None,
        depends_on: Iterable[str] = (),
        start_timeout: float = 30.0,
        stop_timeout: float = 10.0,
    ) -> None:
        self.name = _rust.text("name", name)
        self.depends_on = _names("depends_on", depends_on)
        self.start_timeout = _rust.positive("start_timeout", start_timeout)
        self.stop_timeout = _rust.positive("stop_timeout", stop_timeout)
        self.drain = drain
        self._life = life
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start, within `start_timeout`.

        Raises:
            StartupError: It failed, or took too long; its cause is the error.
        """
        self._up = asyncio.get_running_loop().create_future()
        self._down = asyncio.Event()
        self._task = asyncio.create_task(self._live(), name=f"mtaio:{self.name}")
        try:
            waits: set[asyncio.Future[Any]] = {self._up, self._task}
            await asyncio.wait(
                waits,
                timeout=self.start_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if not self._up.done():
                self._raise_failed_start(self._task)
        except BaseException:
            if not self._up.done():  # else it runs, and `stop` ends it in order
                await _end(self._task)
            raise

    async def stop(self, timeout: float) -> None:
        """Stop, within `timeout` seconds and its own `stop_timeout`.

        Raises:
            ShutdownError: It failed, or was cut off at the deadline.
        """
        if self._task is None or (self._task.done() and not self._down.is_set()):
            return  # never started, or ended by itself and told by `on_end`
        allowed = min(self.stop_timeout, max(timeout, 0.0))
        self._down.set()
        await asyncio.wait({self._task}, timeout=allowed)
        if not self._task.done():
            spare = max(timeout - allowed, _LATE_SECONDS)
            await _end(self._task, min(spare, _CANCEL_SECONDS))
            raise ShutdownError(
                f"{self.name} did not stop in {allowed:g} s and was cut off"
            )
        if error := self.failure:
            raise ShutdownError(f"{self.name} failed to stop: {error!r}") from error

    @property
    def failure(self) -> BaseException | None:
        """What the part ended by, if it ended by an error."""
        task = self._task
        if task is None or not task.done() or task.cancelled():
            return None
        return task.exception()

    def on_end(self, callback: Callable[["Component"], None]) -> None:
        """Call `callback` if the part ends before it was asked to."""

        def ended(_: object) -> None:
            if not self._down.is_set():
                callback(self)

        if self._task is not None:
            self._task.add_done_callback(ended)

    async def _live(self) -> None:
        async with self._life():
            if not self._up.done():
                self._up.set_result(None)
            await self._down.wait()

    def _raise_failed_start(self, task: "asyncio.Task[None]") -> None:
        if not task.done():
            raise StartupError(f"{self.name} did not start in {self.start_timeout:g} s")
        error = None if task.cancelled() else task.exception()
        raise StartupError(f"{self.name} failed to start: {error!r}") from error


class Components:
    """All parts of one application, by name."""

    def __init__(self) -> None:
        self._all: dict[str, Component] = {}
        self._running: list[Component] = []

    def __iter__(self) -> Iterator[Component]:
        return iter(self._all.values())

    def add(self, component: Component) -> None:
        """Take in a part.

        Raises:
            ValueError: The name is taken.
        """
        if component.name in self._all:
            raise ValueError(f"name must be new, {component.name!r} is taken")
        self._all[component.name] = component

    async def start(self) -> None:
        """Start every part after those it depends on, at once where they may.

        Raises:
            StartupError: One failed; `stop` ends those started before it.
            ValueError: A dependency is unknown, or they form a circle.
        """
        order = self._sorter({c.name: c.depends_on for c in self._all.values()})
        await _walk(order, self._start_one)

    async def stop(self, deadline: float) -> list[ShutdownError]:
        """Stop what runs, in reverse, by `deadline` of the loop's clock.

        Returns what went wrong; one that hangs does not keep the others.
        """
        running = {c.name: c for c in self._running}
        users: dict[str, list[str]] = {name: [] for name in running}
        for part in running.values():
            for name in part.depends_on:
                users[name].append(part.name)
        self._running = []
        faults: list[ShutdownError] = []

        async def stop_one(name: str) -> None:
            left = deadline - asyncio.get_running_loop().time()
            try:
                await running[name].stop(left)
            except ShutdownError as fault:
                faults.append(fault)

        await _walk(self._sorter(users), stop_one)
        return faults

    def stop_seconds(self) -> float:
        """The longest time that stopping may take: the slowest chain of parts."""
        longest: dict[str, float] = {}
        order = TopologicalSorter({c.name: c.depends_on for c in self._all.values()})
        for name in order.static_order():
            part = self._all[name]
            before = max((longest[d] for d in part.depends_on), default=0.0)
            longest[name] = before + part.stop_timeout
        return max(longest.values(), default=0.0)

    async def _start_one(self, name: str) -> None:
        self._running.append(self._all[name])
        await self._all[name].start()

    def _sorter(self, graph: "dict[str, Any]") -> "TopologicalSorter[str]":
        for name, wanted in graph.items():
            if missing := [w for w in wanted if w not in self._all]:
                raise ValueError(
                    f"depends_on of {name} must name components, got {missing}"
                )
        sorter = TopologicalSorter(graph)
        try:
            sorter.prepare()
        except CycleError as error:
            circle = " -> ".join(error.args[1])
            raise ValueError(f"depends_on must not form a circle: {circle}") from error
        return sorter


def lifetime(
    component: object, start: Step | None, stop: Step | None
) -> Callable[[], AbstractAsyncContextManager[object]]:
    """How `component`, or `start` and `stop`, are entered and left.

    Raises:
        TypeError: There is neither an async context manager nor start or stop.
    """
    if component is not None and (start or stop):
        raise TypeError("give either a component or start= and stop=, not both")
    if hasattr(component, "__aenter__") and hasattr(component, "__aexit__"):
        whole = cast("AbstractAsyncContextManager[object]", component)
        return lambda: whole
    steps = (
        start or getattr(component, "start", None),
        stop or getattr(component, "stop", None),
    )
    if not any(callable(step) for step in steps):
        raise TypeError(
            "component must be an async context manager or have start() or stop(), "
            f"got {component!r}"
        )
    return lambda: _between(*steps)


@asynccontextmanager
async def _between(start: Step | None, stop: Step | None) -> AsyncIterator[None]:
    if start is not None:
        await call(start)
    try:
        yield
    finally:
        if stop is not None:
            await call(stop)


async def call(step: Step) -> None:
    """Call a sync or async function of no arguments."""
    result = step()
    if inspect.isawaitable(result):
        await result


async def _walk(
    order: "TopologicalSorter[str]", visit: Callable[[str], Awaitable[None]]
) -> None:
    """Visit each name once those before it are done; a failure cancels the rest."""

    async def one(name: str, group: asyncio.TaskGroup) -> None:
        await visit(name)
        order.done(name)
        go_on(group)

    def go_on(group: asyncio.TaskGroup) -> None:
        for name in order.get_ready():
            group.create_task(one(name, group))

    try:
        async with asyncio.TaskGroup() as group:
            go_on(group)
    except BaseExceptionGroup as failed:
        # One failure is told as itself; several as the group they are.
        if len(failed.exceptions) == 1:
            raise failed.exceptions[0] from failed.exceptions[0].__cause__
        raise StartupError(
            "; ".join(str(error) for error in failed.exceptions)
        ) from failed


async def _end(task: "asyncio.Task[None]", seconds: float = _CANCEL_SECONDS) -> None:
    """Cancel `task` and give it a moment; it may refuse."""
    task.cancel()
    await asyncio.wait({task}, timeout=seconds)
    if task.done() and not task.cancelled():
        task.exception()  # seen: the caller raises what matters


def _names(parameter: str, given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise TypeError(f"{parameter} must be a list of names, got {given!r} (str)")
    return tuple(_rust.text(parameter, name) for name in given)
