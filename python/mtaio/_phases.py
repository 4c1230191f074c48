"""Where an application is in its life, and how that ended."""

import enum


class Phase(enum.StrEnum):
    """Where an application is in its one life; they follow in this order."""

    NEW = "new"
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STOPPING = "stopping"
    STOPPED = "stopped"


class ExitCode(enum.IntEnum):
    """What `Application.run` returns, for `sys.exit`."""

    CLEAN = 0
    """Asked to stop, and everything stopped in time."""
    START_FAILED = 1
    """A component did not start; `run` raises `StartupError` instead."""
    BAD_SETTINGS = 2
    """For callers that read `Settings`; `run` itself never returns it."""
    UNCLEAN = 3
    """Work was abandoned, a component was cut off at its deadline, or the process
    had to be ended: see `ends_process` of `Application.run`."""
    CRASHED = 4
    """A component or a critical background task ended by an error."""
