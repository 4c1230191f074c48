"""The emitter against a sorted list: any registrations, removals and stops."""

import asyncio
from fnmatch import fnmatchcase

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from mtaio.events import EventEmitter, EventPriority

NAMES = ["a", "b", "a.x", "a.y", "a.x.z"]
PATTERNS = [*NAMES, "*", "a.*", "*.x", "a*z", "b*"]
PRIORITIES = list(EventPriority)


class EmitterMachine(RuleBasedStateMachine):
    """Every emit calls what the model says, in its order."""

    @initialize()
    def begin(self):
        self.emitter = EventEmitter()
        # (pattern, listener's number, priority, order, once)
        self.model = []
        self.order = 0
        self.heard = []
        self.stopper = None
        self.failing = set()
        self.emitter.on_error(lambda event, error: self.heard.append(str(error)))
        self.listeners = [self.make_listener(n) for n in range(6)]

    def make_listener(self, number):
        def hear(event):
            self.heard.append(number)
            if number == self.stopper:
                event.propagate = False
            if number in self.failing:
                raise ValueError(f"listener {number}")

        async def hear_async(event):
            await asyncio.sleep(0)
            hear(event)

        return hear_async if number % 2 else hear

    @rule(
        pattern=st.sampled_from(PATTERNS),
        number=st.integers(0, 5),
        priority=st.sampled_from(PRIORITIES),
        once=st.booleans(),
    )
    def add(self, pattern, number, priority, once):
        register = self.emitter.once if once else self.emitter.on
        register(pattern, priority)(self.listeners[number])
        self.model.append((pattern, number, priority, self.order, once))
        self.order += 1

    @rule(pattern=st.sampled_from(PATTERNS), number=st.integers(0, 5))
    def remove(self, pattern, number):
        left = [entry for entry in self.model if entry[:2] != (pattern, number)]

        removed = self.emitter.remove_listener(pattern, self.listeners[number])

        assert removed == (len(left) < len(self.model))
        self.model = left

    @rule(pattern=st.sampled_from(PATTERNS))
    def remove_all(self, pattern):
        left = [entry for entry in self.model if entry[0] != pattern]

        removed = self.emitter.remove_all_listeners(pattern)

        assert removed == len(self.model) - len(left)
        self.model = left

    @rule(
        name=st.sampled_from(NAMES),
        stopper=st.none() | st.integers(0, 5),
        failing=st.sets(st.integers(0, 5)),
    )
    def emit(self, name, stopper, failing):
        self.stopper, self.failing, self.heard = stopper, failing, []
        expected = []
        for entry in sorted(self.model, key=lambda e: (-e[2], e[3])):
            pattern, number, _, _, once = entry
            if not fnmatchcase(name, pattern):
                continue
            if once:
                self.model.remove(entry)
            expected.append(number)
            if number in failing:
                expected.append(f"listener {number}")
            if number == stopper:
                break

        asyncio.run(self.emitter.emit(name))

        assert self.heard == expected

    @invariant()
    def counts_agree(self):
        assert self.emitter.listener_count() == len(self.model)
        for pattern in PATTERNS:
            expected = sum(entry[0] == pattern for entry in self.model)
            assert self.emitter.listener_count(pattern) == expected


TestEmitter = EmitterMachine.TestCase
TestEmitter.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
