"""For async tests of limits on virtual time."""

import functools
import inspect

import pytest

import virtual_time


def on_virtual_time(test):
    """Run an async test, called with the clock, on a loop of virtual time."""

    @functools.wraps(test)
    def run(**fixtures):
        clock = virtual_time.VirtualClock()
        virtual_time.run(test(clock, **fixtures), clock)

    signature = inspect.signature(test)
    rest = [p for name, p in signature.parameters.items() if name != "clock"]
    run.__signature__ = signature.replace(parameters=rest)
    del run.__wrapped__
    return run


def about(seconds):
    """A time: rounded to nanoseconds, at a rate rounded by a grain per token."""
    return pytest.approx(seconds, abs=1e-7)
