"""Limits and timeouts."""

from ._timeouts import TimeoutContext, TimeoutGroup, TimeoutManager

__all__ = ("TimeoutContext", "TimeoutGroup", "TimeoutManager")
