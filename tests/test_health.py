"""HealthMonitor: checks, alerts, readiness and the guide's figures as one state."""

import asyncio
import itertools
import math
import threading
import time
from types import SimpleNamespace

import pytest

import virtual_time
from mtaio.events import EventEmitter
from mtaio.exceptions import HealthError
from mtaio.health import HealthMonitor, Kind, Result, Status
from mtaio.monitoring import ProbeServer, ResourceMonitor


class Figures:
    """A resource monitor whose figures a test sets."""

    source = ResourceMonitor().source

    def __init__(self, cpu=10.0, memory=20.0):
        self.cpu, self.memory = cpu, memory
        self.thresholds = {}
        self.running = False

    def set_threshold(self, metric, value, *, clear):
        assert clear < value
        self.thresholds[metric] = value

    def on_threshold_exceeded(self, callback):
        self.exceeded = callback
        return callback

    def on_threshold_cleared(self, callback):
        self.cleared = callback
        return callback

    async def start(self):
        self.running = True

    async def stop(self):
        self.running = False

    async def get_current_stats(self):
        return SimpleNamespace(
            uptime=5.0,
            cpu=SimpleNamespace(usage_percent=self.cpu),
            memory=SimpleNamespace(percent=self.memory),
        )


class Probes:
    """Keeps what is published."""

    def __init__(self):
        self.told = []
        self.sources = []

    def publish(self, **state):
        self.told.append(state)

    def add_source(self, source):
        self.sources.append(source)

    def remove_source(self, source):
        self.sources.remove(source)


class Answers:
    """A check that gives one answer after the other, then the last for ever."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.runs = 0

    async def __call__(self):
        self.runs += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def service(**options):
    """A health monitor over set figures, on the loop's own clock."""
    clock = asyncio.get_running_loop().time
    return HealthMonitor(Figures(), EventEmitter(), clock=clock, **options)


def heard(health, name):
    events = []
    health.emitter.on(name)(lambda event: events.append(event.data))
    return events


def test_the_guides_figures_are_given():
    async def main():
        async with service() as health:
            assert health.monitor.thresholds == {
                "cpu_usage": 80.0,
                "memory_usage": 90.0,
            }
            return await health.get_health_status()

    status = virtual_time.run(main())

    assert status["status"] == "healthy"
    assert (status["cpu_usage"], status["memory_usage"]) == (10.0, 20.0)
    assert status["uptime"] == 5.0
    assert status["live"] is status["ready"] is status["started"] is True


@pytest.mark.parametrize(
    ("cpu", "memory", "status"),
    [
        (79.9, 89.9, "healthy"),
        (80.0, 20.0, "degraded"),
        (10.0, 90.0, "degraded"),
        (None, None, "healthy"),
    ],
)
def test_figures_beyond_their_thresholds_degrade(cpu, memory, status):
    async def main():
        async with service() as health:
            health.monitor.cpu, health.monitor.memory = cpu, memory
            return (await health.get_health_status())["status"]

    assert virtual_time.run(main()) == status


def test_an_alert_goes_out_at_the_threshold_and_the_status_follows():
    async def main():
        async with service() as health:
            alerts, changes = heard(health, "health_alert"), heard(health, "health_*")
            await health.monitor.exceeded("cpu_usage", 93.0, 80.0)
            await asyncio.sleep(1)
            assert (await health.get_health_status())["status"] == "degraded"
            await health.monitor.cleared("cpu_usage", 40.0, 80.0)
            await asyncio.sleep(1)
            assert (await health.get_health_status())["status"] == "healthy"
            return alerts, [c["status"] for c in changes if "status" in c]

    alerts, changes = virtual_time.run(main())
    assert alerts == [{"metric": "cpu_usage", "value": 93.0, "threshold": 80.0}]
    assert changes[-2:] == ["degraded", "healthy"]


def test_checks_run_on_their_interval_give_or_take_a_tenth():
    begun = []

    async def main():
        async with service() as health:

            @health.check("db", interval=10)
            async def db():
                begun.append(asyncio.get_running_loop().time())

            await asyncio.sleep(1000)

    virtual_time.run(main())

    waits = [later - before for before, later in itertools.pairwise(begun)]
    assert len(waits) >= 1000 / 11 - 1
    assert 9 <= min(waits) < 9.9
    assert 10.1 < max(waits) <= 11.001


