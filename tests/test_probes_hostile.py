"""Whatever clients send: bounded, never a crash, other probes still answered."""

import gc
import random
import socket
import time

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mtaio.monitoring import MetricFamily, ProbeServer
from probe_client import exchange, request, status


@pytest.fixture
def probes():
    server = ProbeServer(header_timeout=0.3, max_header_bytes=2048)
    server.start()
    yield server
    assert request(server, "/livez")[0] == 200  # whatever came before
    server.stop()


@pytest.fixture(scope="module")
def lasting():
    server = ProbeServer(header_timeout=0.2)
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(
    "path", ["/", "/livez/", "/LIVEZ", "//livez", "/livez%20", "/metrics/x", "*"]
)
def test_other_paths_are_not_found(probes, path):
    assert request(probes, path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "X"])
def test_other_methods_are_refused_by_name(probes, method):
    got, headers, _ = request(probes, "/livez", method=method)

    assert (got, headers["allow"]) == (405, "GET, HEAD")


def test_head_has_the_length_but_no_body(probes):
    _, of_get, body = request(probes, "/livez")
    got, of_head, nothing = request(probes, "/livez", method="HEAD")

    assert (got, nothing) == (200, "")
    assert of_head["content-length"] == of_get["content-length"] == str(len(body))


@pytest.mark.parametrize(
    "target",
    [
        "/livez?verbose&x=1",
        "http://x/livez",
        "http://x:1/livez?y",
        "HTTP://[::1]/livez",
    ],
)
def test_a_query_and_an_absolute_target_are_the_same_path(probes, target):
    assert request(probes, target)[0] == 200


def test_http_1_0_is_answered_and_closed(probes):
    answer = exchange(probes, b"GET /livez HTTP/1.0\r\n\r\n")

    assert answer.startswith(b"HTTP/1.0 200 OK")
    assert answer.endswith(b'{"status":"pass"}')


def test_a_connection_is_kept_for_the_next_request(probes):
    one = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
    last = b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"

    answer = exchange(probes, one * 5 + last)

    assert answer.count(b"HTTP/1.1 200 OK") == 6


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /livez HTTP/9.9\r\n\r\n",
        b"\r\n\r\n\x00\x00",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"GET /livez HTTP/1.1\r\n: x\r\n\r\n",
        bytes(range(256)) * 4,
    ],
)
def test_garbage_is_400_or_silence(probes, sent):
    assert status(exchange(probes, sent)) in {0, 400}


def test_oversized_heads_are_431_or_414(probes):
    huge = b"a" * 1_000_000

    in_header = exchange(probes, b"GET /livez HTTP/1.1\r\nx: " + huge)
    in_path = exchange(probes, b"GET /" + huge)
    many = exchange(probes, b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 2000)

    assert status(in_header) == 431
    assert status(in_path) in {414, 431}
    assert status(many) == 431


def test_a_body_is_never_waited_for(probes):
    head = b"GET /livez HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000000\r\n\r\n"

    assert status(exchange(probes, head)) == 200


@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize(
    "body",
    [
        b"content-length: 9223372036854775807\r\n\r\n",
        b"transfer-encoding: chunked\r\n\r\nffffffff\r\n" + b"x" * 100_000,
        b"transfer-encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 20_000,
        b"expect: 100-continue\r\ncontent-length: 10\r\n\r\n",
    ],
    ids=["huge", "one chunk", "many chunks", "expect"],
)
def test_a_body_that_never_ends_is_answered_and_not_kept(probes, method, body):
    before = psutil.Process().memory_info().rss

    answer = exchange(probes, method + b" /livez HTTP/1.1\r\nhost: x\r\n" + body)

    assert status(answer) == (200 if method == b"GET" else 405)
    assert psutil.Process().memory_info().rss - before < 8 * 1024 * 1024


