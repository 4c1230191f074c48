"""As much HTTP/1.1 as the demo needs: GET and POST, keep-alive, loopback only.

A real service has a server of its own; this one shows what `drain` and `stop`
of a server mean, and has limits on all that a client can send or hold.
"""

import asyncio
import itertools
import logging
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import cast

logger = logging.getLogger("mtaio.http")

HOST = "127.0.0.1"
LONGEST_HEAD = 16 * 1024
LONGEST_BODY = 4 * 1024
# For a request to arrive whole; an idle connection is closed after it too.
SLOWEST_REQUEST = 10.0
MOST_CONNECTIONS = 256
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
# Time in which a connection that is open at the drain may still ask.
LINGER = 0.5


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was read in full; names of headers are in lower case."""

    method: str
    path: str
    id: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Awaitable[Response]]


class Refused(Exception):  # noqa: N818 - an answer, not an error of ours
    """A request that can't be read; `args[0]` is the status to answer."""


class Server:
    """Answers every request it has read in full, also while it stops.

    Needs a loop that can watch a socket: on Windows `asyncio.SelectorEventLoop`.

    Args:
        handler: Makes the answers.
        leaving: When it says true, clients are told to go elsewhere.
        port: 0 for any free one.
    """

    def __init__(
        self,
        handler: Handler,
        leaving: Callable[[], bool] = lambda: False,
        port: int = 0,
    ) -> None:
        self._handler = handler
        self._leaving = leaving
        self._listener: socket.socket | None = None
        self._busy: dict[asyncio.Task[None], bool] = {}
        self._numbers = itertools.count(1)
        self._draining = False
        self.port = port

    def bind(self) -> None:
        """Take the port, so that it is known before anybody is answered.

        Raises:
            OSError: It can't be had; the message names it.
        """
        if self._listener is None:
            try:
                listener = socket.create_server((HOST, self.port), backlog=128)
            except OSError as error:
                told = f"cannot listen on {HOST}:{self.port}: {error.strerror}"
                raise OSError(error.errno, told) from error
            listener.setblocking(False)
            self._listener, self.port = listener, listener.getsockname()[1]

    def close(self) -> None:
        """Give the port back, if `start` was never reached."""
        if self._listener is not None:
            self._listener.close()

    async def start(self) -> None:
        """Take the port unless taken, and answer."""
        self.bind()
        asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def drain(self) -> None:
        """Take no new connection; those there are may ask a little longer."""
        if self._draining:
            return
        self._draining = True
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._socket)
        self._accept()  # who has connected already is served
        self._socket.close()
        loop.call_later(LINGER, self._close_idle)

    async def stop(self) -> None:
        """Let every connection finish the request it is at."""
        self.drain()
        if self._busy:
            await asyncio.wait(self._busy)

    @property
    def _socket(self) -> socket.socket:
        return cast("socket.socket", self._listener)

    def _accept(self) -> None:
        # Not `asyncio.start_server`: its `close` refuses those who have connected
        # and were not accepted yet, and before 3.12 may forget one that was.
        while True:
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return
            if len(self._busy) >= MOST_CONNECTIONS:
                connection.close()
                continue
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
        task = cast("asyncio.Task[None]", asyncio.current_task())
        try:
            async with asyncio.timeout(SLOWEST_REQUEST):
                head = await self._read_head(reader)
                self._busy[task] = True
                request = await self._read(head, reader)
        except Refused as refusal:
            await _send(writer, Response(refusal.args[0]), keep=False)
            return False
        try:
            response = await self._handler(request)
        except Exception:
            logger.exception(
                "%s %s could not be answered", request.method, request.path
            )
            response = Response(500)
        keep = not (self._draining or self._leaving())
        await _send(writer, response, keep=keep)
        self._busy[task] = False
        return keep

    async def _read_head(self, reader: asyncio.StreamReader) -> bytes:
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            raise Refused(431) from None

    async def _read(self, head: bytes, reader: asyncio.StreamReader) -> Request:
        first, *lines = head.decode("latin-1").split("\r\n")
        # What is logged or sent back must not be able to begin a line of its own.
        if any(CONTROL.search(line) for line in (first, *lines)):
            raise Refused(400)
        match first.split(" "):
            # Another form could name another place where we answer with a link.
            case [method, target, "HTTP/1.1"] if target.startswith("/"):
                pairs = (line.partition(":") for line in lines)
                headers = {name.lower(): value.strip() for name, _, value in pairs}
            case _:
                raise Refused(400)
        path, _, query = target.partition("?")
        name = headers.get("x-request-id", f"own-{next(self._numbers)}")
        body = await reader.readexactly(_body_length(headers))
        return Request(method, path, name, query, headers, body)


async def fetch(port: int, target: str) -> Response:
    """GET from a server on this machine, over a connection for this alone.

    Raises:
        OSError: Nobody listens, or the connection broke.
        EOFError: The answer ended before its end.
    """
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        return await ask(reader, writer, target)
    finally:
        writer.close()


async def ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: str,
    headers: dict[str, str] | None = None,
) -> Response:
    """GET over an open connection. Raises as `fetch` does."""
    given = {"Host": "localhost"} | (headers or {})
    lines = [f"GET {target} HTTP/1.1", *(f"{n}: {v}" for n, v in given.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *rest = head.rstrip().split("\r\n")
    got = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in rest)}
    body = await reader.readexactly(int(got["content-length"]))
    return Response(int(first.split(" ")[1]), body, got)


def _body_length(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not (length.isascii() and length.isdecimal()):
        raise Refused(400)
    if len(length) > 9 or int(length) > LONGEST_BODY:
        raise Refused(413)
    return int(length)


async def _send(
    writer: asyncio.StreamWriter, response: Response, *, keep: bool
) -> None:
    headers = {
        "Content-Length": str(len(response.body)),
        "Connection": "keep-alive" if keep else "close",
    } | response.headers
    lines = [f"HTTP/1.1 {response.status} {HTTPStatus(response.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join([*lines, "", ""]).encode("latin-1") + response.body)
    await writer.drain()
