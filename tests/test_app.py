"""Application: limits around requests; start and stop in order, within deadlines."""

import asyncio
import contextlib
import gc
import math
import signal
import threading
from types import SimpleNamespace

import pytest

import virtual_time
from mtaio import _process_end, _signals
from mtaio.app import Application, ErrorHandler, ExitCode, Phase
from mtaio.exceptions import (
    ApplicationError,
    RateLimitError,
    StartupError,
    TimeoutError,
)
from mtaio.health import HealthMonitor
from mtaio.monitoring import ProbeServer
from mtaio.resources import ConcurrencyLimiter, RateLimiter, TimeoutManager


class Part:
    """Writes down its start and stop; may be slow or fail at either."""

    def __init__(self, journal, name, *, start=0.0, stop=0.0, fails=()):
        self.journal, self.name, self.fails = journal, name, fails
        self.seconds = {"start": start, "stop": stop}

    async def start(self):
        await self._do("start")

    async def stop(self):
        await self._do("stop")

    async def _do(self, step):
        await asyncio.sleep(self.seconds[step])
        self.journal.append(f"{step} {self.name}")
        if step in self.fails:
            raise OSError(f"{self.name} can't {step}")


def application(journal, *parts, **options):
    app = Application(**options)
    for part, *depends_on in parts:
        app.add(part.name, part, depends_on=depends_on)
    return app


def now():
    return asyncio.get_running_loop().time()


def test_components_start_after_what_they_depend_on_and_stop_before():
    journal = []

    async def main():
        app = application(
            journal,
            (Part(journal, "server"), "cache", "db"),
            (Part(journal, "cache"), "db"),
            (Part(journal, "db"),),
        )
        async with app:
            assert app.phase is Phase.READY
        assert app.phase is Phase.STOPPED
        assert app.exit_code is ExitCode.CLEAN

    virtual_time.run(main())

    assert journal == [
        *("start db", "start cache", "start server"),
        *("stop server", "stop cache", "stop db"),
    ]


def test_independent_components_start_and_stop_at_the_same_time():
    journal = []

    async def main():
        parts = [(Part(journal, name, start=5, stop=3),) for name in "abc"]
        begun = now()
        app = application(journal, *parts)
        await app.start()
        started = now() - begun
        await app.stop()
        return started, now() - begun

    assert virtual_time.run(main()) == (5, 8)


def test_a_failed_start_stops_what_ran_in_reverse_and_names_the_component():
    journal = []

    async def main():
        app = application(
            journal,
            (Part(journal, "a"),),
            (Part(journal, "b"), "a"),
            (Part(journal, "c", fails=("start",)), "b"),
            (Part(journal, "d"), "c"),
        )
        with pytest.raises(StartupError, match="c failed to start") as caught:
            await app.start()
        assert isinstance(caught.value.__cause__, OSError)
        assert app.phase is Phase.STOPPED
        assert app.exit_code is ExitCode.START_FAILED

    virtual_time.run(main())

    assert journal == ["start a", "start b", "start c", "stop b", "stop a"]


def test_a_start_beyond_its_timeout_fails_and_is_cancelled():
    async def main():
        app = Application()
        app.add("slow", start=lambda: asyncio.sleep(3600), start_timeout=2)
        begun = now()
        with pytest.raises(StartupError, match="slow did not start in 2 s"):
            await app.start()
        return now() - begun

    assert virtual_time.run(main()) == 2


def test_a_component_that_hangs_at_its_stop_does_not_keep_the_others():
    journal = []

    async def main():
        app = application(
            journal, (Part(journal, "a"),), (Part(journal, "b"),), grace_period=30
        )
        app.add("hung", stop=lambda: asyncio.sleep(3600), stop_timeout=4)
        app.add("last", Part(journal, "last"), depends_on=["a"])
        await app.start()
        begun = now()
        await app.stop()
        assert app.exit_code is ExitCode.UNCLEAN
        return now() - begun

    assert virtual_time.run(main()) == 4
    assert journal[-3:] != []
    assert {"stop a", "stop b", "stop last"} <= set(journal)


