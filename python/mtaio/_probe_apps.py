"""The probes where you serve HTTP already: an ASGI app, a metrics collector."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ._probes import ProbeServer

if TYPE_CHECKING:
    from prometheus_client.core import Metric as PrometheusMetric

__all__ = ("ProbeApp", "ProbeCollector")

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class ProbeApp:
    """The probes as an ASGI app, to mount where you serve HTTP already.

    Same paths and answers as `ProbeServer`, from the same published state; but
    it runs on your loop, so it is silent while that is blocked::

        app.mount("/internal", ProbeApp(probes))  # Starlette, FastAPI

    Args:
        probes: Its state is served; it need not be started.
    """

    def __init__(self, probes: ProbeServer) -> None:
        if not isinstance(probes, ProbeServer):
            raise TypeError(f"probes must be a ProbeServer, got {probes!r}")
        self._probes = probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "http":
            await self._respond(scope, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _respond(self, scope: Scope, send: Send) -> None:
        method = scope["method"]
        status, kind, body, allow = self._probes.answer(
            method, _mounted_path(scope), _accept(scope)
        )
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
        ]
        if allow is not None:
            headers.append((b"allow", allow.encode()))
        await send(
            {"type": "http.response.start", "status": status, "headers": headers}
        )
        body = b"" if method == "HEAD" else body
        await send({"type": "http.response.body", "body": body})


def _mounted_path(scope: Scope) -> str:
    """Return the path below the mount, whether or not the server cut it already."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if path.startswith(f"{root}/") else path


def _accept(scope: Scope) -> str:
    values = [value for name, value in scope["headers"] if name.lower() == b"accept"]
    return b",".join(values).decode("latin-1")


async def _live(receive: Receive, send: Send) -> None:
    """Take part in the lifespan protocol when served alone."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


class ProbeCollector:
    """The same metrics, for a `prometheus_client` registry you serve already.

        REGISTRY.register(ProbeCollector(probes))

    Needs `prometheus-client` (in the extra `service`).
    """

    def __init__(self, probes: ProbeServer) -> None:
        if not isinstance(probes, ProbeServer):
            raise TypeError(f"probes must be a ProbeServer, got {probes!r}")
        self._probes = probes

    def describe(self) -> list["PrometheusMetric"]:
        """Name nothing: what is published changes, so nothing is reserved."""
        return []

    def collect(self) -> Iterator["PrometheusMetric"]:
        """Yield what `/metrics` would serve at this moment."""
        from prometheus_client.core import Metric  # noqa: PLC0415 - optional

        for family in self._probes.families():
            metric = Metric(family.name, family.help, family.kind, family.unit)
            for labels, value in family.series:
                for suffix, extra, number in _samples(family.kind, value):
                    metric.add_sample(family.name + suffix, labels | extra, number)
            yield metric


def _samples(kind: str, value: Any) -> Iterator[tuple[str, dict[str, str], float]]:
    if kind in {"gauge", "counter"}:
        yield ("_total" if kind == "counter" else ""), {}, value
        return
    for point, number in value.points.items():
        if kind == "summary":
            yield "", {"quantile": str(point)}, number
        else:
            yield "_bucket", {"le": str(point)}, float(number)
    if kind == "histogram":
        yield "_bucket", {"le": "+Inf"}, float(value.count)
    yield "_count", {}, float(value.count)
    yield "_sum", {}, value.sum