@pytest.mark.parametrize("path", ["/livez", "/metrics"])
def test_who_has_closed_its_sending_side_is_answered_whole(probes, path):
    labels = [({"n": str(n)}, 1.0) for n in range(2000)]
    probes.publish_metrics([MetricFamily("gauge", "big", "", labels)])
    _, _, body = request(probes, path)

    for _ in range(20):
        with socket.create_connection((probes.host, probes.port), 20) as client:
            client.sendall(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            client.shutdown(socket.SHUT_WR)
            with client.makefile("rb") as answer:
                assert answer.read().endswith(body.encode())


def test_requests_sent_ahead_are_answered_in_order(probes):
    paths = [b"/livez", b"/readyz", b"/none"] * 50
    sent = [b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % path for path in paths]

    answer = exchange(probes, b"".join(sent))

    statuses = [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]
    assert statuses == [200, 503, 404] * 50


def test_a_flood_sent_ahead_and_never_read_is_bounded():
    server = ProbeServer(header_timeout=0.5)
    labels = [({"n": str(n)}, 1.0) for n in range(2000)]
    server.publish_metrics([MetricFamily("gauge", "big", "", labels)])
    server.start()
    flood = b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 2000
    stuck = [socket.create_connection((server.host, server.port)) for _ in range(30)]
    before = psutil.Process().memory_info().rss
    try:
        for client in stuck:
            client.setblocking(False)
            client.send(flood)

        answers = [request(server, "/livez")[0] for _ in range(20)]
        grown = psutil.Process().memory_info().rss - before
    finally:
        for client in stuck:
            client.close()
        server.stop()

    # A page for each connection at most, never one for each request.
    assert answers == [200] * 20
    assert grown < 64 * 1024 * 1024


def test_a_slow_head_is_408_after_its_time(probes):
    began = time.monotonic()

    answer = exchange(probes, b"GET /livez HTTP/1.1\r\nhos")

    assert status(answer) == 408
    assert time.monotonic() - began >= 0.25


def test_a_dripping_client_is_cut_off_too(probes):
    with socket.create_connection((probes.host, probes.port), 20) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        ended = False
        for _ in range(200):  # a header byte every 20 ms: each in time, never whole
            try:
                client.sendall(b"x")
                client.settimeout(0.02)
                ended = client.recv(100)[:12] in {b"HTTP/1.1 408", b""}
            except TimeoutError:
                continue
            except OSError:
                ended = True
            break

    assert ended


def test_an_idle_connection_ends_in_silence(probes):
    assert exchange(probes, b"") == b""


def test_a_thousand_idle_connections_leave_room_for_a_probe():
    server = ProbeServer(max_connections=64, header_timeout=60)
    server.start()
    process = psutil.Process()
    idle = []
    before = process.memory_info().rss

    try:
        for _ in range(1000):
            client = socket.create_connection((server.host, server.port), 20)
            idle.append(client)
            client.sendall(b"GET /livez HTT")
        answers = [request(server, "/livez")[0] for _ in range(20)]
        grown = process.memory_info().rss - before
        # The other half of each pair is ours.
        open_here = len(process.net_connections("tcp")) - len(idle)
    finally:
        for client in idle:
            client.close()
        server.stop()

    assert answers == [200] * 20
    assert grown < 32 * 1024 * 1024
    assert open_here < 200


def test_a_reader_that_never_reads_is_not_waited_for(probes):
    labels = [({"n": str(n)}, 1.0) for n in range(20_000)]
    probes.publish_metrics([MetricFamily("gauge", "big", "", labels)])
    stuck = [
        socket.create_connection((probes.host, probes.port), 20) for _ in range(20)
    ]
    try:
        for client in stuck:
            client.sendall(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")

        assert request(probes, "/livez")[0] == 200
        began = time.monotonic()
        probes.stop()
        assert time.monotonic() - began < 2.0
        probes.start()
    finally:
        for client in stuck:
            client.close()


def test_connections_torn_down_at_once_leak_nothing(probes):
    process = psutil.Process()
    request(probes, "/livez")
    gc.collect()
    before = process.num_fds()

    for n in range(300):
        client = socket.create_connection((probes.host, probes.port), 20)
        if n % 2:
            client.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
        # RST instead of FIN.
        client.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00"
        )
        client.close()
    for _ in range(100):
        if process.num_fds() <= before:
            break
        time.sleep(0.05)

    assert process.num_fds() <= before


TOKENS = [
    b"GET ",
    b"HEAD ",
    b"/livez",
    b"/metrics",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b"\r\n",
    b"\n",
    b"host: x\r\n",
    b"content-length: 5\r\n",
    b"transfer-encoding: chunked\r\n",
    b"expect: 100-continue\r\n",
    b"upgrade: h2c\r\nconnection: upgrade\r\n",
    b"accept: application/openmetrics-text;q=\xff\r\n",
    b"\x00",
    b"0\r\n\r\n",
    b"\r\n\r\n",
]


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(parts=st.lists(st.sampled_from(TOKENS) | st.binary(max_size=40), max_size=14))
def test_any_bytes_give_whole_answers_and_leave_the_server_up(lasting, parts):
    answer = exchange(lasting, b"".join(parts) + b"\r\n\r\n")

    assert answer == b"" or answer.startswith((b"HTTP/1.1 ", b"HTTP/1.0 "))
    assert request(lasting, "/livez")[0] == 200


def test_random_bytes_never_bring_it_down(lasting):
    random.seed(6)
    for size in (1, 10, 100, 1000, 10_000, 100_000):
        exchange(lasting, random.randbytes(size) + b"\r\n\r\n")

    assert request(lasting, "/livez")[0] == 200
