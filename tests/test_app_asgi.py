"""An application around an ASGI app: lifespan, counting, refusing, draining."""

import asyncio
import signal
import sys

import pytest

import virtual_time
from mtaio import _asgi
from mtaio.app import Application, ExitCode, Phase


class Server:
    """The server's side of ASGI: a lifespan, and one request at a time."""

    def __init__(self, app):
        self.app = app
        self.to_app, self.from_app = asyncio.Queue(), asyncio.Queue()

    async def lifespan(self, event):
        if event == "startup":
            scope = {"type": "lifespan", "state": {}}
            self.task = asyncio.create_task(
                self.app(scope, self.to_app.get, self.from_app.put)
            )
        self.to_app.put_nowait({"type": f"lifespan.{event}"})
        return await self.from_app.get()

    async def request(self, kind="http"):
        sent = []

        async def receive():
            return {"type": f"{kind}.request"}

        async def send(message):
            sent.append(message)

        await self.app({"type": kind}, receive, send)
        return sent


async def plain(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    await send({"type": "http.response.start", "status": 200})


def with_lifespan(journal, fails=()):
    async def app(scope, receive, send):
        if scope["type"] != "lifespan":
            return
        for step in ("startup", "shutdown"):
            await receive()
            journal.append(f"inner {step}")
            outcome = "failed" if step in fails else "complete"
            message = {"message": "no such table"} if outcome == "failed" else {}
            await send({"type": f"lifespan.{step}.{outcome}"} | message)

    return app


def test_the_lifespan_starts_and_stops_the_application_around_the_app():
    journal = []

    async def main():
        app = Application()
        app.add(
            "part",
            start=lambda: journal.append("part started"),
            stop=lambda: journal.append("part stopped"),
        )
        server = Server(app.asgi(with_lifespan(journal)))
        started = await server.lifespan("startup")
        assert app.phase is Phase.READY
        stopped = await server.lifespan("shutdown")
        await server.task
        return started["type"], stopped["type"]

    assert virtual_time.run(main()) == (
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    )
    assert journal == [
        *("part started", "inner startup", "inner shutdown", "part stopped")
    ]


def test_an_app_without_a_lifespan_is_served_all_the_same():
    async def main():
        app = Application()
        server = Server(app.asgi(plain))
        assert (await server.lifespan("startup"))["type"].endswith("complete")
        (answer,) = await server.request()
        assert (await server.lifespan("shutdown"))["type"].endswith("complete")
        return answer["status"], app.exit_code

    assert virtual_time.run(main()) == (200, ExitCode.CLEAN)


def test_a_server_that_is_a_component_gives_the_app_its_lifespan_all_the_same():
    journal = []

    async def main():
        app = Application()
        server = Server(app.asgi(with_lifespan(journal)))
        app.add(
            "server",
            start=lambda: server.lifespan("startup"),
            stop=lambda: server.lifespan("shutdown"),
        )
        async with app:
            journal.append("serving")
        return app.exit_code

    assert virtual_time.run(main()) is ExitCode.CLEAN
    assert journal == ["inner startup", "serving", "inner shutdown"]


def test_a_failed_start_fails_the_lifespan_and_stops_what_ran():
    journal = []

    async def main():
        app = Application()
        app.add("part", stop=lambda: journal.append("part stopped"))
        server = Server(app.asgi(with_lifespan(journal, fails=["startup"])))
        return await server.lifespan("startup")

    answer = virtual_time.run(main())
    assert answer["type"] == "lifespan.startup.failed"
    assert "mtaio:asgi lifespan failed to start" in answer["message"]
    assert "no such table" in answer["message"]
    assert journal == ["inner startup", "part stopped"]


def test_a_component_may_have_any_name_beside_the_mounted_app():
    async def main():
        app = Application()
        app.add("asgi lifespan", start=list)
        server = Server(app.asgi(plain))
        return await server.lifespan("startup")

    assert virtual_time.run(main())["type"] == "lifespan.startup.complete"


def test_a_mounted_app_that_fails_to_stop_is_told_and_the_rest_stops(caplog):
    journal = []

    async def main():
        app = Application()
        app.add("part", stop=lambda: journal.append("part stopped"))
        server = Server(app.asgi(with_lifespan(journal, fails=["shutdown"])))
        await server.lifespan("startup")
        await server.lifespan("shutdown")
        return app.exit_code

    assert virtual_time.run(main()) is ExitCode.UNCLEAN
    assert "no such table" in caplog.text
    assert journal == ["inner startup", "inner shutdown", "part stopped"]


def test_a_request_is_counted_and_the_stop_awaits_it():
    async def main():
        app = Application()

        async def slow(scope, receive, send):
            assert app.in_flight == 1
            await asyncio.sleep(3)
            await send({"type": "http.response.start", "status": 200})

        mounted = Server(app.asgi(slow))
        await app.start()
        request = asyncio.create_task(mounted.request())
        await asyncio.sleep(1)
        await app.stop()
        assert request.done()
        return (await request)[0]["status"]

    assert virtual_time.run(main()) == 200


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        ("http", {"type": "http.response.start", "status": 503}),
        ("websocket", {"type": "websocket.close", "code": 1013}),
    ],
)
def test_a_request_is_turned_away_when_none_is_taken(kind, first):
    async def main():
        server = Server(Application().asgi(plain))
        return await server.request(kind)

    answer = virtual_time.run(main())[0]
    assert first.items() <= answer.items()


