"""Probes served from a native thread."""

import asyncio
import json
import os
import threading
import weakref
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from . import _rust
from ._rust import Distribution, LivenessGuard, MetricFamily, MetricsSource
from .exceptions import MonitoringError

__all__ = (
    "Distribution",
    "LivenessGuard",
    "MetricFamily",
    "MetricsSource",
    "ProbeServer",
)

Number = TypeVar("Number", int, float)
Verdict = bool | str | Iterable[str]

# How often a stopping server is looked at by a loop that awaits its end.
_POLL_SECONDS = 0.002

_servers: "weakref.WeakSet[ProbeServer]" = weakref.WeakSet()


class Watched(Protocol):
    """What `ProbeServer.add_watchdog` takes, such as `Watchdog`."""

    @property
    def source(self) -> MetricsSource:
        """Its metrics."""

    @property
    def guard(self) -> LivenessGuard:
        """What fails `/livez`."""


class ProbeServer:
    """Serves `/livez /readyz /startupz /healthz /metrics` from a native thread.

    It answers from what was last published, without the event loop and without
    the GIL: in well under a millisecond also while either is stuck. Until told
    otherwise a process is alive, but neither started nor ready.

    `publish` and its kin may be called from any thread, before, while and after
    it serves, and never wait. A forked child does not serve; it may `start` a
    server of its own. `ProbeApp` and `ProbeCollector` give the same answers
    without the thread.

    Args:
        host: Address or name to listen on. Anything but a loopback address lets
            the network read your metrics.
        port: 0 for any free one.
        max_connections: Beyond it the connection idle for longest is closed, so
            that nobody can silence the probes by holding connections.
        max_header_bytes: Of a request, its first line included; else 431.
        header_timeout: Seconds for a request to arrive, and for an idle
            connection to be kept; else 408.
        allowed_origin: The one origin, such as `http://127.0.0.1:8000`, whose
            pages may read the answers in a browser (CORS). None allows no other
            than pages from this very port, of which there are none.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        max_connections: int = 128,
        max_header_bytes: int = 8192,
        header_timeout: float = 5.0,
        allowed_origin: str | None = None,
    ) -> None:
        self._host = _rust.text("host", host)
        self._asked_port = _at_most("port", _rust.whole("port", port, 0), 65_535)
        self._max_connections = _at_most(
            "max_connections", _rust.whole("max_connections", max_connections), 65_536
        )
        self._max_header_bytes = _at_most(
            "max_header_bytes",
            _rust.whole("max_header_bytes", max_header_bytes, 256),
            1_048_576,
        )
        self._header_timeout = _at_most(
            "header_timeout", _rust.positive("header_timeout", header_timeout), 3600.0
        )
        self._allowed_origin = (
            None
            if allowed_origin is None
            else _rust.origin("allowed_origin", allowed_origin)
        )
        self._board = _rust.ProbeBoard()
        self._thread: _rust.ProbeThread | None = None
        self._starting = threading.Lock()
        _servers.add(self)

    def start(self) -> None:
        """Listen and serve; no effect while it serves. Waits for the resolver only.

        Raises:
            ProbeError: The address can't be listened on; the message names it.
        """
        with self._starting:
            if self._thread is None:
                self._thread = _rust.ProbeThread(
                    self._board,
                    (self._host, self._asked_port),
                    max_connections=self._max_connections,
                    max_header_bytes=self._max_header_bytes,
                    header_timeout=self._header_timeout,
                    allowed_origin=self._allowed_origin,
                )

    def stop(self, timeout: float = 2.0) -> None:
        """Stop serving and free the port; no effect when it doesn't serve.

        Answers on their way get a fifth of a second. Blocks until then; a loop
        awaits `aclose` instead.

        Raises:
            MonitoringError: The thread did not end within `timeout` seconds,
                held up by a metrics source; it is left to itself.
        """
        _rust.non_negative("timeout", timeout)
        thread, self._thread = self._thread, None
        if thread is not None and not thread.stop(timeout):
            raise MonitoringError(f"probe thread did not end within {timeout:g} s")

    async def aclose(self, timeout: float = 2.0) -> None:
        """`stop`, without blocking the loop. Cancelling leaves it stopping."""
        _rust.non_negative("timeout", timeout)
        thread, self._thread = self._thread, None
        if thread is None:
            return
        thread.request_stop()
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while not thread.is_finished() and loop.time() < until:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)  # a native thread sets no Event
        if not thread.stop(0.0):
            raise MonitoringError(f"probe thread did not end within {timeout:g} s")

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def running(self) -> bool:
        """Whether it serves."""
        return self._thread is not None

    @property
    def host(self) -> str:
        """The address asked for."""
        return self._host

    @property
    def port(self) -> int:
        """The port it serves on; the one asked for while it doesn't."""
        return self._asked_port if self._thread is None else self._thread.port

    @property
    def url(self) -> str:
        """Such as `http://127.0.0.1:8080`, without a path."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def publish(
        self,
        *,
        live: Verdict | None = None,
        ready: Verdict | None = None,
        startup: Verdict | None = None,
        health: Mapping[str, Any] | None = None,
        healthy: bool | None = None,
    ) -> None:
        """Make what is given visible at once; what isn't given stays.

        Args:
            live: For `/livez`: True passes; False, a reason, or reasons fail it.
                Failing asks for a restart, so no dependency belongs here.
            ready: For `/readyz`, the same way: failing asks for no traffic.
            startup: For `/startupz`, the same way.
            health: The document of `/healthz`, anything `json.dumps` takes.
            healthy: Whether `/healthz` answers 200 (else 503); None takes it
                from the document's `status`: "fail", "down", "error" and
                "unhealthy" don't pass.

        Raises:
            TypeError: A verdict or the document is of the wrong type.
            ValueError: A reason is empty, `healthy` came without `health`, or
                the document holds NaN or refers to itself.
        """
        if health is None and healthy is not None:
            raise ValueError(f"healthy must come with health, got {healthy!r} alone")
        document = None if health is None else _document(health, healthy)
        self._board.publish(live=live, ready=ready, startup=startup, health=document)

    def publish_metrics(
        self, families: Iterable[MetricFamily], *, group: str = "app"
    ) -> None:
        """Replace the metrics published under `group`; other groups stay.

        Families of one name in several groups are served as one; where labels
        are equal too, the group first in the alphabet stands.
        """
        self._board.publish_metrics(group, families)

    def add_source(self, source: MetricsSource) -> None:
        """Serve native metrics at every scrape, read without Python."""
        self._board.add_source(source)

    def remove_source(self, source: MetricsSource) -> None:
        """Serve them no longer."""
        self._board.remove_source(source)

    def add_watchdog(self, watchdog: Watched) -> None:
        """Serve a watchdog's metrics, and let it fail `/livez` (`fail_after`)."""
        self._board.add_source(watchdog.source)
        self._board.add_guard(watchdog.guard)

    def families(self) -> list[MetricFamily]:
        """All that `/metrics` would serve at this moment."""
        return self._board.families()

    def answer(
        self, method: str, path: str, accept: str = ""
    ) -> tuple[int, str, bytes, str | None]:
        """Answer one request: status, content type, body, and `Allow` if 405.

        For mounting the probes elsewhere. Never waits.
        """
        return self._board.answer(method, path, accept)

    def _after_fork_in_child(self) -> None:
        self._board.after_fork_in_child()
        self._starting = threading.Lock()  # another thread may have held it
        if self._thread is not None:
            self._thread.forget()
            self._thread = None


def _at_most(name: str, value: Number, most: Number) -> Number:
    if value > most:
        raise ValueError(f"{name} must be at most {most}, got {value}")
    return value


def _document(health: Mapping[str, Any], healthy: bool | None) -> tuple[str, bool]:
    if not isinstance(health, Mapping):
        raise TypeError(f"health must be a mapping, got {health!r}")
    if healthy is not None and not isinstance(healthy, bool):
        raise TypeError(f"healthy must be a bool, got {healthy!r}")
    text = json.dumps(dict(health), allow_nan=False)
    failing = {"fail", "down", "error", "unhealthy"}
    return text, health.get("status") not in failing if healthy is None else healthy


def _after_fork_in_child() -> None:
    for server in list(_servers):
        server._after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork_in_child)
