"""The threshold's state machine against a model, for any run of values."""

import math

from hypothesis import given
from hypothesis import strategies as st

from mtaio._thresholds import Change, Exceeded, Pending, Quiet, Rule, rule, step

values = st.one_of(st.none(), st.just(math.nan), st.integers(0, 20).map(float))
moments = st.lists(st.tuples(st.integers(0, 5), values), max_size=60)


@st.composite
def rules(draw):
    below = draw(st.booleans())
    value = draw(st.integers(0, 20))
    clear = draw(st.integers(value, 20) if below else st.integers(0, value))
    lasting = draw(st.sampled_from([0, 1, 3, 10]))
    return rule("depth", value, clear=clear, for_seconds=lasting, below=below)


def changes(of: Rule, run):
    """`(now, change)` told over a run of `(seconds later, value)`."""
    state, now, told = Quiet(), 0.0, []
    for later, value in run:
        now += later
        state, change = step(of, state, value, now)
        if change is not None:
            told.append((now, change))
    return told


@given(rules(), moments)
def test_alerts_alternate_and_begin_with_an_excess(of, run):
    told = [change for _, change in changes(of, run)]

    assert told == [Change.EXCEEDED, Change.CLEARED] * (len(told) // 2) + (
        [Change.EXCEEDED] if len(told) % 2 else []
    )


@given(rules(), moments)
def test_each_change_agrees_with_the_plain_meaning(of, run):
    """Exceeded: past `value` at each reading of the last `for_seconds`."""
    state, now, past = Quiet(), 0.0, []
    for later, value in run:
        now += later
        known = value is not None and not math.isnan(value)
        before = state
        state, change = step(of, state, value, now)
        if known and of.too_far(value):
            past.append(now)
        else:
            past.clear()

        lasted = bool(past) and now - past[0] >= of.for_seconds
        expected = None
        if isinstance(before, Exceeded):
            expected = Change.CLEARED if known and of.recovered(value) else None
        elif lasted:
            expected = Change.EXCEEDED
        assert change is expected
        if change is Change.CLEARED:
            past.clear()


@given(rules(), moments)
def test_absent_values_tell_nothing(of, run):
    state = Quiet()
    for index, (_, value) in enumerate(run):
        before = state
        state, change = step(of, state, value, float(index))
        if value is None or math.isnan(value):
            assert change is None
            assert isinstance(state, Exceeded) == isinstance(before, Exceeded)
            assert not isinstance(state, Pending)


@given(rules(), st.integers(1, 100))
def test_values_that_stay_between_the_levels_alert_once(of, count):
    """Past `value` once, then anywhere short of `clear`: one alert."""
    far = of.value - 1 if of.below else of.value + 1
    between = (of.value + of.clear) / 2
    if of.recovered(between):
        between = far
    run = [(0, far), (10, far)] + [(1, between), (1, far)] * count

    assert [change for _, change in changes(of, run)] == [Change.EXCEEDED]