def test_a_single_failure_changes_nothing_and_a_lasting_one_does():
    async def main():
        async with service() as health:
            health.check("db", interval=10)(
                Answers(True, OSError("odd"), True, OSError("down"))
            )
            await asyncio.sleep(25)
            assert health.ready
            await asyncio.sleep(25)
            assert not health.ready
            status = await health.get_health_status()
            assert status["status"] == "unhealthy"
            assert status["reason"] == "db: OSError: down"
            assert status["checks"]["db"]["causes"] == ["db"]
            return health.live

    assert virtual_time.run(main()) is True


def test_not_ready_before_the_first_result_of_every_critical_check():
    async def main():
        async with service() as health:
            health.check("slow", timeout=5)(lambda_sleep(3))
            assert not health.ready
            await asyncio.sleep(4)
            return health.ready

    assert virtual_time.run(main()) is True


def test_a_check_that_is_not_critical_only_degrades():
    async def main():
        async with service() as health:
            health.check("mail", critical=False)(Answers(False))
            await asyncio.sleep(60)
            return health.ready, (await health.get_health_status())["status"]

    assert virtual_time.run(main()) == (True, "degraded")


def test_startup_checks_latch():
    async def main():
        health = service()
        answers = Answers(False, True, True, False)
        health.check("warm", kind="startup", interval=10)(answers)
        async with health:
            await asyncio.sleep(5)
            assert not health.started
            assert not health.ready
            await asyncio.sleep(60)
            return health.started, health.ready

    assert virtual_time.run(main()) == (True, True)


def test_liveness_fails_by_a_live_check_only():
    async def main():
        async with service() as health:
            health.check("db")(Answers(False))
            health.check("loop", kind=Kind.LIVE)(Answers(True, False))
            await asyncio.sleep(9)
            assert health.live
            await asyncio.sleep(30)
            return health.live

    assert virtual_time.run(main()) is False


def test_a_hanging_check_is_reported_and_stops_no_other():
    async def stubborn():
        while True:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                if asyncio.get_running_loop().time() > 2000:
                    raise

    async def main():
        async with service() as health:
            other = Answers(True)
            health.check("hung", timeout=2, interval=10)(lambda_sleep(3600))
            health.check("stubborn", timeout=2, interval=10)(stubborn)
            health.check("other", interval=10)(other)
            await asyncio.sleep(100)
            checks = (await health.get_health_status())["checks"]
            runs = other.runs
        await asyncio.sleep(2000)
        return checks, runs

    checks, runs = virtual_time.run(main())
    assert checks["hung"]["reason"] == "no answer in 2 s"
    assert checks["stubborn"]["reason"] == "the run before has not ended yet"
    assert checks["stubborn"]["status"] == "unhealthy"
    assert checks["other"]["status"] == "healthy"
    assert runs >= 9


async def test_a_sync_check_runs_in_a_thread_and_may_hang_there():
    async with HealthMonitor(Figures()) as health:
        loop_thread = []

        @health.check("hung", timeout=0.05, interval=None, cache=0)
        def hung():
            time.sleep(1)

        @health.check("other", interval=None, cache=0)
        def other():
            loop_thread.append(asyncio.current_task is None)
            return Status.DEGRADED

        first = await health.run_check("hung")
        again = await health.run_check("hung")

        assert first.reason == "no answer in 0.05 s"
        assert again.reason == "the run before has not ended yet"
        assert (await health.run_check("other")).status is Status.DEGRADED


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (None, Status.HEALTHY, ""),
        (True, Status.HEALTHY, ""),
        (False, Status.UNHEALTHY, "it returned False"),
        (Status.DEGRADED, Status.DEGRADED, ""),
        (Result(Status.DEGRADED, "slow"), Status.DEGRADED, "slow"),
        (ZeroDivisionError("by 0"), Status.UNHEALTHY, "ZeroDivisionError: by 0"),
        ("fine", Status.UNHEALTHY, "it returned 'fine', not"),
        (1, Status.UNHEALTHY, "it returned 1, not"),
        (Status.UNKNOWN, Status.UNHEALTHY, "it returned"),
    ],
)
async def test_every_answer_has_one_meaning(answer, status, reason):
    async with HealthMonitor(Figures()) as health:
        health.check("a", interval=None)(Answers(answer))

        result = await health.run_check("a")

        assert result.status is status
        assert result.reason.startswith(reason)


