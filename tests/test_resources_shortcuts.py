"""The short cuts of hot methods give the answers of the methods themselves.

A limiter with a `clock=` never takes the short cut, so two that are otherwise
alike must give the same answers to anything.
"""

import asyncio
import inspect
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtaio.resources import KeyedRateLimiter, RateLimiter


class Text(str):
    """Compares as text does, but by code that could be anything."""

    __slots__ = ()


class Whole(int):
    """An int that isn't exactly one."""

    __slots__ = ()


TOKENS = [1, 2, 3, 4, 0, -1, 2**63, 2**70, True, 1.0, "1", None, Whole(1)]
KEYS = ["a", "b", Text("a"), b"a", 1, 1.0, True, Whole(1), 2**70, None, ("a", 1), []]


def outcome(call, *arguments):
    """What a call came to, so that two can be compared."""
    try:
        answer = call(*arguments)
    except Exception as error:  # whatever it is
        return type(error), str(error)
    if inspect.iscoroutine(answer):
        answer.close()
        return "waits"
    return answer


def both(kind):
    """Two limiters that never refill: one with the short cut, one without."""
    return kind(1e-6, 5), kind(1e-6, 5, clock=time.monotonic)


tokens = st.one_of(
    st.just(()), st.sampled_from(TOKENS).map(lambda n: (n,)), st.just((1, 2))
)
names = st.sampled_from(["acquire", "try_acquire"])


@given(calls=st.lists(st.tuples(names, tokens), max_size=12))
def test_a_limiter_answers_as_without_the_short_cut(calls):
    short, whole = both(RateLimiter)

    for name, arguments in calls:
        assert outcome(getattr(short, name), *arguments) == outcome(
            getattr(whole, name), *arguments
        )
        assert short.stats() == whole.stats()


@given(calls=st.lists(st.tuples(names, st.sampled_from(KEYS), tokens), max_size=12))
def test_a_keyed_limiter_answers_as_without_the_short_cut(calls):
    short, whole = both(KeyedRateLimiter)

    for name, key, arguments in calls:
        assert outcome(getattr(short, name), key, *arguments) == outcome(
            getattr(whole, name), key, *arguments
        )
        assert short.stats() == whole.stats()
        assert len(short) == len(whole)


@pytest.mark.parametrize("kind", [RateLimiter, KeyedRateLimiter])
@pytest.mark.parametrize("name", ["acquire", "try_acquire"])
def test_a_short_cut_keeps_the_face_of_its_method(kind, name):
    method = getattr(kind, name)

    assert method.__name__ == name
    assert "tokens=1" in str(inspect.signature(method))
    assert "Take `tokens`" in method.__doc__


@pytest.mark.parametrize("name", ["acquire", "try_acquire"])
def test_a_short_cut_is_of_its_class_only(name):
    method = getattr(RateLimiter, name)

    with pytest.raises(TypeError, match="TokenBucket"):
        method(KeyedRateLimiter(1))
    with pytest.raises(TypeError):
        method()


def test_names_of_arguments_are_taken_as_ever():
    short, _ = both(RateLimiter)

    assert short.try_acquire(tokens=2)
    assert asyncio.run(asyncio.wait_for(short.acquire(tokens=3, timeout=0), 9)) is None
    assert not short.try_acquire(tokens=1)


def test_text_and_bytes_are_two_keys_even_where_comparing_them_is_an_error():
    # They have one hash. Under -bb their comparison raises, which a search under
    # a lock must not meet.
    code = """
from mtaio.resources import KeyedRateLimiter
limiter = KeyedRateLimiter(1e-6, 1)
for key in ("a", b"a", ("a",), (b"a",)):
    try:
        print(limiter.try_acquire(key), limiter.try_acquire(key))
    except BytesWarning:
        print("told")
"""
    done = subprocess.run(
        [sys.executable, "-bb", "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stderr == ""
    assert done.stdout.split("\n")[0] == "True False"
    # As a dict would: told, or kept apart; never a panic, a hang or one bucket.
    assert {*done.stdout.split("\n")[1:]} <= {"True False", "told", ""}
