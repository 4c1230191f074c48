"""What happened, in order: told from any thread, read by the page."""

import itertools
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

# More than a page shows; older entries are in the log.
MOST_ENTRIES = 200

Level = Literal["info", "good", "warning", "bad"]


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened.

    Attributes:
        number: Counts up from 1.
        at: Seconds since 1970.
        level: How a page should colour it.
        source: Who told: `health`, `watchdog`, `action`, `application`.
        text: One line.
        detail: More lines, such as a stack; may be empty.
    """

    number: int
    at: float
    level: Level
    source: str
    text: str
    detail: str = ""


class Journal:
    """The newest entries. Any thread; never waits for more than another's append."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=MOST_ENTRIES)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def tell(self, level: Level, source: str, text: str, detail: str = "") -> None:
        """Add an entry, of now."""
        with self._lock:
            number = next(self._numbers)
            self._entries.append(
                Entry(number, time.time(), level, source, text, detail)
            )

    def since(self, number: int) -> list[Entry]:
        """Entries after that number, oldest first."""
        with self._lock:
            return [entry for entry in self._entries if entry.number > number]
