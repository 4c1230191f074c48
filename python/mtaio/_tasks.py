"""Background tasks that an application owns."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from . import _rust
from .exceptions import ApplicationError

Work = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Spec:
    """What a background task is, and what is to follow its crash."""

    name: str
    work: Work
    critical: bool
    restart: bool
    backoff: float
    max_backoff: float

    def __post_init__(self) -> None:
        _rust.text("name", self.name)
        if not callable(self.work):
            raise TypeError(f"work must be an async function, got {self.work!r}")
        _rust.positive("backoff", self.backoff)
        if _rust.positive("max_backoff", self.max_backoff) < self.backoff:
            raise ValueError(
                f"max_backoff must be at least backoff ({self.backoff:g} s), "
                f"got {self.max_backoff:g} s"
            )

    def delay(self, crashes: int) -> float:
        """Seconds to wait before the start after `crashes` in a row."""
        # The exponent is bounded: 2.0**1024 overflows.
        return min(self.backoff * 2.0 ** min(crashes - 1, 60), self.max_backoff)


async def whole(work: Awaitable[object]) -> None:
    """Await `work`, and take a cancellation for an error unless it is the caller's.

    Raises:
        ApplicationError: `work` was cancelled by its own code.
    """
    try:
        await work
    except asyncio.CancelledError as error:
        caller = asyncio.current_task()
        if caller and caller.cancelling():
            raise
        raise ApplicationError("it was cancelled by its own code") from error


def _is_cancelled() -> bool:
    """Whether the current task is to end: an error at its clean-up hides that."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class BackgroundTasks:
    """Runs each task; tells of a crash, and of a start that holds after one.

    `crashed(spec, error)` and `recovered(spec)` are called on the loop.
    """

    def __init__(
        self,
        crashed: Callable[[Spec, Exception], None],
        recovered: Callable[[Spec], None],
    ) -> None:
        self._specs: dict[str, Spec] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._crashed = crashed
        self._recovered = recovered
        self._started = False
        self._stopped = False

    def add(self, spec: Spec) -> None:
        """Take in a task; it starts with the others, or now if they have.

        Raises:
            ValueError: The name is taken.
            ApplicationError: All were cancelled: nobody would cancel this one.
        """
        if self._stopped:
            raise ApplicationError(
                f"{spec.name} spawned after all tasks were cancelled"
            )
        if spec.name in self._specs:
            raise ValueError(f"name must be new, {spec.name!r} is taken")
        self._specs[spec.name] = spec
        if self._started:
            self._begin(spec)

    def start(self) -> None:
        """Start all."""
        self._started = True
        for spec in tuple(self._specs.values()):  # an eager one may add more
            self._begin(spec)

    async def stop(self, timeout: float) -> list[str]:
        """Cancel all; the names of those that did not end in `timeout` seconds."""
        self._stopped = True
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=max(timeout, 0.0))
        return [name for name, task in self._tasks.items() if not task.done()]

    def _begin(self, spec: Spec) -> None:
        task = asyncio.create_task(self._run(spec), name=f"mtaio:task:{spec.name}")
        self._tasks[spec.name] = task

    async def _run(self, spec: Spec) -> None:
        """Run until it returns; a crash is told, and followed by a restart if asked.

        One that ran for `max_backoff` seconds is well again: the next crash
        counts as the first.
        """
        clock = asyncio.get_running_loop().time
        crashes = 0
        while True:
            begun = clock()
            well = asyncio.get_running_loop().call_later(
                spec.max_backoff, self._recovered, spec
            )
            try:
                await whole(spec.work())
            except Exception as error:  # noqa: BLE001 - told, never swallowed
                self._crashed(spec, error)
            else:
                self._recovered(spec)
                return
            finally:
                well.cancel()
            if not spec.restart or _is_cancelled():
                return
            crashes = 1 if clock() - begun >= spec.max_backoff else crashes + 1
            await asyncio.sleep(spec.delay(crashes))
