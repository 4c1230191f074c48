"""Shared by all tests: a virtual-time runner, and no leftovers between tests."""

import pytest

import virtual_time


@pytest.fixture
def clock() -> virtual_time.VirtualClock:
    """A clock that stands still until a test moves it."""
    return virtual_time.VirtualClock()
