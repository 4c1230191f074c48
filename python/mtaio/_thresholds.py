"""When a value has gone too far, and when it has come back: pure functions."""

import enum
import math
from dataclasses import dataclass
from typing import TypeAlias

from . import _rust


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One threshold.

    Attributes:
        metric: The name it was set under.
        value: Past it (above, or below if `below`) the metric is too far.
        clear: Back at it, or farther back, the metric has recovered.
        for_seconds: How long it must be too far without a break to count.
        below: Too far is below `value`, not above.
    """

    metric: str
    value: float
    clear: float
    for_seconds: float
    below: bool

    def too_far(self, value: float) -> bool:
        """Whether `value` is past the threshold."""
        return value < self.value if self.below else value > self.value

    def recovered(self, value: float) -> bool:
        """Whether `value` is back at the clear level."""
        return value >= self.clear if self.below else value <= self.clear


class Change(enum.Enum):
    """What one value did."""

    EXCEEDED = "exceeded"
    CLEARED = "cleared"


@dataclass(frozen=True, slots=True)
class Quiet:
    """The metric is where it should be, or its value is unknown since then."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Too far without a break since then (monotonic seconds)."""

    since: float


@dataclass(frozen=True, slots=True)
class Exceeded:
    """Was too far for long enough, and has not come back to `clear`."""


State: TypeAlias = Quiet | Pending | Exceeded


def step(
    rule: Rule, state: State, value: float | None, now: float
) -> tuple[State, Change | None]:
    """The state after `value` at `now`, and the change that is to be told.

    An absent value tells nothing: what was exceeded stays so, and what was
    pending starts anew, for it was not seen to last.
    """
    if value is None or math.isnan(value):
        return (state if isinstance(state, Exceeded) else Quiet()), None
    if isinstance(state, Exceeded):
        if rule.recovered(value):
            return Quiet(), Change.CLEARED
        return state, None
    if not rule.too_far(value):
        return Quiet(), None
    since = state.since if isinstance(state, Pending) else now
    if now - since >= rule.for_seconds:
        return Exceeded(), Change.EXCEEDED
    return Pending(since), None


def rule(
    metric: str,
    value: object,
    *,
    clear: object,
    for_seconds: object,
    below: object,
) -> Rule:
    """A rule of checked arguments; see `ResourceMonitor.set_threshold`.

    Raises:
        TypeError: An argument is of the wrong type.
        ValueError: A level is not finite, `for_seconds` is negative, or `clear`
            is on the wrong side of `value`.
    """
    if not isinstance(below, bool):
        raise TypeError(f"below must be a bool, got {below!r}")
    level = _level("value", value)
    back = level if clear is None else _level("clear", clear)
    if (back < level) if below else (back > level):
        side = "at or above" if below else "at or below"
        raise ValueError(f"clear must be {side} value ({level}), got {back}")
    lasting = _rust.non_negative("for_seconds", for_seconds)
    return Rule(
        metric=metric, value=level, clear=back, for_seconds=lasting, below=below
    )


def _level(name: str, value: object) -> float:
    """A finite number of either sign: a gauge may well be negative."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        kind = type(value).__name__
        raise TypeError(f"{name} must be a finite number, got {value!r} ({kind})")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return float(value)
