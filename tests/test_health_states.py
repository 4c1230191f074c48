"""The rules of health, as laws over every row of results and every graph."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio._states import (
    Damper,
    Kind,
    Standing,
    Status,
    causes,
    is_live,
    is_ready,
    is_started,
    overall,
    refuse_circle,
)

SEVERITY = [Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY]
results = st.lists(st.sampled_from(SEVERITY), max_size=40)
counts = st.integers(1, 5)
kinds = st.sampled_from(Kind)
statuses = st.sampled_from(Status)
standings = st.builds(Standing, kinds, st.booleans(), statuses, st.booleans())
services = st.dictionaries(st.text(min_size=1), standings, max_size=6)


def reference(row, failures, successes):
    """The law in plain words, over the whole history."""
    state = Status.UNKNOWN
    for end in range(1, len(row) + 1):
        bad, good = (
            row[max(end - failures, 0) : end],
            row[max(end - successes, 0) : end],
        )
        level = 0 if state is Status.UNKNOWN else SEVERITY.index(state)
        if state is Status.UNKNOWN and row[end - 1] is Status.HEALTHY:
            state = Status.HEALTHY
        elif len(bad) == failures and min(map(SEVERITY.index, bad)) > level:
            state = SEVERITY[min(map(SEVERITY.index, bad))]
        elif state is not Status.UNKNOWN and len(good) == successes:
            worst = max(map(SEVERITY.index, good))
            if worst < level:
                state = SEVERITY[worst]
    return state


@given(results, counts, counts)
def test_a_damper_keeps_the_law(row, failures, successes):
    damper = Damper(failures, successes)

    for end, status in enumerate(row, 1):
        before = damper.status
        changed = damper.observe(status)

        assert damper.status is reference(row[:end], failures, successes)
        assert changed == (damper.status is not before)


@given(st.lists(st.sampled_from(SEVERITY), min_size=1), counts)
def test_a_single_odd_result_never_changes_a_damped_state(row, successes):
    damper = Damper(2, 2)
    for status in (Status.HEALTHY, Status.HEALTHY):
        damper.observe(status)

    for status in row:
        damper.observe(status)
        damper.observe(Status.HEALTHY)

    assert damper.status is Status.HEALTHY


@given(results, counts, counts, st.sampled_from(SEVERITY))
def test_a_lasting_result_becomes_the_state(row, failures, successes, last):
    damper = Damper(failures, successes)
    for status in row:
        damper.observe(status)

    for _ in range(max(failures, successes)):
        damper.observe(last)

    assert damper.status is last


@given(results, counts, counts)
def test_an_alternating_row_changes_at_most_as_often_as_its_runs_allow(
    row, failures, successes
):
    damper = Damper(failures, successes)

    changes = sum(damper.observe(status) for status in row)

    assert changes <= 1 + len(row) / min(failures, successes)


@pytest.mark.parametrize(
    ("value", "error"),
    [(0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)],
)
def test_a_bad_count_is_refused(value, error):
    with pytest.raises(error, match="failures must be an int >= 1"):
        Damper(value, 1)
    with pytest.raises(error, match="successes must be an int >= 1"):
        Damper(1, value)


@given(services, services)
def test_liveness_never_looks_beyond_liveness_checks(some, others):
    others = {
        f"other {name}": standing
        for name, standing in others.items()
        if standing.kind is not Kind.LIVE
    }

    assert is_live(some) == is_live(some | others)


@given(services)
def test_ready_needs_every_critical_readiness_check_up(service):
    critical = [s for s in service.values() if s.critical and s.kind is Kind.READY]
    up = (Status.HEALTHY, Status.DEGRADED)

    assert is_ready(service) == all(s.status in up for s in critical)


@given(services)
def test_started_needs_every_critical_startup_check_up(service):
    critical = [s for s in service.values() if s.critical and s.kind is Kind.STARTUP]
    up = (Status.HEALTHY, Status.DEGRADED)

    assert is_started(service) == all(s.status in up for s in critical)


@given(services, st.booleans())
def test_the_whole_is_unhealthy_only_by_a_critical_check(service, alerts):
    down = any(s.critical and s.status is Status.UNHEALTHY for s in service.values())

    assert (overall(service, alerts=alerts) is Status.UNHEALTHY) == down


@given(services)
def test_an_alert_is_at_least_degraded(service):
    status = overall(service, alerts=True)

    assert status in (Status.DEGRADED, Status.UNHEALTHY)


def test_a_service_without_checks_is_healthy_and_one_not_seen_yet_is_unknown():
    unseen = Standing(Kind.READY, True, Status.UNKNOWN, False)

    assert overall({}, alerts=False) is Status.HEALTHY
    assert overall({"db": unseen}, alerts=False) is Status.UNKNOWN


@st.composite
def graphs(draw):
    """Services whose checks depend on earlier ones only, so on no circle."""
    size = draw(st.integers(1, 8))
    service = {}
    for number in range(size):
        below = draw(st.sets(st.integers(0, number - 1))) if number else set()
        service[str(number)] = Standing(
            Kind.READY,
            True,
            Status.UNHEALTHY,
            draw(st.booleans()),
            tuple(map(str, sorted(below))),
        )
    return service


@given(graphs())
def test_causes_are_failing_checks_that_no_failing_check_explains(service):
    for name in service:
        found = causes(name, service)

        assert found
        assert len(set(found)) == len(found)
        for cause in found:
            assert cause == name or service[cause].failing
            assert not any(service[d].failing for d in service[cause].depends_on)


def test_nine_checks_on_one_dead_database_have_one_cause():
    down = Standing(Kind.READY, True, Status.UNHEALTHY, True)
    service = {"db": down}
    for number in range(9):
        service[f"check {number}"] = Standing(
            Kind.READY, True, Status.UNHEALTHY, True, ("db",)
        )

    assert {cause for name in service for cause in causes(name, service)} == {"db"}


def test_a_circle_is_refused_and_told():
    with pytest.raises(ValueError, match="depends_on must not form a circle: "):
        refuse_circle({"a": ["b"], "b": ["c"], "c": ["a"]})
    refuse_circle({"a": ["b"], "b": ["c"]})