def test_a_component_that_ignores_cancellation_is_left_behind():
    async def stubborn():
        for _ in range(20):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)

    async def main():
        app = Application(grace_period=10)
        app.add("stubborn", stop=stubborn, stop_timeout=2)
        await app.start()
        begun = now()
        await app.stop()
        elapsed = now() - begun
        await asyncio.sleep(60)
        return elapsed, app.exit_code

    elapsed, code = virtual_time.run(main())
    assert elapsed <= 10
    assert code is ExitCode.UNCLEAN


def test_the_whole_stop_keeps_the_grace_period():
    async def main():
        app = Application(drain_delay=2, grace_period=10)
        for name in "abc":
            app.add(name, stop=lambda: asyncio.sleep(3600), stop_timeout=60)

        async def endless():
            async with app.request():
                await asyncio.sleep(3600)

        await app.start()
        work = asyncio.create_task(endless())
        await asyncio.sleep(0)
        begun = now()
        await app.stop()
        assert work.cancelled()
        return now() - begun

    assert 10 <= virtual_time.run(main()) <= 11


def test_drains_that_hang_keep_the_grace_period_and_leave_time_to_stop():
    journal = []

    async def main():
        app = Application(grace_period=10)
        for name in "abcde":
            app.add(
                name,
                drain=lambda: asyncio.sleep(3600),
                stop=lambda: journal.append("stopped"),
                stop_timeout=60,
            )
        await app.start()
        begun = now()
        await app.stop()
        return now() - begun

    assert virtual_time.run(main()) <= 10
    assert journal == ["stopped"] * 5


def test_a_chain_that_ignores_cancellation_hardly_goes_beyond_the_grace_period():
    async def stubborn():
        for _ in range(100):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(1)

    async def main():
        app, below = Application(grace_period=10), []
        for name in "abcdef":
            app.add(name, stop=stubborn, stop_timeout=60, depends_on=below)
            below = [name]
        await app.start()
        begun = now()
        await app.stop()
        elapsed = now() - begun
        await asyncio.sleep(3600)
        return elapsed

    assert virtual_time.run(main()) <= 11


def test_a_timeout_of_its_own_goes_before_the_default_at_the_limiter_too():
    async def main():
        limiter = RateLimiter(rate=1, burst=1)
        app = Application(
            rate_limiter=limiter, timeout_manager=TimeoutManager(default_timeout=0.1)
        )
        async with app:
            await limiter.acquire()
            with pytest.raises(RateLimitError):
                await app.handle(answer)
            return await app.handle(answer, timeout=30)

    async def answer():
        return 42

    assert asyncio.run(main()) == 42


def test_the_grace_period_counts_from_the_ask_though_a_blocked_loop_hears_it_late(
    monkeypatch,
):
    clock = virtual_time.VirtualClock()
    monkeypatch.setattr(_process_end, "time", SimpleNamespace(monotonic=clock))

    async def main():
        app = Application(drain_delay=10, grace_period=30)
        app.add("hung", stop=lambda: asyncio.sleep(3600), stop_timeout=60)
        running = asyncio.create_task(app.run())
        await asyncio.sleep(1)
        app.request_stop()
        clock.advance(4)  # the loop's own clock stands still meanwhile
        begun = now()
        await running
        return now() - begun

    assert virtual_time.run(main()) == pytest.approx(26, abs=0.1)


def test_a_second_ask_abandons_requests_and_still_stops_components_in_order():
    journal = []

    async def main():
        app = application(journal, (Part(journal, "a"),), (Part(journal, "b"), "a"))

        async def request():
            async with app.request():
                await asyncio.sleep(3600)

        running = asyncio.create_task(app.run())
        await asyncio.sleep(1)
        work = asyncio.create_task(request())
        await asyncio.sleep(1)
        begun = now()
        app.request_stop()
        await asyncio.sleep(2)
        app.request_stop()
        code = await running
        assert work.cancelled()
        return code, now() - begun

    assert virtual_time.run(main()) == (ExitCode.UNCLEAN, 2)
    assert journal == ["start a", "start b", "stop b", "stop a"]


