"""What the page's buttons do: trouble of the kinds that services get into."""

import asyncio
import ctypes
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from mtaio.app import Phase
from mtaio.exceptions import MTAIOError

from .deployment import Deployment
from .http import Request

# The longest the loop can be blocked by one press, past the watchdog's patience.
LONGEST_BLOCK = 10.0
# While the interpreter is held nothing stops it, not even Ctrl-C.
LONGEST_HOLD = 6.0
LONGEST_FLOOD = 30.0
# What one request of the flood is willing to wait for its token.
FLOOD_PATIENCE = 1.0
FLOOD_PAUSE = 0.25
MOST_FLOODERS = 5000
# Requests that the drain finds under way, and how long they outlast its delay.
SLOW_REQUESTS = 5
SLOW_BEYOND_DRAIN = 1.0


class TroubleError(ValueError):
    """What was asked for makes no sense; the message says what is accepted."""


class Trouble:
    """Carries out what the page asks for, on the loop of the deployment.

    `make` is called from the page's thread; all else runs on the loop.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._journal = deployment.journal
        self._loop = asyncio.get_running_loop()
        self._under_way: set[asyncio.Task[None]] = set()
        self._kinds: dict[str, Callable[[Mapping[str, Any]], None]] = {
            "block": self._block,
            "hold": self._hold,
            "flood": self._flood,
            "stock": self._stock,
            "stop": self._stop,
        }
        self._flooding = False

    @property
    def kinds(self) -> tuple[str, ...]:
        """What can be asked for."""
        return tuple(self._kinds)

    def make(self, kind: str, given: Mapping[str, Any]) -> None:
        """Begin trouble of that kind as soon as the loop turns. Never waits.

        Raises:
            TroubleError: The arguments are not what it takes.
            KeyError: There is no such kind.
        """
        self._kinds[kind](given)

    def _block(self, given: Mapping[str, Any]) -> None:
        seconds = _seconds(given, LONGEST_BLOCK)
        self._tell(f"blocking the event loop for {seconds:g} s, in a synchronous call")
        self._on_loop(read_from_a_slow_disk, seconds)

    def _hold(self, given: Mapping[str, Any]) -> None:
        seconds = _seconds(given, LONGEST_HOLD)
        self._tell(f"holding the GIL for {seconds:g} s, in C code")
        self._on_loop(call_c_that_keeps_the_interpreter, seconds)

    def _flood(self, given: Mapping[str, Any]) -> None:
        seconds = _seconds(given, LONGEST_FLOOD)
        self._on_loop(lambda: self._spawn(self._flood_for(seconds)))

    def _stock(self, given: Mapping[str, Any]) -> None:
        broken = given.get("broken")
        if not isinstance(broken, bool):
            raise TroubleError(f"broken must be true or false, got {broken!r}")
        # An attribute, so it can be mended while the loop is blocked.
        self._deployment.stock.broken = broken
        self._tell("the stock service breaks" if broken else "the stock service mends")

    def _stop(self, _: Mapping[str, Any]) -> None:
        """SIGTERM at once, loop blocked or not, as an orchestrator sends it."""
        self._tell(f"SIGTERM, with {SLOW_REQUESTS} slow requests under way")
        for number in range(1, SLOW_REQUESTS + 1):
            self._on_loop(self._spawn_slow, number)
        terminate()

    def _on_loop(self, begin: Callable[..., object], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(begin, *arguments)

    def _spawn_slow(self, number: int) -> None:
        self._spawn(self._ask_slowly(number))

    async def _flood_for(self, seconds: float) -> None:
        if self._flooding:
            return
        rate, burst = self._deployment.limiter.rate, self._deployment.limiter.burst
        # Twice what is let in while each has patience: so half is refused.
        crowd = min(math.ceil(burst + 2 * FLOOD_PATIENCE * rate), MOST_FLOODERS)
        until = self._loop.time() + seconds
        self._tell(f"{crowd} impatient clients for {seconds:g} s")
        self._flooding = True
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(crowd):
                    group.create_task(self._ask_until(until, number))
        finally:
            self._flooding = False
        self._tell("the impatient clients are gone")

    async def _ask_until(self, until: float, client: int) -> None:
        turn = 0
        while self._loop.time() < until and self._is_ready():
            turn += 1
            request = Request("GET", "/items/1", f"flood-{client}-{turn}")
            answer = await self._deployment.answer(request, FLOOD_PATIENCE)
            if answer.status != 200:
                await asyncio.sleep(FLOOD_PAUSE)

    async def _ask_slowly(self, number: int) -> None:
        settings, app = self._deployment.settings, self._deployment.app
        # Past the delay, so that the stop has to await it; in time for its own end.
        seconds = min(
            settings.drain_delay + SLOW_BEYOND_DRAIN,
            settings.default_timeout / 2,
            settings.grace_period / 2,
        )
        begun = self._loop.time()
        try:
            await app.handle(lambda: asyncio.sleep(seconds))
        except (MTAIOError, TimeoutError) as error:
            self._journal.tell("bad", "application", f"slow request {number}: {error}")
            return
        took = self._loop.time() - begun
        told = f"slow request {number} answered after {took:.1f} s, while {app.phase}"
        self._journal.tell("good", "application", told)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    def _is_ready(self) -> bool:
        return self._deployment.app.phase is Phase.READY

    def _tell(self, text: str) -> None:
        self._journal.tell("info", "action", text)


def read_from_a_slow_disk(seconds: float) -> None:
    """Wait as synchronous code does: without the interpreter, but on the loop."""
    time.sleep(seconds)


def call_c_that_keeps_the_interpreter(seconds: float) -> None:
    """Wait in C without releasing the interpreter, as a careless extension does."""
    until = time.monotonic() + seconds
    # A signal ends one call early; `PyDLL` keeps the lock where `CDLL` releases it.
    while (left := until - time.monotonic()) > 0:
        _hold_once(left)


if sys.platform == "win32":

    def _hold_once(seconds: float) -> None:
        ctypes.PyDLL("kernel32").Sleep(math.ceil(seconds * 1000))

else:

    def _hold_once(seconds: float) -> None:
        # poll(2) on nothing: unlike usleep(3) it takes a second or more.
        ctypes.PyDLL(None).poll(None, ctypes.c_ulong(0), math.ceil(seconds * 1000))


def terminate() -> None:
    """Send this process SIGTERM."""
    if sys.platform == "win32":
        signal.raise_signal(signal.SIGTERM)  # `os.kill` would end it on the spot
    else:
        os.kill(os.getpid(), signal.SIGTERM)


def _seconds(given: Mapping[str, Any], most: float) -> float:
    seconds = given.get("seconds")
    if isinstance(seconds, int | float) and seconds is not True and 0 < seconds <= most:
        return float(seconds)
    raise TroubleError(
        f"seconds must be a number above 0 and at most {most:g}, got {seconds!r}"
    )
