"""W-TinyLFU as its paper has it, to judge the default policy by.

The libraries that offer it differ in what they add, so the policy itself is
simulated: slow, and with exact counts where a library has a sketch, which can
only raise its hits.

Source: Einziger, Friedman, Manes: "TinyLFU: A Highly Efficient Cache Admission
Policy", ACM Transactions on Storage, 2017.
"""

from collections import OrderedDict
from collections.abc import Hashable

# Of the room: the window's share, and the protected share of the rest.
_WINDOW = 0.01
_PROTECTED = 0.8
# Counts are of four bits, halved after ten requests for each place.
_MOST = 15
_PERIOD = 10


class WTinyLfu:
    """A cache of `size` entries: an LRU window before a segmented LRU."""

    def __init__(self, size: int) -> None:
        self._window_room = max(1, round(size * _WINDOW))
        self._main_room = size - self._window_room
        self._protected_room = int(self._main_room * _PROTECTED)
        self._window: OrderedDict[Hashable, object] = OrderedDict()
        self._probation: OrderedDict[Hashable, object] = OrderedDict()
        self._protected: OrderedDict[Hashable, object] = OrderedDict()
        self._counts: dict[Hashable, int] = {}
        self._until_halved = self._period = _PERIOD * size

    def get(self, key: Hashable) -> object | None:
        """The value of `key`, or None; either way it is counted."""
        self._count(key)
        for queue in (self._window, self._protected):
            if key in queue:
                queue.move_to_end(key)
                return queue[key]
        if key not in self._probation:
            return None
        value = self._protected[key] = self._probation.pop(key)
        if len(self._protected) > self._protected_room:
            demoted, held = self._protected.popitem(last=False)
            self._probation[demoted] = held
        return value

    def set(self, key: Hashable, value: object) -> None:
        """Take in a key that `get` did not find."""
        self._window[key] = value
        if len(self._window) <= self._window_room:
            return
        candidate, held = self._window.popitem(last=False)
        main = len(self._probation) + len(self._protected)
        if main >= self._main_room and not self._admits(candidate):
            return
        self._probation[candidate] = held

    def _admits(self, candidate: Hashable) -> bool:
        """Whether it is asked for more often than who would leave; then that left."""
        queue = self._probation or self._protected
        if not queue:
            return False
        victim = next(iter(queue))
        if self._counts.get(candidate, 0) <= self._counts.get(victim, 0):
            return False
        del queue[victim]
        return True

    def _count(self, key: Hashable) -> None:
        count = self._counts.get(key, 0)
        if count < _MOST:
            self._counts[key] = count + 1
        self._until_halved -= 1
        if self._until_halved == 0:
            halved = ((key, count // 2) for key, count in self._counts.items())
            self._counts = {key: count for key, count in halved if count}
            self._until_halved = self._period