def test_requests_are_served_while_draining_awaited_and_refused_afterwards():
    async def main():
        app = Application(drain_delay=5, grace_period=60)
        app.add("nothing", stop=lambda: None)
        answered = []

        async def request(seconds):
            async with app.request():
                await asyncio.sleep(seconds)
                answered.append(seconds)

        await app.start()
        first = asyncio.create_task(request(20))
        await asyncio.sleep(1)
        stop = asyncio.create_task(app.stop())
        await asyncio.sleep(4)
        assert app.phase is Phase.DRAINING
        await request(0.5)
        await asyncio.sleep(2)
        assert app.phase is Phase.STOPPING
        with pytest.raises(ApplicationError, match="stopping"):
            await request(1)
        assert app.in_flight == 1
        await stop
        await first
        assert app.exit_code is ExitCode.CLEAN
        return answered

    assert virtual_time.run(main()) == [0.5, 20]


def test_what_belongs_to_an_accepted_request_is_let_in_while_stopping():
    async def main():
        app = Application()

        async def request():
            async with app.request():
                await asyncio.sleep(5)
                assert app.phase is Phase.STOPPING
                one = await app.handle(lambda: asyncio.sleep(1, "own"))
                child = asyncio.create_task(app.handle(lambda: asyncio.sleep(1, "c")))
                assert app.in_flight == 1
                return one, await child

        await app.start()
        work = asyncio.create_task(request())
        await asyncio.sleep(1)
        await app.stop()
        assert app.requests == 1
        return work.result(), app.exit_code

    assert virtual_time.run(main()) == (("own", "c"), ExitCode.CLEAN)


def test_what_belongs_to_it_is_let_in_through_another_application_too():
    async def main():
        app, other = Application(), Application()

        async def request():
            async with app.request(), other.request():
                await asyncio.sleep(5)
                assert app.phase is Phase.STOPPING
                async with app.request():
                    assert (app.in_flight, other.in_flight) == (1, 1)

        async with other:
            await app.start()
            work = asyncio.create_task(request())
            await asyncio.sleep(1)
            await app.stop()
            await work
        assert (app.requests, other.requests) == (1, 1)

    virtual_time.run(main())


@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_a_request_keeps_none_of_those_that_led_to_it(overlap):
    async def main():
        last = asyncio.get_running_loop().create_future()
        tasks = set()

        async def request(left):
            async with app.request():
                await asyncio.sleep(0.1)
                if left:
                    task = asyncio.create_task(request(left - 1))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    await asyncio.sleep(overlap)
                else:
                    kind = type(app.request())
                    gc.collect()
                    last.set_result([o for o in gc.get_objects() if type(o) is kind])

        async with Application() as app:
            await request(20)
            return len(await last)

    assert virtual_time.run(main()) < 10


def test_an_abandoned_request_may_clean_up_before_components_stop():
    journal = []

    async def main():
        app = Application(grace_period=10)
        app.add("db", stop=lambda: journal.append("db stopped"))

        async def request():
            async with app.request():
                try:
                    await asyncio.sleep(3600)
                finally:
                    await asyncio.sleep(0.1)
                    journal.append("rolled back")

        await app.start()
        work = asyncio.create_task(request())
        await asyncio.sleep(0)
        await app.stop()
        assert work.cancelled()

    virtual_time.run(main())

    assert journal == ["rolled back", "db stopped"]


def test_a_stop_during_the_start_waits_for_it():
    journal = []

    async def main():
        app = application(journal, (Part(journal, "a", start=3),))
        start = asyncio.create_task(app.start())
        await asyncio.sleep(1)
        await app.stop()
        await start
        return app.phase, app.exit_code

    assert virtual_time.run(main()) == (Phase.STOPPED, ExitCode.CLEAN)
    assert journal == ["start a", "stop a"]


