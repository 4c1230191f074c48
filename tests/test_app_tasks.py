"""Background tasks that an application owns; reload; systemd's notifications."""

import asyncio
import itertools
import logging
import math
import os
import socket
import sys

import pytest

import virtual_time
from mtaio._notify import Notifier
from mtaio.app import Application, ExitCode
from mtaio.exceptions import ApplicationError
from mtaio.health import HealthMonitor
from mtaio.logging import AsyncFileHandler
from mtaio.monitoring import ProbeServer


class Health:
    """Writes down what an application tells it."""

    live = True
    probes = None

    def __init__(self):
        self.told = []
        self.faults = {}

    def set_ready(self, ready, reason=""):
        self.told.append((ready, reason))

    def set_fault(self, name, reason, *, critical):
        self.faults[name] = (reason, critical)

    def clear_fault(self, name):
        self.faults.pop(name, None)


def now():
    return asyncio.get_running_loop().time()


def test_what_fails_after_the_components_started_stops_them_again():
    journal = []

    def refuse(loop, work, **options):
        if work.__qualname__ == "BackgroundTasks._run":
            work.close()
            raise RuntimeError("no more tasks")
        return asyncio.Task(work, loop=loop, **options)

    async def main():
        app = Application()
        app.add("part", stop=lambda: journal.append("part stopped"))
        app.spawn("never", asyncio.Event().wait)
        asyncio.get_running_loop().set_task_factory(refuse)
        with pytest.raises(RuntimeError, match="no more tasks"):
            await app.run()
        with pytest.raises(ApplicationError, match="failed to start"):
            await app.run()
        await app.stop()
        journal.append(app.phase)

    virtual_time.run(main())

    assert journal == ["part stopped", "stopped"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="eager tasks came with 3.12")
def test_an_eager_task_spawns_another_at_once():
    journal = []

    async def second():
        journal.append("second")

    async def main():
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        app = Application()

        async def first():
            app.spawn("second", second)
            journal.append("first")

        app.spawn("first", first)
        app.spawn("third", asyncio.Event().wait)
        async with app:
            journal.append("ready")

    virtual_time.run(main())

    assert journal == ["second", "first", "ready"]


def test_a_task_runs_with_the_application_and_is_cancelled_at_its_stop():
    journal = []

    async def work():
        journal.append("begun")
        try:
            await asyncio.sleep(3600)
        finally:
            journal.append("ended")

    async def main():
        app = Application()
        app.add("part", stop=lambda: journal.append("part stopped"))
        app.spawn("work", work)
        async with app:
            await asyncio.sleep(1)
        return app.exit_code

    assert virtual_time.run(main()) is ExitCode.CLEAN
    assert journal == ["begun", "ended", "part stopped"]


def test_a_task_can_be_spawned_after_the_start():
    async def main():
        begun = asyncio.Event()

        async def work():
            begun.set()

        async with Application() as app:
            app.spawn("late", work)
            await asyncio.wait_for(begun.wait(), 5)

    virtual_time.run(main())


def test_no_task_is_spawned_that_nobody_would_cancel():
    refused = []

    async def main():
        app = Application()

        def spawn():
            try:
                app.spawn(f"late {len(refused)}", asyncio.Event().wait)
            except ApplicationError as error:
                refused.append(str(error))

        app.add("part", stop=spawn)
        async with app:
            pass
        spawn()
        return asyncio.all_tasks() - {asyncio.current_task()}

    assert virtual_time.run(main()) == set()
    assert refused == [
        f"late {n} spawned after all tasks were cancelled" for n in range(2)
    ]


@pytest.mark.parametrize("critical", [True, False])
def test_a_crashed_task_is_told_and_spoils_the_health(critical):
    async def main():
        health = Health()
        app = Application(health=health)
        app.spawn("work", crash, critical=critical)
        async with app:
            await asyncio.sleep(1)
            assert health.faults == {"task work": ("OSError: gone", critical)}
        assert app.error_handler.counts() == {"OSError": 1}
        return app.exit_code

    code = virtual_time.run(main())
    assert code is (ExitCode.CRASHED if critical else ExitCode.CLEAN)


def test_restarts_back_off_and_a_long_run_makes_well_again():
    begins = []

    async def work():
        begins.append(now())
        if len(begins) == 5:
            await asyncio.sleep(3600)
        raise OSError("gone")

    async def main():
        health = Health()
        app = Application(health=health)
        app.spawn("work", work, restart=True, backoff=1, max_backoff=4)
        async with app:
            await asyncio.sleep(12)
            assert "task work" in health.faults
            await asyncio.sleep(4)
            assert health.faults == {}
        return app.exit_code

    assert virtual_time.run(main()) is ExitCode.CLEAN
    assert [later - begins[0] for later in begins] == [0, 1, 3, 7, 11]