async def test_a_check_that_only_makes_a_coroutine_is_told_what_it_should_be():
    answers = Answers(True)
    async with HealthMonitor(Figures()) as health:
        health.check("a", interval=None)(lambda: answers())

        result = await health.run_check("a")

        assert result.status is Status.UNHEALTHY
        assert result.reason.endswith("an async function")


def test_one_dead_database_gives_one_alert_not_ten():
    async def main():
        async with service() as health:
            alerts = heard(health, "health_alert")
            health.check("db")(Answers(OSError("gone")))
            for number in range(9):
                health.check(f"user {number}", depends_on=["db"])(Answers(False))
            await asyncio.sleep(60)
            status = await health.get_health_status()
            return alerts, status

    alerts, status = virtual_time.run(main())
    assert alerts == [
        {"metric": "db", "value": "OSError: gone", "threshold": "healthy"}
    ]
    assert status["reason"] == "db: OSError: gone"
    assert status["checks"]["user 3"]["causes"] == ["db"]


def test_changes_of_a_check_and_of_the_whole_are_told():
    async def main():
        async with service() as health:
            changes = heard(health, "health_changed")
            health.check("db")(Answers(True, False))
            await asyncio.sleep(60)
            return [(c["check"], c["previous"], c["status"]) for c in changes]

    assert virtual_time.run(main()) == [
        (None, "unknown", "healthy"),
        (None, "healthy", "unknown"),
        ("db", "unknown", "healthy"),
        (None, "unknown", "healthy"),
        ("db", "healthy", "unhealthy"),
        (None, "healthy", "unhealthy"),
    ]


def test_a_listener_that_never_returns_holds_up_no_check():
    async def main():
        async with service() as health:
            health.emitter.on("*")(lambda_sleep_with_event(3600))
            check = Answers(False)
            health.check("db", interval=1)(check)
            await asyncio.sleep(100)
            return check.runs

    assert virtual_time.run(main()) > 80


def test_a_result_is_given_again_while_it_is_fresh():
    async def main():
        async with service() as health:
            check = Answers(True)
            health.check("db", interval=None, cache=5)(check)
            for _ in range(10):
                await health.run_check("db")
                await asyncio.sleep(1)
            return check.runs

    assert virtual_time.run(main()) == 2


def test_nothing_is_given_again_without_a_cache():
    async def main():
        async with service() as health:
            check = Answers(True)
            health.check("db", interval=None, cache=0)(check)
            for _ in range(3):  # at one time of the clock
                await health.run_check("db")
            return check.runs

    assert virtual_time.run(main()) == 3


def test_callers_at_the_same_time_share_one_run():
    async def main():
        async with service() as health:
            check = Answers(True)
            health.check("db", interval=None, cache=0)(check)
            await asyncio.gather(*(health.run_check("db") for _ in range(5)))
            return check.runs

    assert virtual_time.run(main()) == 1


def test_the_status_runs_checks_without_an_interval():
    async def main():
        async with service() as health:
            health.check("db", interval=None)(Answers(True))
            return await health.get_health_status()

    assert virtual_time.run(main())["checks"]["db"]["status"] == "healthy"


def test_a_fault_is_a_check_that_is_down():
    async def main():
        async with service() as health:
            alerts = heard(health, "health_alert")
            health.set_fault("task a", "crashed")
            health.set_fault("task a", "crashed again")
            health.set_fault("task b", "crashed", critical=False)
            await asyncio.sleep(1)
            down = health.ready, (await health.get_health_status())["status"]
            health.clear_fault("task a")
            health.clear_fault("task c")
            up = health.ready, (await health.get_health_status())["status"]
            return [a["metric"] for a in alerts], down, up

    assert virtual_time.run(main()) == (
        ["task a", "task b"],
        (False, "unhealthy"),
        (True, "degraded"),
    )


