"""`/livez` while its process is idle, busy, stuck: how long until the answer.

Four servers share one process whose event loop is put into each condition; a
client in another process asks them in turns, over a new connection each time as
an orchestrator does. Prints milliseconds, median and 99th percentile.

    python benches/probes.py
"""

import asyncio
import contextlib
import ctypes
import http.server
import random
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import prometheus_client

from mtaio.monitoring import ProbeServer, Watchdog

REQUEST = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    b"content-length: 17\r\nconnection: close\r\n\r\n" + b'{"status":"pass"}'
)
LIBC = ctypes.PyDLL(None)


def spin(seconds: float) -> None:
    """Pure Python: the interpreter changes hands every 5 ms."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


# What the loop does again and again, and for how many seconds it is watched.
CONDITIONS: dict[str, tuple[Callable[[], object], float]] = {
    "idle": (lambda: None, 5.0),
    "20 ms steps": (lambda: spin(0.020), 8.0),
    "C code holds the GIL": (lambda: LIBC.usleep(120_000), 12.0),
    "1.5 s block": (lambda: spin(1.5), 18.0),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "17")
        self.end_headers()
        self.wfile.write(b'{"status":"pass"}')

    def log_message(self, *args: object) -> None:
        pass


async def on_loop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(ANSWER)
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


def in_thread() -> int:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port


def of_prometheus_client() -> int:
    server, _ = prometheus_client.start_http_server(0, "127.0.0.1")
    return server.server_port


async def serve() -> None:
    """Start all servers, print their ports, and follow the conditions asked for."""
    probes, watchdog = ProbeServer(), Watchdog(3.0, fail_after=30.0)
    probes.add_watchdog(watchdog)
    async with probes, watchdog:
        loop_served = await asyncio.start_server(on_loop, "127.0.0.1", 0)
        print(
            probes.port,
            in_thread(),
            of_prometheus_client(),
            loop_served.sockets[0].getsockname()[1],
            flush=True,
        )
        condition = "idle"

        def follow() -> None:
            nonlocal condition
            for line in sys.stdin:
                condition = line.strip()
            condition = "end"

        threading.Thread(target=follow, daemon=True).start()
        while condition != "end":
            CONDITIONS[condition][0]()
            await asyncio.sleep(0.001)


def ask(port: int) -> float:
    """Milliseconds from connecting to the end of the answer."""
    begun = time.perf_counter()
    with socket.create_connection(("127.0.0.1", port), 30) as client:
        client.sendall(REQUEST)
        got = client.recv(4096)
        taken = time.perf_counter() - begun
    assert b" 200 " in got, got
    return taken * 1000


def measure(ports: dict[str, int], seconds: float) -> dict[str, list[float]]:
    taken: dict[str, list[float]] = {name: [] for name in ports}
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        for name, port in ports.items():
            # At a random moment of the condition.
            time.sleep(random.uniform(0.001, 0.025))
            taken[name].append(ask(port))
    return taken


def compare() -> None:
    server = subprocess.Popen(
        [sys.executable, __file__, "serve"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with server:
        assert server.stdin is not None
        assert server.stdout is not None
        names = ("mtaio", "Python thread", "prometheus_client", "on the loop")
        ports = dict(
            zip(names, map(int, server.stdout.readline().split()), strict=True)
        )
        for condition, (_, seconds) in CONDITIONS.items():
            print(condition, file=server.stdin, flush=True)
            time.sleep(0.3)
            print(f"\n/livez, {condition}: ms p50 (p99), against mtaio")
            taken = measure(ports, seconds)
            ours = statistics.median(taken["mtaio"])
            for name, values in taken.items():
                middle = statistics.median(values)
                last = statistics.quantiles(values, n=100)[-1]
                print(f"  {name:<20} {middle:9.3f} ({last:9.3f}) {middle / ours:9.1f}x")
        server.stdin.close()


async def heartbeat() -> None:
    """What being watched costs a loop, by the beat; a watched loop beats 4 times
    a second at least.
    """
    watchdog = Watchdog(3600.0)
    watchdog.watch()
    await asyncio.sleep(0)
    (pulse,) = watchdog._pulses.values()
    rounds = []
    for _ in range(200):
        begun = time.perf_counter()
        for _ in range(50):
            pulse.beat()
        rounds.append((time.perf_counter() - begun) / 50)
    watchdog.stop()
    print(f"\none heartbeat: {statistics.median(rounds) * 1e6:.2f} us")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        compare()
        asyncio.run(heartbeat())