def test_a_missing_lifespan_is_told_once(caplog):
    async def main():
        server = Server(Application().asgi(plain))
        return [(await server.request())[0]["status"] for _ in range(2)]

    assert virtual_time.run(main()) == [503, 503]
    assert [r.levelname for r in caplog.records] == ["ERROR"]
    assert "no lifespan" in caplog.text


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("taken", [False, True])
def test_sighup_reloads_inside_a_server_that_has_no_use_for_it(taken):
    reloads, heard = [], []

    async def main():
        app = Application()
        app.on_reload(lambda: reloads.append(1))
        server = Server(app.asgi(plain))
        await server.lifespan("startup")
        signal.raise_signal(signal.SIGHUP)
        await asyncio.sleep(1)
        await server.lifespan("shutdown")
        await server.task

    mine = (lambda *_: heard.append(1)) if taken else signal.SIG_DFL
    before = signal.signal(signal.SIGHUP, mine)
    try:
        virtual_time.run(main())
        assert signal.getsignal(signal.SIGHUP) is mine
    finally:
        signal.signal(signal.SIGHUP, before)

    assert (reloads, heard) == (([], [1]) if taken else ([1], []))


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("signals", "heard_after"), [(1, 5), (2, 0)])
def test_a_stop_signal_drains_before_the_server_hears_it(signals, heard_after):
    heard = []

    async def main():
        app = Application(drain_delay=5)
        server = Server(app.asgi(plain))
        await server.lifespan("startup")
        begun = asyncio.get_running_loop().time()
        for _ in range(signals):
            signal.raise_signal(signal.SIGTERM)
            await asyncio.sleep(0)
            assert app.phase is Phase.DRAINING
            (answer,) = await server.request()
            assert answer["status"] == 200
        await asyncio.sleep(60)
        await server.lifespan("shutdown")
        return heard[0] - begun

    def on_signal(number, frame):
        heard.append(asyncio.get_running_loop().time())

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        assert virtual_time.run(main()) == heard_after
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_in_a_fork_a_stop_signal_is_the_servers_alone(monkeypatch):
    heard = []

    async def main():
        app = Application(drain_delay=5)
        server = Server(app.asgi(plain))
        await server.lifespan("startup")
        with monkeypatch.context() as fork:
            fork.setattr(_asgi.os, "getpid", lambda: 0)
            signal.raise_signal(signal.SIGTERM)
            assert heard == [signal.SIGTERM]
        await asyncio.sleep(60)
        assert app.phase is Phase.READY
        await server.lifespan("shutdown")

    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        virtual_time.run(main())
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("drain_delay", [0, 5])
def test_readiness_fails_before_the_server_hears_a_stop_signal(drain_delay):
    journal = []

    class Health:
        probes = None

        def set_ready(self, ready, reason=""):
            journal.append("ready" if ready else reason)

    async def main():
        app = Application(drain_delay=drain_delay, health=Health())
        server = Server(app.asgi(plain))
        await server.lifespan("startup")
        journal.clear()
        signal.raise_signal(signal.SIGTERM)
        assert journal[0] == "a stop was asked for by a signal"  # no turn was needed
        await asyncio.sleep(60)
        assert app.phase is Phase.DRAINING
        await server.lifespan("shutdown")

    before = signal.signal(signal.SIGTERM, lambda *_: journal.append("heard"))
    try:
        virtual_time.run(main())
    finally:
        signal.signal(signal.SIGTERM, before)
    heard = journal.index("heard")
    assert ("the application is draining" in journal[:heard]) == (drain_delay > 0)