def test_a_task_that_refuses_to_end_is_told_and_left_behind():
    async def stubborn():
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if now() > begun + 100:
                    raise

    begun = 1000.0

    async def main():
        app = Application(grace_period=10)
        app.spawn("stubborn", stubborn)
        await app.start()
        await asyncio.sleep(0)
        stopped = now()
        await app.stop()
        seconds = now() - stopped
        await asyncio.sleep(200)
        return app.exit_code, seconds

    code, seconds = virtual_time.run(main())
    assert code is ExitCode.UNCLEAN
    assert seconds <= 10


def test_a_task_that_fails_at_its_clean_up_is_not_restarted_amid_the_stop():
    begins = []

    async def work():
        begins.append(now())
        try:
            await asyncio.sleep(3600)
        finally:
            raise OSError("gone")

    async def main():
        app = Application(grace_period=10)
        app.spawn("work", work, restart=True)
        await app.start()
        await asyncio.sleep(1)
        stopped = now()
        await app.stop()
        return now() - stopped, app.exit_code, app.error_handler.counts()

    seconds, code, counts = virtual_time.run(main())
    assert (seconds, code) == (0, ExitCode.CLEAN)
    assert counts == {"OSError": 1}
    assert len(begins) == 1


def test_readiness_follows_the_phases():
    async def main():
        health = Health()
        async with Application(health=health):
            pass
        return health.told

    assert virtual_time.run(main()) == [
        (False, "the application is starting"),
        (True, ""),
        (False, "the application is draining"),
        (False, "the application is stopping"),
        (False, "the application is stopped"),
    ]


def test_a_reload_calls_every_callback_and_tells_of_one_that_raises():
    journal = []

    async def main():
        app = Application()

        @app.on_reload
        async def first():
            raise OSError("unreadable")

        @app.on_reload
        def second():
            journal.append("second")

        async with app:
            await app.reload()
        return app.error_handler.counts()

    assert virtual_time.run(main()) == {"OSError": 1}
    assert journal == ["second"]


async def test_a_stop_leaves_nothing_of_the_log_to_write(tmp_path):
    # It writes within the hour, unless somebody waits for it.
    handler = AsyncFileHandler(tmp_path / "app.log", gather=3600.0)
    logger = logging.getLogger("mtaio.app")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        async with Application():
            pass

        assert (tmp_path / "app.log").read_text().endswith("is stopped, CLEAN\n")
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        await handler.aclose()


async def test_a_log_that_could_not_be_opened_harms_no_reload_and_no_stop(tmp_path):
    with pytest.raises(OSError, match="No such file") as kept:
        AsyncFileHandler(tmp_path / "missing" / "app.log")

    async with Application() as app:
        await app.reload()

    assert kept.tb is not None  # `logging` still has the handler
    assert app.error_handler.counts() == {}