def test_drain_is_called_before_requests_are_awaited():
    async def main():
        app = Application()
        journal = []
        app.add(
            "server",
            drain=lambda: journal.append(f"drain at {app.in_flight}"),
            stop=lambda: journal.append(f"stop at {app.in_flight}"),
        )

        async def request():
            async with app.request():
                await asyncio.sleep(1)

        await app.start()
        work = asyncio.create_task(request())
        await asyncio.sleep(0)
        await app.stop()
        await work
        return journal

    assert virtual_time.run(main()) == ["drain at 1", "stop at 0"]


def test_run_serves_until_asked_and_a_second_ask_skips_the_wait():
    async def main():
        app = Application(drain_delay=20, grace_period=30)
        running = asyncio.create_task(app.run())
        await asyncio.sleep(100)
        begun = now()
        app.request_stop()
        await asyncio.sleep(1)
        app.request_stop()
        code = await running
        return code, now() - begun

    code, seconds = virtual_time.run(main())
    assert code is ExitCode.CLEAN
    assert seconds == 1


@pytest.mark.parametrize("started", [False, True])
def test_asked_to_stop_before_it_runs_it_ends_at_once(started):
    journal = []

    async def main():
        app = application(journal, (Part(journal, "a"),))
        if started:
            await app.start()
        app.request_stop()
        code = await app.run()
        return code, app.phase

    assert virtual_time.run(main()) == (ExitCode.CLEAN, Phase.STOPPED)
    assert journal == (["start a", "stop a"] if started else [])


@pytest.mark.parametrize("seems_open", [False, True])
def test_an_ask_after_the_loop_has_closed_is_for_nobody(monkeypatch, seems_open):
    app = Application()
    loop = asyncio.new_event_loop()
    asked = loop.create_task(app.run())
    loop.call_soon(app.request_stop)
    loop.run_until_complete(asked)
    loop.close()
    # As seen by a thread that looks just before it closes.
    monkeypatch.setattr(loop, "is_closed", lambda: not seems_open)

    app.request_stop()
    app.request_reload()


def test_run_returns_once_it_was_stopped_by_other_means():
    async def main():
        app = Application()
        running = asyncio.create_task(app.run())
        await asyncio.sleep(1)
        await app.stop()
        return await asyncio.wait_for(running, 10)

    assert virtual_time.run(main()) is ExitCode.CLEAN


def test_after_a_failed_start_it_does_not_run():
    async def main():
        app = application([], (Part([], "a", fails=("start",)),))
        with pytest.raises(StartupError):
            await app.run()
        with pytest.raises(ApplicationError, match="failed to start"):
            await asyncio.wait_for(app.run(), 10)

    virtual_time.run(main())


def test_a_start_that_fails_ends_a_run_that_awaits_it():
    async def main():
        app = application([], (Part([], "a", start=1, fails=("start",)),))
        starting = asyncio.create_task(app.start())
        await asyncio.sleep(0.5)
        code = await asyncio.wait_for(app.run(), 10)
        await asyncio.wait({starting})
        assert isinstance(starting.exception(), StartupError)
        return code

    assert virtual_time.run(main()) is ExitCode.START_FAILED


def test_a_drain_is_as_long_as_asked_for_however_long_the_grace_period():
    async def main():
        app = Application(drain_delay=5, grace_period=1e300)
        await app.start()
        begun = asyncio.get_running_loop().time()
        await app.stop()
        return asyncio.get_running_loop().time() - begun

    assert virtual_time.run(main()) == 5


def test_in_another_thread_it_runs_without_signals_until_it_is_asked_to_stop():
    app, codes = Application(), []
    started = threading.Event()
    app.add("part", start=started.set)
    thread = threading.Thread(target=lambda: codes.append(asyncio.run(app.run())))
    before = signal.getsignal(signal.SIGTERM)
    thread.start()

    assert started.wait(30)
    assert signal.getsignal(signal.SIGTERM) is before
    app.request_stop()
    thread.join(30)

    assert codes == [ExitCode.CLEAN]


