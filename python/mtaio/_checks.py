"""One health check: run in time, whatever its function does."""

import asyncio
import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable
from typing import cast

from . import _rust
from ._states import Damper, Kind, Result, Standing, Status
from .events import is_async
from .exceptions import HealthError

# What a check may return: `None` and `True` are healthy, `False` is not.
Answer = Result | Status | bool | None
CheckFunction = Callable[[], Answer] | Callable[[], Awaitable[Answer]]


class Check:
    """A check's function, its figures and its state; of one event loop.

    A function that hangs costs its own check only: a run is given up at the
    timeout, and no other is begun before it has ended.
    """

    def __init__(
        self,
        name: str,
        function: CheckFunction,
        *,
        kind: Kind | str,
        timeout: float,
        interval: float | None,
        critical: bool,
        depends_on: Iterable[str],
        failures: int,
        successes: int,
        cache: float,
        clock: Callable[[], float],
    ) -> None:
        self.name = _rust.text("name", name)
        self.kind = _kind(kind)
        self.timeout = _rust.positive("timeout", timeout)
        self.interval = (
            None if interval is None else _rust.positive("interval", interval)
        )
        self.critical = flag("critical", critical)
        self.depends_on = _names("depends_on", depends_on)
        if self.kind is Kind.LIVE and self.depends_on:
            # Else an outage elsewhere would get every instance killed.
            raise ValueError(
                f"depends_on must be empty for a live check, got {self.depends_on}"
            )
        self.damper = Damper(failures, successes)
        self.result = Result(Status.UNKNOWN, "not run yet")
        self.since = self.seen = clock()
        self.runs = 0
        self.alerted = False
        self._cache = _rust.non_negative("cache", cache)
        self._clock = clock
        self._function = _function(function)
        self._pending: asyncio.Future[Result] | None = None
        self._round: asyncio.Task[Result] | None = None

    @property
    def standing(self) -> Standing:
        """What the rules of health need to know."""
        bad = (Status.DEGRADED, Status.UNHEALTHY)
        failing = self.result.status in bad or self.damper.status in bad
        return Standing(
            self.kind, self.critical, self.damper.status, failing, self.depends_on
        )

    def is_fresh(self) -> bool:
        """The last result is young enough to be given again."""
        return self.runs > 0 and self._clock() - self.seen < self._cache

    async def run(self) -> Result:
        """Run once, within the timeout; callers at the same time share the run.

        Raises:
            HealthError: It was given up by `cancel`.
        """
        if self._round is None or self._round.done():
            self._round = asyncio.create_task(
                self._run(), name=f"mtaio:check:{self.name}"
            )
        running = self._round
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            caller = asyncio.current_task()
            if not running.cancelled() or (caller and caller.cancelling()):
                raise
            text = f"the health monitor was stopped while {self.name} ran"
            raise HealthError(text) from None

    def take(self, result: Result) -> bool:
        """Take in a result; True when the state changed."""
        self.result, self.seen = result, self._clock()
        self.runs += 1
        changed = self.damper.observe(result.status)
        self.alerted &= self.damper.status is Status.UNHEALTHY
        if changed:
            self.since = self.seen
        return changed

    def cancel(self) -> None:
        """Give up what runs."""
        for running in (self._round, self._pending):
            if running is not None:
                running.cancel()

    async def _run(self) -> Result:
        if self._pending is not None and not self._pending.done():
            return Result(Status.UNHEALTHY, "the run before has not ended yet")
        try:
            self._pending = self._begin()
        except RuntimeError as fault:  # no thread is to be had
            return _raised(fault)
        done, _ = await asyncio.wait({self._pending}, timeout=self.timeout)
        if not done:
            self._pending.cancel()
            return Result(Status.UNHEALTHY, f"no answer in {self.timeout:g} s")
        if self._pending.cancelled():
            return Result(Status.UNHEALTHY, "it cancelled itself")
        if error := self._pending.exception():
            return _raised(error)
        return self._pending.result()

    def _begin(self) -> "asyncio.Future[Result]":
        if is_async(self._function):
            function = cast("Callable[[], Awaitable[Answer]]", self._function)
            return asyncio.ensure_future(_answer(function))
        return _in_thread(cast("Callable[[], Answer]", self._function))


async def _answer(function: Callable[[], Awaitable[Answer]]) -> Result:
    try:
        return _judge(await function())
    except Exception as error:  # noqa: BLE001 - a check that raises is an answer
        return _raised(error)


def _in_thread(function: Callable[[], Answer]) -> "asyncio.Future[Result]":
    """Run in a daemon thread of its own.

    A pool would be used up by functions that hang, and hold the exit of the
    interpreter.
    """
    loop = asyncio.get_running_loop()
    future: _ThreadFuture = _ThreadFuture(loop=loop)

    def work() -> None:
        try:
            result = _judge(function())
        except BaseException as error:  # noqa: BLE001 - nobody else would see it
            result = _raised(error)
        try:
            loop.call_soon_threadsafe(future.settle, result)
        except RuntimeError:
            return  # the loop is closed: nobody waits for the answer any more

    threading.Thread(target=work, name="mtaio-check", daemon=True).start()
    return future


class _ThreadFuture(asyncio.Future[Result]):
    """Not done before its thread is: a thread can't be cancelled."""

    def cancel(self, msg: object = None) -> bool:  # noqa: ARG002
        return False

    def settle(self, result: Result) -> None:
        self.set_result(result)


def _judge(answer: object) -> Result:
    if isinstance(answer, Status):
        answer = Result(answer)
    if isinstance(answer, Result) and answer.status is not Status.UNKNOWN:
        return answer
    if answer is None or answer is True:
        return Result(Status.HEALTHY)
    if answer is False:
        return Result(Status.UNHEALTHY, "it returned False")
    if inspect.iscoroutine(answer):
        answer.close()  # never to be awaited
        text = "it returned a coroutine: make it, or what wraps it, an async function"
        return Result(Status.UNHEALTHY, text)
    return Result(
        Status.UNHEALTHY,
        f"it returned {answer!r:.80}, not None, a bool, a known Status or Result",
    )


def _raised(error: BaseException) -> Result:
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ is told like any other
        text = "<its __str__ failed>"
    return Result(Status.UNHEALTHY, f"{type(error).__name__}: {text}"[:500])


def _kind(given: Kind | str) -> Kind:
    try:
        return Kind(given)
    except ValueError:
        known = ", ".join(Kind)
        raise ValueError(f"kind must be one of {known}, got {given!r}") from None


def flag(name: str, given: bool) -> bool:
    """`given` when it is True or False; else a `TypeError` naming `name`."""
    if not isinstance(given, bool):
        raise TypeError(f"{name} must be True or False, got {given!r}")
    return given


def _function(given: CheckFunction) -> CheckFunction:
    if not callable(given):
        raise TypeError(f"function must be callable, got {given!r}")
    return given


def _names(parameter: str, given: Iterable[str]) -> tuple[str, ...]:
    if isinstance(given, str):
        raise TypeError(f"{parameter} must be a list of names, got {given!r} (str)")
    return tuple(_rust.text(parameter, name) for name in given)