async def test_a_reload_reopens_the_logs(tmp_path):
    reopened = []

    class Log(AsyncFileHandler):
        # Counted, for at the next record it would see by itself.
        def reopen(self):
            reopened.append(self)
            super().reopen()

    handler = Log(tmp_path / "app.log")
    logger = logging.getLogger("mtaio.tests.reload")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        logger.info("before")
        await handler.flush()
        (tmp_path / "app.log").rename(tmp_path / "moved.log")

        async with Application() as app:
            await app.reload()
        logger.info("after")
    finally:
        logger.removeHandler(handler)
        await handler.aclose()

    assert reopened == [handler]
    assert (tmp_path / "moved.log").read_text() == "before\n"
    assert (tmp_path / "app.log").read_text() == "after\n"


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    """The socket that systemd listens on, and what it has heard."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)

        def heard():
            messages = []
            while True:
                try:
                    messages.append(listener.recv(4096).decode())
                except BlockingIOError:
                    return messages

        yield heard


unix = pytest.mark.skipif(sys.platform == "win32", reason="systemd is on Linux")


@unix
def test_systemd_is_told_of_ready_reload_and_stop(systemd):
    async def main():
        async with Application() as app:
            await app.reload()

    virtual_time.run(main())

    ready, reloading, again, stopping = systemd()
    assert (ready, again, stopping) == ("READY=1", "READY=1", "STOPPING=1")
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")


def test_a_task_may_have_the_name_of_one_of_the_applications_own():
    async def main():
        health = HealthMonitor(probes=ProbeServer())
        app = Application(health=health)
        app.spawn("metrics", asyncio.Event().wait)
        async with app:
            pass
        return app.exit_code

    assert virtual_time.run(main()) is ExitCode.CLEAN


@unix
def test_a_watchdog_that_is_for_another_process_is_not_fed():
    told = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "2000000"}

    assert Notifier(told | {"WATCHDOG_PID": str(os.getpid())}).watchdog_seconds == 2
    assert Notifier(told | {"WATCHDOG_PID": "1"}).watchdog_seconds is None


def test_a_task_that_ran_well_begins_its_back_off_anew():
    begun = []

    async def work():
        begun.append(now())
        await asyncio.sleep(10 if len(begun) == 4 else 0)
        raise OSError

    async def main():
        app = Application()
        app.spawn("work", work, restart=True, backoff=1, max_backoff=8)
        async with app:
            await asyncio.sleep(19)
        return [after - before for before, after in itertools.pairwise(begun)]

    assert virtual_time.run(main()) == [1, 2, 4, 11]


@unix
def test_an_abstract_socket_is_reached(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("abstract sockets are Linux's")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0mtaio-test-notify")
        monkeypatch.setenv("NOTIFY_SOCKET", "@mtaio-test-notify")

        async def main():
            async with Application():
                pass

        virtual_time.run(main())

        assert listener.recv(100) == b"READY=1"


@unix
@pytest.mark.parametrize(("live", "pings"), [(True, 6), (False, 0)])
def test_the_watchdog_is_fed_while_the_service_is_live(
    systemd, monkeypatch, live, pings
):
    monkeypatch.setenv("WATCHDOG_USEC", "2000000")
    health = Health()
    health.live = live

    async def main():
        async with Application(health=health):
            await asyncio.sleep(5.5)

    virtual_time.run(main())

    assert systemd().count("WATCHDOG=1") == pings


@unix
def test_a_socket_that_is_gone_is_told_and_harms_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))

    async def main():
        async with Application() as app:
            pass
        return app.error_handler.counts(), app.exit_code

    counts, code = virtual_time.run(main())
    assert counts == {"FileNotFoundError": 2}
    assert code is ExitCode.CLEAN


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": ""}, ValueError, "name must be non-empty text"),
        ({"work": None}, TypeError, "work must be an async function"),
        ({"backoff": 0}, ValueError, "backoff must be a finite number > 0"),
        ({"backoff": math.nan}, ValueError, "backoff must be a finite number > 0"),
        ({"backoff": True}, TypeError, "backoff must be a finite number > 0"),
        ({"max_backoff": 0.5}, ValueError, "max_backoff must be at least backoff"),
        ({"max_backoff": math.inf}, ValueError, "max_backoff must be a finite"),
    ],
)
def test_a_bad_task_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        Application().spawn(**{"name": "a", "work": crash} | options)


def test_a_task_needs_a_name_of_its_own():
    app = Application()
    app.spawn("a", crash)
    with pytest.raises(ValueError, match="'a' is taken"):
        app.spawn("a", crash)


def test_a_reload_callback_must_be_callable():
    with pytest.raises(TypeError, match="callback must be a function"):
        Application().on_reload("reload")


async def test_requests_know_why_they_are_refused():
    app = Application()
    assert "is new" in app.refusal()
    async with app:
        assert app.refusal() is None
    with pytest.raises(ApplicationError, match="is stopped"):
        async with app.request():
            pass


async def crash():
    raise OSError("gone")


def test_a_task_cancelled_by_its_own_code_has_crashed():
    async def main():
        health = Health()
        app = Application(health=health)

        async def work():
            other = asyncio.ensure_future(asyncio.sleep(60))
            other.cancel()
            await other

        app.spawn("work", work)
        async with app:
            await asyncio.sleep(1)
            assert "cancelled by its own code" in health.faults["task work"][0]
        return app.exit_code, app.error_handler.counts()

    assert virtual_time.run(main()) == (ExitCode.CRASHED, {"ApplicationError": 1})


class Odd(Exception):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize("error", [OSError("bad name \udcff"), Odd(), OSError()])
def test_a_crash_is_told_whatever_its_text(error):
    async def work():
        raise error

    async def main():
        health = HealthMonitor()
        app = Application(health=health)
        app.spawn("work", work, restart=True, critical=False)
        async with app:
            await asyncio.sleep(0.5)
            first = health.statuses()
            await asyncio.sleep(5)
        return first, app.error_handler.counts()

    first, counts = virtual_time.run(main())
    assert first == {"task work": "unhealthy"}
    assert counts == {type(error).__name__: 3}