def test_a_server_that_takes_the_signals_at_its_start_does_not_keep_them():
    heard = []
    before = signal.getsignal(signal.SIGTERM)

    def start():
        signal.signal(signal.SIGTERM, lambda *_: heard.append("server"))

    async def main():
        app = Application(drain_delay=5)
        app.add("server", start=start, stop=lambda: heard.append("stopped"))
        running = asyncio.create_task(app.run())
        await asyncio.sleep(1)
        signal.raise_signal(signal.SIGTERM)
        begun = now()
        return await asyncio.wait_for(running, 60), now() - begun

    try:
        assert virtual_time.run(main()) == (ExitCode.CLEAN, pytest.approx(5, abs=0.1))
    finally:
        left = signal.signal(signal.SIGTERM, before)
    assert heard == ["stopped"]
    assert left is before


def test_a_handler_that_python_did_not_install_gives_way_to_the_default(monkeypatch):
    def foreign(number, handler):
        real(number, handler)

    real = signal.signal
    before = signal.getsignal(signal.SIGTERM)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(signal, "signal", foreign)
            with _signals.handled({signal.SIGTERM: lambda: None}):
                patch.undo()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_asked_to_stop_during_the_start_it_stops_what_was_started():
    journal = []

    async def main():
        app = application(
            journal, (Part(journal, "a"),), (Part(journal, "b", start=3600), "a")
        )
        running = asyncio.create_task(app.run())
        await asyncio.sleep(5)
        app.request_stop()
        return await running

    assert virtual_time.run(main()) is ExitCode.CLEAN
    assert journal == ["start a", "stop a"]


