"""The rules of health, as laws over every row of results and every graph."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio._states import (
    Damper,
    Kind,
    Standing,
    Status,
    blockers,
    causes,
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


@given(services)
def test_a_probe_is_blocked_by_critical_checks_of_its_kind_only(service):
    for kind in Kind:
        for name in blockers(kind, service):
            assert service[name].kind is kind
            assert service[name].critical


@given(services)
def test_liveness_is_blocked_by_what_is_down(service):
    mine = {n: s for n, s in service.items() if s.kind is Kind.LIVE and s.critical}
    down = {name for name, s in mine.items() if s.status is Status.UNHEALTHY}

    assert set(blockers(Kind.LIVE, service)) == down


@given(services, st.sampled_from([Kind.READY, Kind.STARTUP]))
def test_the_other_probes_are_blocked_by_what_is_down_or_not_seen_yet(service, kind):
    mine = {n: s for n, s in service.items() if s.kind is kind and s.critical}
    up = (Status.HEALTHY, Status.DEGRADED)

    assert set(blockers(kind, service)) == {
        name for name, s in mine.items() if s.status not in up
    }


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