def test_the_probes_are_told_of_every_change():
    async def main():
        probes = Probes()
        async with service(probes=probes) as health:
            health.check("db")(Answers(True, False))
            health.check("warm", kind="startup")(Answers(True))
            first = probes.told[-1]
            await asyncio.sleep(5)
            up = probes.told[-1]
            health.set_ready(False, "draining")
            closed = probes.told[-1]
            health.set_ready(True)
            await asyncio.sleep(60)
            return first, up, closed, probes.told[-1]

    first, up, closed, down = virtual_time.run(main())
    assert first["live"] is True
    assert up["live"] is up["ready"] is up["startup"] is True
    assert closed["ready"] == ["draining"]
    assert down["ready"] == ["db: it returned False"]
    assert down["startup"] is down["live"] is True
    assert down["health"]["status"] == "fail"


def test_healthz_speaks_health_json():
    """The words and shapes of draft-inadarei-api-health-check."""

    async def main():
        probes = Probes()
        async with service(probes=probes) as health:
            health.check("db:ping")(Answers(False))
            health.check("cpu_usage", critical=False)(Answers(True))
            first = probes.told[-1]["health"]
            await asyncio.sleep(60)
            await health.monitor.exceeded("cpu_usage", 95.0, 80.0)
            return first, probes.told[-1]["health"]

    first, down = virtual_time.run(main())

    assert first["status"] == "warn"  # not known yet
    assert down["status"] == "fail"
    assert (
        down["notes"]
        == [down["reason"]]
        == ["db:ping: it returned False; cpu_usage is beyond its threshold"]
    )
    (db,) = down["checks"]["db:ping"]
    assert db.pop("since") > 0
    assert db == {
        "status": "fail",
        "output": "it returned False",
        "kind": "ready",
        "critical": True,
        "causes": ["db:ping"],
    }
    checked, observed = down["checks"]["cpu_usage"]
    assert checked["status"] == "pass"
    assert "output" not in checked
    assert observed == {
        "componentType": "system",
        "observedValue": 95.0,
        "status": "warn",
    }


def test_state_told_amid_a_publish_is_not_overwritten():
    """As when a signal handler closes readiness while a check publishes."""

    class Interrupting(Probes):
        health = None

        def publish(self, **state):
            if self.health is not None:
                health, self.health = self.health, None
                health.set_ready(False, "a signal")
            super().publish(**state)

    async def main():
        probes = Interrupting()
        async with service(probes=probes) as health:
            probes.health = health
            health.set_ready(True)
            return probes.told[-1]

    assert virtual_time.run(main())["ready"] == ["a signal"]


def test_stop_leaves_nothing_running():
    async def main():
        before = asyncio.all_tasks()
        async with service() as health:
            health.check("db", interval=1)(Answers(True))
            health.check("hung", timeout=3600)(lambda_sleep(3600))
            await asyncio.sleep(10)
        await asyncio.sleep(1)
        assert not health.monitor.running
        await health.stop()
        return asyncio.all_tasks() - before

    assert virtual_time.run(main()) == set()


def test_health_can_be_started_again():
    async def main():
        health = service()
        check = Answers(True)
        health.check("db", interval=1)(check)
        for _ in range(2):
            async with health:
                await asyncio.sleep(5)
        return check.runs

    assert virtual_time.run(main()) >= 8


async def test_what_can_not_be_run_is_refused():
    health = HealthMonitor(Figures())
    health.check("a")(Answers(True))
    with pytest.raises(HealthError, match="named 'a' already"):
        health.check("a")(Answers(True))
    with pytest.raises(HealthError, match="no check is named 'zebra'; there are: a"):
        await health.run_check("zebra")
    health.check("b", depends_on=["zebra"])(Answers(True))
    with pytest.raises(HealthError, match="depends_on of b must name checks"):
        await health.start()
    with pytest.raises(ValueError, match="depends_on must not form a circle"):
        health.check("zebra", depends_on=["b"])(Answers(True))


