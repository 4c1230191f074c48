"""As much HTTP/1.1 as the workload needs: GET, keep-alive, loopback only.

A real service has a server of its own; this one shows what `drain` and `stop`
of a server mean.
"""

import asyncio
import itertools
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import cast

LONGEST_HEAD = 16 * 1024
SLOWEST_HEAD = 10.0
# Time in which a connection that is open at the drain may still ask.
LINGER = 0.5

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was read in full."""

    path: str
    id: str


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


class Server:
    """Answers every request it has read in full, also while it stops."""

    def __init__(self, handler: Handler, leaving: Callable[[], bool]) -> None:
        self._handler = handler
        self._leaving = leaving  # when true, clients are told to go elsewhere
        self._listener = socket.socket()
        self._busy: dict[asyncio.Task[None], bool] = {}
        self._numbers = itertools.count(1)
        self._draining = False
        self.port = 0

    async def start(self) -> None:
        """Listen on a free port of the loopback."""
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(128)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def drain(self) -> None:
        """Take no new connection; those there are may ask a little longer."""
        if self._draining:
            return
        self._draining = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._listener)
        self._accept()  # who has connected already is served
        self._listener.close()
        loop.call_later(LINGER, self._close_idle)

    async def stop(self) -> None:
        """Let every connection finish the request it is at."""
        self.drain()
        if self._busy:
            await asyncio.wait(self._busy)

    def _accept(self) -> None:
        # Not `asyncio.start_server`: its `close` refuses those who have connected
        # and were not accepted yet, and before 3.12 may forget one that was.
        while True:
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            connection.setblocking(False)
            task = asyncio.create_task(self._connected(connection))
            self._busy[task] = False
            task.add_done_callback(self._busy.pop)

    def _close_idle(self) -> None:
        for connection, busy in self._busy.items():
            if not busy:
                connection.cancel()

    async def _connected(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(
            sock=connection, limit=LONGEST_HEAD
        )
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError):
            pass  # the client went away, or took too long to ask
        finally:
            writer.close()

    async def _exchange(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Read and answer one request; True when another may follow."""
        try:
            async with asyncio.timeout(SLOWEST_HEAD):
                head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            await self._send(writer, Response(400), keep=False)
            return False
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._busy[task] = True
        request = self._parse(head)
        response = await self._handler(request) if request else Response(400)
        keep = request is not None and not (self._draining or self._leaving())
        await self._send(writer, response, keep=keep)
        self._busy[task] = False
        return keep

    def _parse(self, head: bytes) -> Request | None:
        first, *lines = head.decode("latin-1").split("\r\n")
        match first.split(" "):
            case ["GET", path, "HTTP/1.1"]:
                pairs = (line.partition(":") for line in lines)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
                number = next(self._numbers)
                return Request(path, headers.get("x-request-id", f"own-{number}"))
            case _:
                return None

    async def _send(
        self, writer: asyncio.StreamWriter, response: Response, *, keep: bool
    ) -> None:
        headers = {
            "Content-Length": str(len(response.body)),
            "Connection": "keep-alive" if keep else "close",
        } | response.headers
        lines = [f"HTTP/1.1 {response.status} {REASONS[response.status]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + response.body)
        await writer.drain()