@pytest.mark.parametrize("turns", range(25))
def test_a_start_cancelled_at_any_instant_stops_all_that_started(turns):
    journal = []

    async def main():
        app = application(
            journal,
            (Part(journal, "a"),),
            (Part(journal, "b"), "a"),
            (Part(journal, "c", start=1), "b"),
        )
        start = asyncio.create_task(app.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        start.cancel()
        await asyncio.wait({start})
        assert app.phase in (Phase.NEW, Phase.STOPPED)

    virtual_time.run(main())

    started = [line.split()[1] for line in journal if line.startswith("start")]
    stopped = [line.split()[1] for line in journal if line.startswith("stop")]
    assert stopped == started[::-1]


@contextlib.asynccontextmanager
async def crashing(after):
    async def crash():
        await asyncio.sleep(after)
        raise OSError("gone")

    async with asyncio.TaskGroup() as group:
        group.create_task(crash())
        yield


def test_a_component_that_ends_by_itself_stops_the_application():
    async def main():
        app = Application()
        app.add("crashing", crashing(3))
        code = await app.run()
        return code, app.error_handler.counts()

    code, counts = virtual_time.run(main())
    assert code is ExitCode.CRASHED
    assert counts == {"ExceptionGroup": 1}


def test_components_that_end_amid_a_stop_cost_no_request_its_answer():
    async def main():
        app = Application(grace_period=60)
        app.add("first", crashing(3))
        app.add("second", crashing(4))

        async def request():
            async with app.request():
                await asyncio.sleep(20)
                return "answered"

        running = asyncio.create_task(app.run())
        await asyncio.sleep(1)
        answer = await request()
        return answer, await running

    assert virtual_time.run(main()) == ("answered", ExitCode.CRASHED)


def test_a_component_is_entered_and_left_by_one_task():
    tasks = []

    @contextlib.asynccontextmanager
    async def scoped():
        tasks.append(asyncio.current_task())
        async with asyncio.timeout(3600):
            yield
        tasks.append(asyncio.current_task())

    async def main():
        app = Application()
        app.add("scoped", scoped())
        async with app:
            pass

    virtual_time.run(main())

    assert tasks[0] is tasks[1]


def test_an_application_lives_once():
    async def main():
        app = Application()
        async with app:
            with pytest.raises(ApplicationError, match="is ready"):
                await app.start()
            with pytest.raises(ApplicationError, match="was started"):
                app.add("late", stop=lambda: None)
        with pytest.raises(ApplicationError, match="is stopped"):
            await app.start()
        await app.stop()

    virtual_time.run(main())


def test_a_stop_goes_on_when_its_caller_is_cancelled():
    journal = []

    async def main():
        app = application(journal, (Part(journal, "a", stop=5),))
        await app.start()
        stop = asyncio.create_task(app.stop())
        await asyncio.sleep(1)
        stop.cancel()
        await asyncio.gather(app.stop(), app.stop())
        assert stop.cancelled()

    virtual_time.run(main())

    assert journal == ["start a", "stop a"]


async def test_a_circle_or_an_unknown_dependency_is_refused():
    app = Application()
    app.add("a", stop=lambda: None, depends_on=["b"])
    app.add("b", stop=lambda: None, depends_on=["a"])
    with pytest.raises(ValueError, match="depends_on must not form a circle"):
        await app.start()

    app = Application()
    app.add("a", stop=lambda: None, depends_on=["zebra"])
    with pytest.raises(ValueError, match="depends_on of a must name components"):
        await app.start()


async def test_a_request_before_the_start_is_refused():
    with pytest.raises(ApplicationError, match="is new"):
        await Application().handle(lambda: asyncio.sleep(0))


async def test_errors_of_the_work_are_told_and_raised():
    async with Application() as app:
        with pytest.raises(ZeroDivisionError):
            await app.handle(_divide)

        assert app.error_handler.counts() == {"ZeroDivisionError": 1}
        assert app.in_flight == 0


async def test_an_error_handler_that_fails_does_not_hide_the_error_of_the_work(caplog):
    class Failing:
        async def handle_error(self, error, context=None):
            raise OSError("full")

    async with Application(error_handler=Failing()) as app:
        with pytest.raises(ZeroDivisionError):
            await app.handle(_divide)

    assert "the error handler failed" in caplog.text


def test_a_drain_that_is_cancelled_by_its_own_code_does_not_end_the_stop():
    journal = []

    async def drain():
        raise asyncio.CancelledError

    async def main():
        app = Application()
        app.add("a", drain=drain, stop=lambda: journal.append("a stopped"))
        async with app:
            pass
        return app.exit_code

    assert virtual_time.run(main()) is ExitCode.UNCLEAN
    assert journal == ["a stopped"]


def test_the_log_says_where_the_application_is_in_its_life(caplog):
    caplog.set_level("INFO", logger="mtaio.app")

    async def main():
        async with Application(drain_delay=1):
            pass

    virtual_time.run(main())

    assert [r.getMessage() for r in caplog.records if r.name == "mtaio.app"] == [
        "the application is starting",
        "the application is ready",
        "the application is draining",
        "the application is stopping",
        "the application is stopped, CLEAN",
    ]


@pytest.mark.parametrize("manager", [None, TimeoutManager(5)])
def test_a_timeout_is_ours_with_a_manager_and_without(manager):
    async def main():
        async with Application(timeout_manager=manager) as app:
            with pytest.raises(TimeoutError, match="2 s"):
                await app.handle(lambda: asyncio.sleep(3), timeout=2)
            for wrong in (-1, "1"):
                with pytest.raises((ValueError, TypeError), match="timeout must be"):
                    await app.handle(lambda: asyncio.sleep(3), timeout=wrong)
            return app.error_handler.counts()

    assert virtual_time.run(main())["TimeoutError"] == 1


async def test_work_that_was_begun_already_is_refused():
    async with Application() as app:
        work = asyncio.sleep(0)
        with pytest.raises(TypeError, match="work must be an async function"):
            await app.handle(work)
        await work


BAD_FIGURES = [
    (math.nan, ValueError),
    (math.inf, ValueError),
    (-1, ValueError),
    (True, TypeError),
    ("1", TypeError),
    (None, TypeError),
]


@pytest.mark.parametrize("name", ["drain_delay", "grace_period"])
@pytest.mark.parametrize(("value", "error"), BAD_FIGURES)
def test_a_bad_figure_of_the_application_is_refused(name, value, error):
    with pytest.raises(error, match=f"{name} must be a finite number"):
        Application(**{name: value})


@pytest.mark.parametrize("name", ["start_timeout", "stop_timeout"])
@pytest.mark.parametrize(("value", "error"), [*BAD_FIGURES, (0, ValueError)])
def test_a_bad_figure_of_a_component_is_refused(name, value, error):
    with pytest.raises(error, match=f"{name} must be a finite number > 0"):
        Application().add("a", stop=lambda: None, **{name: value})


def test_a_drain_as_long_as_the_grace_period_is_refused():
    with pytest.raises(ValueError, match="drain_delay must be below grace_period"):
        Application(drain_delay=30, grace_period=30)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "", "stop": print}, ValueError, "name must be non-empty text"),
        ({"name": 5, "stop": print}, TypeError, "name must be non-empty text"),
        ({"component": object()}, TypeError, "component must be an async context"),
        ({"component": ErrorHandler(), "stop": print}, TypeError, "not both"),
        ({"stop": print, "depends_on": "db"}, TypeError, "depends_on must be a list"),
        ({"stop": print, "depends_on": [""]}, ValueError, "depends_on must be non-emp"),
    ],
)
def test_a_component_that_can_not_be_run_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Application().add(**{"name": "a"} | arguments)


