"""A small blocking HTTP client: exact bytes out, all bytes back."""

import contextlib
import socket


def exchange(probes, sent: bytes, *, timeout: float = 20.0) -> bytes:
    """Send raw bytes to a server, return all it answers until it closes."""
    with socket.create_connection((probes.host, probes.port), timeout) as client:
        # It may close in the middle of what it refuses.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.sendall(sent)
        return _rest(client)


def _rest(client: socket.socket) -> bytes:
    got = []
    try:
        while part := client.recv(65536):
            got.append(part)
    except ConnectionResetError:
        pass  # it closed with bytes of ours unread
    return b"".join(got)


def request(
    probes, path: str, *, method: str = "GET", accept: str = ""
) -> tuple[int, dict[str, str], str]:
    """One request: status, headers in lower case, body."""
    lines = [f"{method} {path} HTTP/1.1", "host: x", "connection: close"]
    if accept:
        lines.append(f"accept: {accept}")
    answer = exchange(probes, ("\r\n".join(lines) + "\r\n\r\n").encode())
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in rest)
    return int(first.split()[1]), headers, body.decode()


def status(answer: bytes) -> int:
    """The status of raw bytes; 0 when there are none."""
    return int(answer.split()[1]) if answer else 0
