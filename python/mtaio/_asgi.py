"""An application around an ASGI app: its lifespan, and its requests counted."""

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

from ._phases import Phase
from ._signals import STOP_ASKED, handled
from .exceptions import ApplicationError, ShutdownError, StartupError

if TYPE_CHECKING:
    from ._lifecycle import Lifecycle

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Message, Receive, Send], Awaitable[None]]

_log = logging.getLogger("mtaio.app")

# 1013 is "try again later" (RFC 6455 and its registry).
_TRY_LATER = 1013
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Mounted:
    """ASGI: `inner` with the application started around it.

    The lifespan starts the application and then `inner`'s own lifespan, and
    stops them the other way round. Every HTTP request and WebSocket counts as a
    request under way; one that comes when none is taken is answered 503 (or
    closed with 1013).

    SIGHUP reloads, unless the server has a handler of its own for it.

    A server that runs as a component of the application gives its lifespan to
    `inner` alone.

    A server that hears SIGTERM stops listening at once. So the server's handler
    is held back for the drain delay, in which readiness has failed already.
    """

    def __init__(self, inner: AsgiApp, application: "Lifecycle") -> None:
        self._inner = inner
        self._application = application
        self._was_told = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif self._application.refusal() is not None:
            self._tell_of_missing_lifespan()
            await _refuse(scope, receive, send)
        else:
            async with self._application.request():
                await self._inner(scope, receive, send)

    def _tell_of_missing_lifespan(self) -> None:
        if self._application.phase is Phase.NEW and not self._was_told:
            self._was_told = True
            _log.error(
                "every request is refused: the application was not started. "
                "Has the server, or a router it is mounted in, no lifespan for it?"
            )

    async def _live(self, scope: Message, receive: Receive, send: Send) -> None:
        if self._application.phase is not Phase.NEW:
            # The server is a part of the application, which stops them both.
            await self._inner(scope, receive, send)
            return
        inner = _InnerLifespan(self._inner, scope)
        self._application.add(
            "mtaio:asgi lifespan", inner, depends_on=self._application.components
        )
        await receive()
        try:
            await self._application.start()
        except (ApplicationError, ValueError) as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        with (
            _held_back_signals(self._application),
            _reloads_at_sighup(self._application),
        ):
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await self._application.stop()
        await send({"type": "lifespan.shutdown.complete"})


class _InnerLifespan:
    """The lifespan of the mounted app, as a component; it may have none."""

    def __init__(self, inner: AsgiApp, scope: Message) -> None:
        self._inner = inner
        self._scope = scope
        self._to_inner: asyncio.Queue[Message] = asyncio.Queue()
        self._from_inner: asyncio.Queue[Message] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run())
        if fault := await self._ask("startup"):
            raise StartupError(f"the mounted app's lifespan failed to start{fault}")

    async def stop(self) -> None:
        if self._task is None or self._task.done():
            return
        if fault := await self._ask("shutdown"):
            raise ShutdownError(f"the mounted app's lifespan failed to stop{fault}")

    async def _run(self) -> None:
        await self._inner(self._scope, self._to_inner.get, self._from_inner.put)

    async def _ask(self, event: str) -> str | None:
        """Send an event; None unless the answer is that it failed, then its message."""
        if self._task is None:
            return None
        self._to_inner.put_nowait({"type": f"lifespan.{event}"})
        answer = asyncio.ensure_future(self._from_inner.get())
        await asyncio.wait({answer, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if answer.done():
            told = answer.result()
            failed = told["type"] == f"lifespan.{event}.failed"
            return f": {told.get('message', '')}" if failed else None
        answer.cancel()
        # Raising is how an app says that it has no lifespan (ASGI 3.0).
        if not self._task.cancelled():
            self._task.exception()
        return None


@contextmanager
def _held_back_signals(application: "Lifecycle") -> Iterator[None]:
    """At the first stop signal drain, and let the server hear of it afterwards.

    A second one goes straight to the server. Servers whose handlers Python
    can't call (those of the loop) hear it at once; readiness still fails first.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop, process = asyncio.get_running_loop(), os.getpid()
    servers = {number: signal.getsignal(number) for number in _STOP_SIGNALS}

    def on_signal(number: int, frame: FrameType | None) -> None:
        server = servers[signal.Signals(number)]
        if not callable(server):
            return
        delay = 0.0
        # In a fork there is nothing to drain, and no loop that turns.
        if application.phase is Phase.READY and os.getpid() == process:
            # From inside the handler: the loop may be stuck.
            if application.health is not None:
                application.health.set_ready(False, STOP_ASKED)
            loop.call_soon_threadsafe(application.begin_drain)
            delay = application.drain_delay
        if delay > 0:
            loop.call_soon_threadsafe(loop.call_later, delay, server, number, None)
        else:
            server(number, frame)

    for number, server in servers.items():
        if callable(server):
            signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, server in servers.items():
            if signal.getsignal(number) is on_signal:
                signal.signal(number, server)


def _reloads_at_sighup(application: "Lifecycle") -> AbstractContextManager[object]:
    """Where it would end the process, and the server has no use for it."""
    number = getattr(signal, "SIGHUP", None)
    is_free = number is not None and signal.getsignal(number) is signal.SIG_DFL
    return handled({number: application.request_reload} if number and is_free else {})


async def _refuse(scope: Message, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": _TRY_LATER})
        return
    headers = [(b"connection", b"close"), (b"retry-after", b"1")]
    headers.append((b"content-length", b"0"))
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