async def test_a_running_monitor_takes_no_check_that_depends_on_an_unknown_one():
    async with HealthMonitor(Figures()) as health:
        with pytest.raises(HealthError, match="depends_on of b must name checks"):
            health.check("b", depends_on=["zebra"])(Answers(False))

        assert health.statuses() == {}


async def test_it_is_started_once():
    async with HealthMonitor(Figures()) as health:
        with pytest.raises(HealthError, match="runs already"):
            await health.start()


NUMBERS = [(math.nan, ValueError), (math.inf, ValueError), (-1, ValueError)]
TYPES = [(True, TypeError), ("1", TypeError), ([], TypeError)]


@pytest.mark.parametrize("name", ["timeout", "interval", "cache"])
@pytest.mark.parametrize(("value", "error"), NUMBERS + TYPES)
def test_a_bad_number_of_a_check_is_refused(name, value, error):
    with pytest.raises(error, match=f"{name} must be a finite number"):
        HealthMonitor(Figures()).check("a", **{name: value})(Answers(True))


@pytest.mark.parametrize("name", ["cpu_threshold", "memory_threshold"])
@pytest.mark.parametrize(("value", "error"), [*NUMBERS, *TYPES, (0, ValueError)])
def test_a_bad_threshold_is_refused(name, value, error):
    with pytest.raises(error, match=f"{name} must be a finite number > 0"):
        HealthMonitor(Figures(), **{name: value})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": ""}, ValueError, "name must be non-empty text"),
        ({"name": 7}, TypeError, "name must be non-empty text"),
        ({"kind": "alive"}, ValueError, "kind must be one of live, ready, startup"),
        ({"kind": 7}, ValueError, "kind must be one of live, ready, startup"),
        ({"critical": 1}, TypeError, "critical must be True or False"),
        ({"failures": 0}, ValueError, "failures must be an int >= 1"),
        ({"successes": 1.5}, TypeError, "successes must be an int >= 1"),
        ({"depends_on": "db"}, TypeError, "depends_on must be a list of names"),
        ({"depends_on": [""]}, ValueError, "depends_on must be non-empty text"),
        (
            {"kind": "live", "depends_on": ["db"]},
            ValueError,
            "depends_on must be empty for a live check",
        ),
        ({"depends_on": ["a"]}, ValueError, "must not form a circle"),
    ],
)
def test_a_bad_check_is_refused(options, error, message):
    health = HealthMonitor(Figures())
    with pytest.raises(error, match=message):
        health.check(**{"name": "a"} | options)(Answers(True))


def test_what_is_no_function_is_refused():
    with pytest.raises(TypeError, match="function must be callable, got 'db'"):
        HealthMonitor(Figures()).check("a")("db")


async def test_bad_faults_and_gates_are_refused():
    async with HealthMonitor(Figures()) as health:
        with pytest.raises(TypeError, match="ready must be True or False"):
            health.set_ready("yes")
        with pytest.raises(ValueError, match="name must be non-empty"):
            health.set_fault("", "reason")
        with pytest.raises(TypeError, match="reason must be non-empty"):
            health.set_fault("a", None)


def lambda_sleep(seconds):
    async def sleep():
        await asyncio.sleep(seconds)

    return sleep


def lambda_sleep_with_event(seconds):
    async def sleep(event):
        await asyncio.sleep(seconds)

    return sleep


def test_a_root_cause_that_is_looked_at_rarely_is_found_before_the_alarm():
    async def main():
        async with service() as health:
            alerts = heard(health, "health_alert")
            health.check("db", interval=600)(Answers(True, OSError("gone")))
            for number in range(9):
                name = f"user {number}"
                health.check(name, interval=5, depends_on=["db"])(Answers(True, False))
            await asyncio.sleep(60)
            return [alert["metric"] for alert in alerts]

    assert virtual_time.run(main()) == ["db"]


