"""The same answers from an app mounted where HTTP is served already."""

import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from mtaio.monitoring import MetricFamily, ProbeApp, ProbeCollector, ProbeServer
from probe_client import request

PATHS = ("/livez", "/readyz", "/startupz", "/healthz", "/metrics", "/other", "/")


@pytest.fixture
def probes():
    server = ProbeServer()
    server.publish(ready="draining", startup=True, health={"status": "fail"})
    server.publish_metrics([MetricFamily("counter", "jobs", "Jobs.", 3)])
    server.start()
    yield server
    server.stop()


def client(app, root=""):
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, root_path=root), base_url="http://x"
    )


def of_starlette(prefix, app):
    return Starlette(routes=[Mount(prefix, app=app)])


def of_fastapi(prefix, app):
    service = fastapi.FastAPI()
    service.mount(prefix, app)
    return service


@pytest.mark.parametrize("prefix", ["", "/internal", "/a/b"])
@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
@pytest.mark.parametrize("mount", [of_starlette, of_fastapi])
@pytest.mark.parametrize("root", ["", "/behind"])  # a proxy's prefix
async def test_a_mounted_app_answers_like_the_server(
    probes, mount, root, prefix, accept
):
    app = mount(prefix or "/", ProbeApp(probes))

    async with client(app, root) as http:
        for path in PATHS:
            got = await http.get(root + prefix + path, headers={"accept": accept})
            status, headers, body = request(probes, path, accept=accept)

            assert (got.status_code, got.text) == (status, body), path
            assert got.headers["content-type"] == headers["content-type"]
            assert got.headers["cache-control"] == "no-store"


async def test_methods_are_as_with_the_server(probes):
    async with client(ProbeApp(probes)) as http:
        head = await http.head("/livez")
        post = await http.post("/livez")

    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) == len('{"status":"pass"}')
    assert (post.status_code, post.headers["allow"]) == (405, "GET, HEAD")


async def test_a_head_has_no_body_for_a_server_to_send(probes):
    sent = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "HEAD", "path": "/livez", "headers": []}
    await ProbeApp(probes)(scope, None, send)

    assert (sent[0]["status"], sent[1]["body"]) == (200, b"")


async def test_it_needs_no_started_server():
    async with client(ProbeApp(ProbeServer())) as http:
        assert (await http.get("/livez")).status_code == 200


async def test_it_takes_part_in_the_lifespan_and_refuses_websockets(probes):
    sent = []
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive():
        return next(messages)

    async def send(message):
        sent.append(message["type"])

    app = ProbeApp(probes)
    await app({"type": "lifespan"}, receive, send)
    await app({"type": "websocket"}, receive, send)

    assert sent == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
        "websocket.close",
    ]


@pytest.mark.parametrize("kind", [ProbeApp, ProbeCollector])
def test_only_a_probe_server_is_taken(kind):
    with pytest.raises(TypeError, match="probes must be a ProbeServer"):
        kind(None)