def test_a_name_can_be_had_once():
    app = Application()
    app.add("a", stop=lambda: None)
    with pytest.raises(ValueError, match="'a' is taken"):
        app.add("a", stop=lambda: None)


async def _divide():
    return 1 / 0


async def test_the_probes_tell_of_requests_errors_limits_and_checks():
    # Thresholds that a busy machine doesn't reach.
    health = HealthMonitor(
        probes=ProbeServer(), cpu_threshold=1e9, memory_threshold=1e9
    )
    health.check("db", interval=None)(lambda: False)
    limiter = RateLimiter(rate=0.001, burst=2)
    places = ConcurrencyLimiter(limit=5)
    app = Application(rate_limiter=limiter, concurrency_limiter=places, health=health)
    async with health, app:
        with pytest.raises(ZeroDivisionError):
            await app.handle(_divide)
        with pytest.raises(RateLimitError):
            await app.handle(_divide, tokens=2, timeout=1)
        async with app.request():
            # Published at the start too, but then with nothing to tell yet.
            await _until(lambda: figures(health).get("mtaio_app_requests") == 3)
            await _until(lambda: "mtaio_memory_limit_bytes" in figures(health))
            told = figures(health)

    assert told["mtaio_app_requests_in_flight"] == 1
    assert told["mtaio_app_errors", "ZeroDivisionError"] == 1
    assert told["mtaio_app_errors", "RateLimitError"] == 1
    assert told["mtaio_app_rate_limiter_granted"] == 1
    assert told["mtaio_app_rate_limiter_refused"] == 1
    assert told["mtaio_app_concurrency_limiter_in_use"] == 0
    assert told["mtaio_app_concurrency_limiter_limit"] == 5
    assert told["mtaio_health_check_status", "db"] == -1
    assert told["mtaio_health_status"] == -1
    assert told["mtaio_health_ready"] == 0
    assert told["mtaio_memory_limit_bytes"] > 0
    assert "mtaio_memory_limit_bytes" not in figures(health)  # stopped


def figures(health):
    told = {}
    for family in health.probes.families():
        for labels, value in family.series:
            key = (family.name, *labels.values()) if labels else family.name
            told[key] = value
    return told


async def _until(condition):
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - published, not told
            await asyncio.sleep(0.05)
