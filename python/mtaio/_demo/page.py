"""The page: its files, the state it shows, and the way in for its buttons.

It is served by a thread with a loop of its own, so it answers while the loop of
the deployment is blocked (but not while C code holds the interpreter: then only
the probes do). What the page draws it reads from the probe thread itself.
"""

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib import resources
from typing import Any
from urllib.parse import parse_qs

from mtaio import __version__
from mtaio.app import Phase
from mtaio.monitoring import MetricFamily, ProbeServer

from .deployment import Deployment
from .http import HOST, Request, Response, Server
from .trouble import Trouble, TroubleError

# How often figures that live in Python are handed to the probes.
PUBLISH_SECONDS = 0.5
# After the end: how long a page that looks regularly may look once more.
LAST_LOOK = 2.0
# A page that has not asked for so long is not looking any more.
LOOKS_EVERY = 2.0
JOIN_SECONDS = 10.0
# Not a header that a form or a simple request of another site can carry.
ACTION_HEADER = "x-mtaio-demo"

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
HARDENED = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Page:
    """Serves the page from a thread; made and stopped by the deployment's loop.

    Args:
        port: On loopback; 0 for any free one. Taken at once, so that `origin` is
            known before anything else is made.

    Raises:
        OSError: The port can't be had.
    """

    def __init__(self, port: int = 0) -> None:
        self._server = Server(self._answer, port=port)
        self._server.bind()
        self._files = {f"/{name}": body for name, body in _files()}
        self._files["/"] = self._files.pop("/index.html")
        self._thread: threading.Thread | None = None
        # Windows' default loop can't watch a socket.
        self._loop = asyncio.SelectorEventLoop()
        self._stopping = asyncio.Event()
        self._last_look = 0.0
        self._looked_at_end = asyncio.Event()

    @property
    def origin(self) -> str:
        """Where the page is, as browsers name it."""
        return f"http://{HOST}:{self._server.port}"

    def start(self, deployment: Deployment) -> None:
        """Serve from now on. Call it on the loop that troubles are to be made on."""
        self._deployment = deployment
        self._trouble = Trouble(deployment)
        self._probes = reachable(deployment.probes)
        self._begun = time.monotonic()
        # A daemon: whatever happens, it can't keep the process from ending.
        self._thread = threading.Thread(
            target=self._serve, name="demo-page", daemon=True
        )
        self._thread.start()

    async def stop(self) -> None:
        """Let who is looking see the end, then serve no more."""
        if self._thread is None:
            self._server.close()
            self._loop.close()
            return
        with contextlib.suppress(RuntimeError):  # it ended by an error, which is told
            self._loop.call_soon_threadsafe(self._stopping.set)
        await asyncio.to_thread(self._thread.join, JOIN_SECONDS)

    def _serve(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())

    async def _live(self) -> None:
        await self._server.start()
        publishing = asyncio.create_task(self._publish())
        await self._stopping.wait()
        if time.monotonic() - self._last_look < LOOKS_EVERY:
            try:
                async with asyncio.timeout(LAST_LOOK):
                    await self._looked_at_end.wait()
            except TimeoutError:
                pass  # it went away
        publishing.cancel()
        await self._server.stop()

    async def _publish(self) -> None:
        """Hand figures of Python objects to `/metrics`, loop blocked or not."""
        while True:
            self._deployment.probes.publish_metrics(
                families(self._deployment), group="demo"
            )
            await asyncio.sleep(PUBLISH_SECONDS)

    async def _answer(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        if request.path.startswith("/actions/"):
            return self._act(request)
        if request.method != "GET":
            return _told(405, "only GET", Allow="GET")
        if request.path == "/state":
            return self._state(request)
        if request.path in self._files:
            return self._file(request.path)
        return _told(404, "there is no such page")

    def _refusal(self, request: Request) -> Response | None:
        """Answer none but browsers that were sent here, by this name.

        A name of somebody else's that resolves to this machine (DNS rebinding)
        would make its page one of our origin.
        """
        host = request.headers.get("host", "")
        if host == f"localhost:{self._server.port}" and request.method == "GET":
            # One origin, which the probes know.
            target = request.path + (f"?{request.query}" if request.query else "")
            return _told(308, "moved", Location=self.origin + target)
        if host != f"{HOST}:{self._server.port}":
            return _told(421, f"this is {self.origin}")
        return None

    def _file(self, path: str) -> Response:
        suffix = os.path.splitext(path)[1] or ".html"
        headers = {"Content-Type": TYPES[suffix]} | HARDENED
        if suffix == ".html":
            headers["Content-Security-Policy"] = self._policy()
        return Response(200, self._files[path], headers)

    def _policy(self) -> str:
        """Nothing from anywhere, but what the page asks on this machine."""
        return "; ".join(
            (
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "img-src 'self'",
                f"connect-src 'self' {self._probes} {self._deployment.url}",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
                "require-trusted-types-for 'script'",
            )
        )

    def _state(self, request: Request) -> Response:
        after = parse_qs(request.query).get("after", ["0"])[-1]
        if not (after.isascii() and after.isdecimal() and len(after) <= 15):
            return _told(400, f"after must be the number of an entry, got {after!r}")
        app = self._deployment.app
        state: dict[str, Any] = {
            "version": __version__,
            "pid": os.getpid(),
            "uptime": time.monotonic() - self._begun,
            "phase": app.phase,
            "in_flight": app.in_flight,
            "probes": self._probes,
            "service": self._deployment.url,
            "stock_broken": self._deployment.stock.broken,
            "exit_code": app.exit_code if self._stopping.is_set() else None,
            "entries": [asdict(e) for e in self._deployment.journal.since(int(after))],
        }
        self._last_look = time.monotonic()
        if self._stopping.is_set():
            self._looked_at_end.set()
        return _json(200, state)

    def _act(self, request: Request) -> Response:
        if request.method != "POST":
            return _told(405, "only POST", Allow="POST")
        if fault := self._foreign(request):
            return _told(403, fault)
        kind = request.path.removeprefix("/actions/")
        if kind not in self._trouble.kinds:
            return _told(404, f"an action is one of {', '.join(self._trouble.kinds)}")
        if (phase := self._deployment.app.phase) is not Phase.READY:
            return _told(409, f"the application is {phase}")
        try:
            given = _read_json(request.body)
            if not isinstance(given, dict):
                raise TroubleError(f"the body must be a JSON object, got {given!r}")
            self._trouble.make(kind, given)
        except TroubleError as error:
            return _told(400, str(error))
        return _json(202, {"begun": kind})

    def _foreign(self, request: Request) -> str | None:
        """Why this can't come from our own page; None when it does."""
        origin = request.headers.get("origin")
        if origin != self.origin:
            return f"origin must be {self.origin}, got {origin!r}"
        if request.headers.get(ACTION_HEADER) != "1":
            return f"the header {ACTION_HEADER} must be 1"
        return None


def families(deployment: Deployment) -> Iterator[MetricFamily]:
    """What the page draws and no other source tells."""
    limiter, cache = deployment.limiter.stats(), deployment.cache.stats()
    log, answers = deployment.log.stats(), deployment.load.answers
    counts: list[tuple[str, str, float]] = [
        ("limiter_granted", "Tokens granted.", limiter.granted),
        ("limiter_refused", "Requests refused.", limiter.refused),
        ("limiter_waited_seconds", "Waited by all, together.", limiter.waited),
        ("cache_hits", "Reads that found a value.", cache.hits),
        ("cache_misses", "Reads that found none.", cache.misses),
        ("log_lines", "Records in the file.", log.written),
        ("answers", "Answers the load had.", answers.total()),
        ("answers_200", "Those with status 200.", answers[200]),
    ]
    for name, text, value in counts:
        yield MetricFamily("counter", f"mtaio_demo_{name}", text, value)
    gauges = [
        ("limiter_waiting", "Callers that wait now.", limiter.waiting),
        ("cache_items", "Entries held.", cache.items),
    ]
    for name, text, value in gauges:
        yield MetricFamily("gauge", f"mtaio_demo_{name}", text, value)


def reachable(probes: ProbeServer) -> str:
    """Where a browser on this machine finds running probes.

    A content security policy can't name an IPv6 address, hence the names.
    """
    host = {"0.0.0.0": HOST, "::": "localhost", "::1": "localhost"}  # noqa: S104
    return f"http://{host.get(probes.host, probes.host)}:{probes.port}"


def _files() -> Iterator[tuple[str, bytes]]:
    """The page's files, read once: what isn't here can't be asked for."""
    for file in resources.files(__package__).joinpath("static").iterdir():
        if os.path.splitext(file.name)[1] in TYPES:
            yield file.name, file.read_bytes()


def _read_json(body: bytes) -> object:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise TroubleError(f"the body must be JSON: {error}") from error


def _told(status: int, text: str, **headers: str) -> Response:
    kind = {"Content-Type": "text/plain; charset=utf-8"}
    return Response(status, f"{text}\n".encode(), kind | HARDENED | headers)


def _json(status: int, document: dict[str, Any]) -> Response:
    headers = {"Content-Type": "application/json"} | HARDENED
    return Response(status, json.dumps(document).encode(), headers)
