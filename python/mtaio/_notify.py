"""systemd's notification protocol: one datagram a message (see sd_notify(3))."""

import os
import socket
from collections.abc import Mapping


class Notifier:
    """Sends states to the socket systemd named; without one it does nothing.

    Args:
        environ: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID` are read.
    """

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        environ = os.environ if environ is None else environ
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog_seconds = _watchdog(environ) if self._address else None

    def send(self, *states: str) -> OSError | None:
        """Send states such as `READY=1`, or return why not. Never waits for systemd."""
        if not self._address:
            return None
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)
                sender.sendto("\n".join(states).encode(), self._address)
        except OSError as error:
            return error
        return None


def _address(given: str) -> str:
    if not given.startswith(("/", "@")) or not hasattr(socket, "AF_UNIX"):
        return ""  # nothing, or a transport (vsock) that a service in a VM may have
    # Linux names an abstract socket by a leading zero byte.
    return "\0" + given[1:] if given[0] == "@" else given


def _watchdog(environ: Mapping[str, str]) -> float | None:
    """Seconds within which systemd wants a sign of life from this process."""
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", "0"))
        for_pid = int(environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    if microseconds <= 0 or for_pid != os.getpid():
        return None
    return microseconds / 1e6