def test_a_failure_seen_again_while_its_cause_is_looked_for_is_told_once():
    async def main():
        async with service() as health:
            alerts = heard(health, "health_alert")
            health.check("db", interval=None)(lambda_sleep(4))
            on_demand = {"interval": None, "failures": 1, "cache": 0}
            health.check("user", depends_on=["db"], **on_demand)(Answers(False))
            for _ in range(3):
                await health.run_check("user")
                await asyncio.sleep(1)
            await asyncio.sleep(60)
            return [alert["metric"] for alert in alerts]

    assert virtual_time.run(main()) == ["user"]


def test_a_failure_of_its_own_is_told_once_the_root_cause_is_gone():
    async def main():
        async with service() as health:
            alerts = heard(health, "health_alert")
            health.check("db")(Answers(False, False, False, True))
            health.check("user", depends_on=["db"])(Answers(False))
            await asyncio.sleep(300)
            return [alert["metric"] for alert in alerts]

    assert virtual_time.run(main()) == ["db", "user"]


class Odd(Exception):
    def __str__(self):
        raise ValueError("no text")


@pytest.mark.parametrize(
    "answer",
    [
        Odd(),
        OSError("bad name \udcff"),
        asyncio.CancelledError(),
        lambda: Result("bogus"),
        lambda: Result(Status.UNHEALTHY, object()),
        lambda: Result(Status.UNHEALTHY, "bad name \udcff"),
    ],
    ids=["no text", "surrogate", "cancelled", "status", "object", "surrogate reason"],
)
@pytest.mark.parametrize("in_thread", [True, False])
async def test_no_answer_ends_the_schedule_of_its_check(answer, in_thread):
    runs, thrice = [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def ran():
        runs.append(1)
        if len(runs) == 3:
            loop.call_soon_threadsafe(thrice.set)

    def sync():
        ran()
        if callable(answer):
            return answer()
        raise answer

    async def later():
        return sync()

    async with HealthMonitor(Figures(), probes=ProbeServer()) as health:
        health.check("a", interval=0.001)(sync if in_thread else later)

        await asyncio.wait_for(thrice.wait(), 10)

        assert health.statuses() == {"a": Status.UNHEALTHY}


async def test_a_check_is_down_while_no_thread_is_to_be_had(monkeypatch):
    def none_left(_):
        raise RuntimeError("can't start new thread")

    async with HealthMonitor(Figures()) as health:
        options = {"interval": None, "failures": 1, "successes": 1, "cache": 0}
        health.check("a", **options)(lambda: True)
        with monkeypatch.context() as exhausted:
            exhausted.setattr(threading.Thread, "start", none_left)
            down = await health.run_check("a")
        well = await health.run_check("a")

    reason = "RuntimeError: can't start new thread"
    assert down == Result(Status.UNHEALTHY, reason)
    assert well.status is Status.HEALTHY


async def test_whoever_waits_for_a_check_at_the_stop_is_told_and_not_cancelled():
    health = HealthMonitor(Figures())
    health.check("slow", interval=None)(lambda_sleep(3600))
    async with health:
        asking = asyncio.create_task(health.get_health_status())
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    with pytest.raises(HealthError, match="stopped while slow ran"):
        await asking


async def test_an_alert_of_the_run_before_does_not_outlive_a_restart():
    health = HealthMonitor(Figures())
    async with health:
        await health.monitor.exceeded("cpu_usage", 93.0, 80.0)
        assert (await health.get_health_status())["status"] == "degraded"

    async with health:
        assert (await health.get_health_status())["status"] == "healthy"


def test_faults_are_in_the_document_and_it_says_when_it_was_told():
    async def main():
        probes = Probes()
        async with service(probes=probes) as health:
            health.set_fault("task a", "crashed", critical=False)
            return probes.told[-1], await health.get_health_status()

    before = time.time()
    told, status = virtual_time.run(main())

    assert before <= told["health"]["published_at"] <= time.time()
    assert status["faults"] == {"task a": {"reason": "crashed", "critical": False}}


def test_a_check_that_goes_down_again_is_told_again():
    async def main():
        async with service() as health:
            alerts = heard(health, "health_alert")
            health.check("db")(Answers(False, False, True, True, False))
            await asyncio.sleep(300)
            return [alert["metric"] for alert in alerts]

    assert virtual_time.run(main()) == ["db", "db"]
