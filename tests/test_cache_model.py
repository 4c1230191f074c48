"""`TTLCache` next to a dict with deadlines: every sequence of calls agrees."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mtaio.cache import EvictionPolicy, TTLCache
from virtual_time import VirtualClock


class Slow:
    """Equal by number, compared in Python only; most of them collide."""

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return self.number % 2

    def __eq__(self, other):
        return isinstance(other, Slow) and self.number == other.number


NUMBERS = st.integers(0, 7)
KEYS = st.one_of(
    NUMBERS,
    NUMBERS.map(str),
    NUMBERS.map(float),
    NUMBERS.map(Slow),
    st.tuples(NUMBERS, NUMBERS),
)
# Quarters are exact in binary and in nanoseconds.
SECONDS = st.integers(1, 40).map(lambda quarters: quarters / 4)


class Unbounded(RuleBasedStateMachine):
    """Holds exactly what the model holds."""

    def __init__(self):
        super().__init__()
        self.clock = VirtualClock()
        self.left = []
        self.cache = self.make()
        self.model = {}
        self.serial = 0

    def make(self):
        return TTLCache[int](
            clock=self.clock, on_evicted=lambda *gone: self.left.append(gone)
        )

    def live(self, key):
        value, deadline = self.model.get(key, (None, 0))
        return value if self.clock() < deadline else None

    @rule(key=KEYS, ttl=SECONDS)
    def set(self, key, ttl):
        self.serial += 1
        self.cache.set_nowait(key, self.serial, ttl)
        self.model[key] = (self.serial, self.clock() + ttl)
        assert self.cache.get_nowait(key) == self.serial

    @rule(key=KEYS, ttl=SECONDS)
    def add(self, key, ttl):
        self.serial += 1
        free = self.live(key) is None
        assert self.cache.add_nowait(key, self.serial, ttl) == free
        if free:
            self.model[key] = (self.serial, self.clock() + ttl)

    @rule(key=KEYS, ttl=SECONDS)
    def touch(self, key, ttl):
        value = self.live(key)
        assert self.cache.touch_nowait(key, ttl) == (value is not None)
        if value is not None:
            self.model[key] = (value, self.clock() + ttl)

    @rule(key=KEYS)
    def get(self, key):
        assert self.cache.get_nowait(key) == self.live(key)

    @rule(key=KEYS)
    def contains(self, key):
        assert (key in self.cache) == (self.live(key) is not None)

    @rule(key=KEYS)
    def delete(self, key):
        assert self.cache.delete_nowait(key) == (self.live(key) is not None)
        self.model.pop(key, None)

    @rule(key=KEYS)
    def pop(self, key):
        assert self.cache.pop_nowait(key, None) == self.live(key)
        self.model.pop(key, None)

    @rule(seconds=SECONDS)
    def wait(self, seconds):
        self.clock.advance(seconds)

    @rule()
    def sweep(self):
        for _ in range(2):
            for at in range(self.cache._shards):
                while not self.cache._sweep(at):
                    pass
        assert len(self.cache) == len(self.cache.items_nowait())

    @rule()
    def clear(self):
        self.cache.clear_nowait()
        self.model.clear()

    @invariant()
    def holds_what_the_model_holds(self):
        live = {key: self.live(key) for key in self.model}
        live = {key: value for key, value in live.items() if value is not None}
        assert dict(self.cache.items_nowait()) == live

    @invariant()
    def nothing_leaves_alive_without_being_asked_to(self):
        assert all(cause != "size" for _, _, cause in self.left)


class Bounded(Unbounded):
    """Never holds more than its bound; what leaves for room is reported."""

    SIZE = 5
    policy = EvictionPolicy.S3FIFO

    def make(self):
        return TTLCache[int](
            max_size=self.SIZE,
            eviction_policy=self.policy,
            clock=self.clock,
            on_evicted=self.forget,
        )

    def forget(self, key, value, cause):
        if cause == "size":
            assert self.model.pop(key)[0] == value

    @invariant()
    def is_within_its_bound(self):
        assert len(self.cache) <= self.SIZE


CASES = [Unbounded] + [
    type(policy.name, (Bounded,), {"policy": policy}) for policy in EvictionPolicy
]


@pytest.mark.parametrize("machine", CASES, ids=lambda machine: machine.__name__)
def test_agrees_with_a_dict_with_deadlines(machine):
    case = machine.TestCase
    case.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
    case("runTest").runTest()
