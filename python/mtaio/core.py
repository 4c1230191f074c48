"""The executor, queues and a latch."""

from ._executor import TaskExecutor
from ._queues import AsyncQueue, Latch, LIFOQueue, PriorityQueue

__all__ = ("AsyncQueue", "LIFOQueue", "Latch", "PriorityQueue", "TaskExecutor")
