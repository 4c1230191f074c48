"""Health as one machine: whatever happens, it says what a plain model says.

The loop's clock is virtual, so that hangs and ages are exact.
"""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import virtual_time
from mtaio.events import EventEmitter
from mtaio.health import HealthMonitor, Kind, Result, Status
from test_health import Figures, Probes, heard
from test_health_states import reference

# Name: kind, critical, depends on.
CHECKS = {
    "loop": (Kind.LIVE, True, ()),
    "warm": (Kind.STARTUP, True, ()),
    "db": (Kind.READY, True, ()),
    "api": (Kind.READY, True, ("db",)),
    "mail": (Kind.READY, False, ()),
}
TIMEOUT = 2.0
HANG = "hang"
BAD = (Status.DEGRADED, Status.UNHEALTHY)
UP = (Status.HEALTHY, Status.DEGRADED)

names = st.sampled_from(list(CHECKS))
answers = st.sampled_from([*BAD, Status.HEALTHY, HANG, OSError("gone")])
faults = st.sampled_from(["task a", "task b"])
metrics = st.sampled_from(["cpu_usage", "memory_usage"])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("answer"), names, answers),
        st.tuples(st.just("run"), names, answers, st.integers(1, 3)),
        st.tuples(st.just("run"), names, answers, st.integers(1, 3)),
        st.tuples(st.just("fault"), faults, st.sampled_from([True, False, None])),
        st.tuples(st.just("gate"), st.booleans()),
        st.tuples(st.just("beyond"), metrics, st.booleans()),
    ),
    min_size=20,
    max_size=50,
)


class Model:
    """Health in plain words: whole histories, nothing remembered but them."""

    def __init__(self, now):
        self.answers = dict.fromkeys(CHECKS, Status.HEALTHY)
        self.results = {name: [] for name in CHECKS}
        self.since = dict.fromkeys(CHECKS, now)
        self.faults, self.beyond = {}, set()
        self.gate, self.started = True, False
        self.alerted, self.alerts = set(), []
        self.now, self.status, self.whole_since = now, Status.HEALTHY, now
        self.judge()

    def state(self, name):
        return reference(self.results[name], 2, 2)

    def failing(self, name):
        return self.results[name][-1:] in ([b] for b in BAD) or self.state(name) in BAD

    def run(self, name):
        before, answer = self.state(name), self.answers[name]
        self.now += TIMEOUT if answer is HANG else 0.0
        bad = answer is HANG or isinstance(answer, Exception)
        self.results[name].append(Status.UNHEALTHY if bad else answer)
        if self.state(name) is not before:
            self.since[name] = self.now
        if self.state(name) is not Status.UNHEALTHY:
            self.alerted.discard(name)
        self.judge()
        if self.state(name) is Status.UNHEALTHY and name not in self.alerted:
            self.alarm(name)

    def alarm(self, name):
        below = CHECKS[name][2]
        if any(self.state(other) is Status.UNHEALTHY for other in below):
            return
        for other in below:
            self.run(other)
        if not any(self.failing(other) for other in below):
            self.alerted.add(name)
            self.alerts.append(name)

    def judge(self):
        self.started |= self.state("warm") in UP
        if self.whole() is not self.status:
            self.status, self.whole_since = self.whole(), self.now

    def whole(self):
        states = {name: self.state(name) for name in CHECKS}
        down = [n for n, s in states.items() if s is Status.UNHEALTHY]
        if any(CHECKS[name][1] for name in down) or any(self.faults.values()):
            return Status.UNHEALTHY
        if down or self.beyond or self.faults or Status.DEGRADED in states.values():
            return Status.DEGRADED
        if set(states.values()) == {Status.UNKNOWN}:
            return Status.UNKNOWN
        return Status.HEALTHY

    def ready(self):
        checks = all(self.state(name) in UP for name in ("db", "api"))
        return self.gate and self.started and checks and not any(self.faults.values())


def check(model, name):
    async def function():
        answer = model.answers[name]
        if answer is HANG:
            await asyncio.sleep(3600)
        if isinstance(answer, Exception):
            raise answer
        return Result(answer)

    return function


async def do(health, model, step):
    """One step, of the machine and then of the model; every task comes to its end."""
    model.now = asyncio.get_running_loop().time()
    match step:
        case ("answer", name, answer):
            model.answers[name] = answer
        case ("run", name, answer, times):
            model.answers[name] = answer
            for _ in range(times):
                model.now = asyncio.get_running_loop().time()
                await health.run_check(name)
                model.run(name)
                await asyncio.sleep(2 * TIMEOUT)
        case ("fault", name, None):
            health.clear_fault(name)
            model.faults.pop(name, None)
        case ("fault", name, critical):
            health.set_fault(name, "crashed", critical=critical)
            if name not in model.faults:
                model.alerts.append(name)
            model.faults[name] = critical
        case ("gate", is_open):
            health.set_ready(is_open)
            model.gate = is_open
        case ("beyond", metric, True):
            await health.monitor.exceeded(metric, 99.0, 80.0)
            model.beyond.add(metric)
            model.alerts.append(metric)
        case ("beyond", metric, False):
            await health.monitor.cleared(metric, 10.0, 80.0)
            model.beyond.discard(metric)
    model.judge()
    await asyncio.sleep(2 * TIMEOUT)


@settings(deadline=None, max_examples=60)  # how long it takes is the machine's matter
@given(steps)
def test_health_says_what_the_model_says(steps):
    async def main():
        clock = asyncio.get_running_loop().time
        probes = Probes()
        health = HealthMonitor(Figures(), EventEmitter(), probes=probes, clock=clock)
        alerts = heard(health, "health_alert")
        model = Model(clock())
        for name, (kind, critical, below) in CHECKS.items():
            health.check(
                name,
                kind=kind,
                critical=critical,
                depends_on=below,
                timeout=TIMEOUT,
                interval=None,
                cache=0,
            )(check(model, name))
        async with health:
            for step in steps:
                await do(health, model, step)
                await compare(health, model, probes, clock())
        assert [alert["metric"] for alert in alerts] == model.alerts

    virtual_time.run(main())


async def compare(health, model, probes, now):
    assert health.status is model.status
    assert health.live == (model.state("loop") is not Status.UNHEALTHY)
    assert health.started == model.started
    assert health.ready == model.ready()
    told = probes.told[-1]
    assert (told["live"] is True) == health.live
    assert (told["ready"] is True) == health.ready
    assert (told["startup"] is True) == health.started
    document = health._verdict.document(now, health._since)
    assert document["since"] == pytest.approx(now - model.whole_since)
    assert document["status"] == model.status
    assert bool(document["reason"]) == (model.status in BAD or not model.gate)
    for name, described in document["checks"].items():
        assert described["status"] == model.state(name)
        assert described["since"] == pytest.approx(now - model.since[name])
        below = [other for other in CHECKS[name][2] if model.failing(other)]
        if described["status"] in BAD:
            assert described["causes"] == (below or [name])
