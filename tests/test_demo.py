"""The demo's own side: who may ask what, and what each button does."""

import asyncio
import contextlib
import re
import sys
import threading
import time

import pytest

from demo_process import PATIENCE, Demo, exchange, request, wait_for
from mtaio._demo import http
from mtaio._demo.command import demo_settings
from mtaio._demo.journal import MOST_ENTRIES, Journal
from mtaio._demo.page import reachable
from mtaio.app import ExitCode
from mtaio.monitoring import ProbeServer

HELD_BY_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    with Demo(tmp_path_factory.mktemp("demo")) as running:
        yield running


def post(demo, path="/actions/stock", body=b'{"broken": true}', **headers):
    return request(demo.page + path, body, **headers)


def own(demo, **others):
    return {"Origin": demo.page, "X-Mtaio-Demo": "1"} | others


# The page


def test_the_page_allows_itself_nothing_but_this_machine(demo):
    answer = request(demo.page)

    policy = dict(
        rule.split(" ", 1)
        for rule in answer.headers["Content-Security-Policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": f"'self' {demo.probes} {demo.service}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"


def test_all_that_the_page_names_is_served_and_nothing_from_elsewhere(demo):
    seen, names = {}, ["/"]
    while names:
        name = names.pop()
        seen[name] = request(demo.page + name)
        assert seen[name].status == 200, name
        found = re.findall(
            r'(?:href|src)="([^"#]+)"|from "\.(/[^"]+)"', seen[name].text
        )
        names += {"".join(pair) for pair in found} - {*seen, *names}

    assert {"/main.js", "/charts.js", "/style.css", "/icon.svg"} <= set(seen)
    kinds = {name: answer.headers["Content-Type"] for name, answer in seen.items()}
    assert kinds["/main.js"] == "text/javascript; charset=utf-8"
    page = seen["/"].text
    assert not re.search(r"https?:|\son\w+=|\sstyle=|<style|<script(?! type)", page)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(",
        "".join(answer.text for answer in seen.values()),
    )


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/nothing",
            "/index.html",
            "/../http.py",
            "/%2e%2e/http.py",
            "/static/main.js",
        ),
        *("//main.js", "/main.js/", "/http.py", "/style.css%00"),
    ],
)
def test_other_paths_are_not_there(demo, path):
    sent = f"GET {path} HTTP/1.1\r\nHost: {demo.page[7:]}\r\n\r\n"

    assert exchange(demo.page, sent.encode())[0] == 404


def test_another_name_for_this_machine_is_not_the_page(demo):
    port = demo.page.rpartition(":")[2]
    for name in ("evil.example", f"evil.example:{port}", f"127.0.0.1.evil:{port}", ""):
        sent = f"GET /state HTTP/1.1\r\nHost: {name}\r\n\r\n"
        assert exchange(demo.page, sent.encode())[0] == 421, name

    assert exchange(demo.page, b"GET / HTTP/1.1\r\n\r\n")[0] == 421
    # One origin, which the probes know: the other name leads to it.
    moved = request(f"http://localhost:{port}/")
    assert moved.status == 200
    assert "Content-Security-Policy" in moved.headers
    # With all that was asked for: without, the state tells what has happened so far.
    state = request(f"http://localhost:{port}/state?after=1000000").document
    assert state["entries"] == []


@pytest.mark.parametrize("target", ["@evil.example/", ".evil", "", "*", "http://a/"])
def test_a_target_that_is_no_path_leads_nowhere(demo, target):
    port = demo.page.rpartition(":")[2]
    for host in ("localhost", "127.0.0.1"):
        sent = f"GET {target} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n"
        assert exchange(demo.page, sent.encode())[0] == 400, target


def test_the_probes_let_this_page_read_them_and_no_other(demo):
    answer = demo.probe("livez")

    assert answer.headers["access-control-allow-origin"] == demo.page


# Who may press a button


@pytest.mark.parametrize(
    ("headers", "told"),
    [
        ({}, "origin must be"),
        ({"X-Mtaio-Demo": "1"}, "origin must be"),
        ({"X-Mtaio-Demo": "1", "Origin": "null"}, "origin must be"),
        ({"X-Mtaio-Demo": "1", "Origin": "https://evil.example"}, "got 'https://evil"),
        ({"X-Mtaio-Demo": "1", "Origin": "{probes}"}, "origin must be"),
        ({"Origin": "{page}"}, "the header x-mtaio-demo must be 1"),
        ({"Origin": "{page}", "X-Mtaio-Demo": "yes"}, "x-mtaio-demo must be 1"),
    ],
)
def test_other_sites_can_press_no_button(demo, headers, told):
    given = {
        name: value.format(page=demo.page, probes=demo.probes)
        for name, value in headers.items()
    }

    answer = post(demo, **given)

    assert answer.status == 403
    assert told in answer.text
    assert demo.state()["stock_broken"] is False


def test_no_other_site_may_even_ask_whether_it_may(demo):
    answer = post(
        demo,
        body=None,
        method="OPTIONS",
        **{
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-mtaio-demo",
        },
    )

    assert answer.status == 405
    assert not [n for n in answer.headers if n.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("action", "body", "told"),
    [
        ("block", "{}", "seconds must be a number above 0 and at most 10, got None"),
        ("block", '{"seconds": 0}', "got 0"),
        ("block", '{"seconds": -1}', "got -1"),
        ("block", '{"seconds": 10.1}', "at most 10, got 10.1"),
        ("block", '{"seconds": true}', "got True"),
        ("block", '{"seconds": "3"}', "got '3'"),
        ("block", '{"seconds": NaN}', "got nan"),
        ("block", '{"seconds": 1e999}', "got inf"),
        ("hold", '{"seconds": 7}', "at most 6, got 7"),
        ("flood", '{"seconds": 31}', "at most 30, got 31"),
        ("stock", "{}", "broken must be true or false, got None"),
        ("stock", '{"broken": 1}', "broken must be true or false, got 1"),
        ("stock", "[]", "the body must be a JSON object, got []"),
        ("stock", "{", "the body must be JSON: Expecting"),
        ("stock", b"\xff\xfe\xff", "the body must be JSON: 'utf"),
        ("stock", "[" * 4000, "the body must be JSON"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(demo, action, body, told):
    sent = body if isinstance(body, bytes) else body.encode()

    answer = post(demo, f"/actions/{action}", sent, **own(demo))

    assert answer.status == 400
    assert told in answer.text
    assert demo.state()["stock_broken"] is False


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/actions/", 404),
        ("POST", "/actions/reboot", 404),
        ("POST", "/actions/stock/x", 404),
        ("GET", "/actions/stock", 405),
        ("POST", "/", 405),
        ("POST", "/state", 405),
        ("DELETE", "/main.js", 405),
        ("GET", "/state?after=-1", 400),
        ("GET", "/state?after=x", 400),
        ("GET", "/state?after=1&after=%FF", 400),
    ],
)
def test_what_is_not_offered_is_refused(demo, method, path, status):
    body = b"{}" if method == "POST" else None

    answer = request(demo.page + path, body, method, **own(demo))

    assert answer.status == status
    assert ("Allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        ("Content-Length: 4097", 413),
        ("Content-Length: 99999999999999999999", 413),
        ("Content-Length: -1", 400),
        ("Content-Length: ten", 400),
        ("Transfer-Encoding: chunked", 400),
        (f"X: {'x' * 20_000}", 431),
    ],
)
def test_what_is_too_much_is_refused_unread(demo, lines, status):
    head = f"POST /actions/stock HTTP/1.1\r\nHost: {demo.page[7:]}\r\n{lines}\r\n\r\n"

    assert exchange(demo.page, head.encode())[0] == status


@pytest.mark.parametrize(
    "head",
    [
        *("", "GET", "GET / HTTP/2.0", "GET  / HTTP/1.1", "\0"),
        # A line of the log, or a header of the answer, made by who asks.
        "GET /\nX-Injected:1 HTTP/1.1\r\nHost: localhost:{port}",
        "GET / HTTP/1.1\r\nX-Request-Id: 1\n2026-01-01 forged",
        "GET / HTTP/1.1\r\nX-Request-Id: 1\rforged",
    ],
)
def test_what_is_no_http_is_refused(demo, head):
    for url in (demo.page, demo.service):
        sent = head.format(port=url.rpartition(":")[2]) + "\r\n\r\n"
        assert exchange(url, sent.encode()) == (400, "")


# What the buttons do


def answers_within(url, seconds):
    """Whether it answers before that; a thread, since it may take longer."""
    done = threading.Event()

    def ask():
        request(url)
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    return done.wait(seconds)


def asked_for_ever(url):
    """Ask from now on; a function that ends it, and gives each answer's span."""
    spans, enough = [], threading.Event()

    def ask():
        while not enough.is_set():
            begun = time.monotonic()
            assert request(url).status == 200
            spans.append((begun, time.monotonic()))

    thread = threading.Thread(target=ask)
    thread.start()

    def end():
        enough.set()
        thread.join(PATIENCE)
        return spans

    return end


def test_while_the_loop_is_blocked_page_and_probes_answer(demo):
    seen = demo.newest

    assert demo.act("block", seconds=6).status == 202

    stall = demo.told("has not run for", seen)
    assert "read_from_a_slow_disk" in stall["detail"]
    assert stall["source"] == "watchdog"
    assert demo.probe("livez").status == demo.probe("readyz").status == 200
    assert demo.metric("mtaio_watchdog_stalled") == 1
    assert demo.metric("mtaio_watchdog_lag_seconds") > 0.5
    assert not answers_within(f"{demo.service}/items/1", 0.2)
    # Past its limit it is not fit to live, and that is told while it is stuck.
    wait_for(lambda: demo.probe("livez").status == 503, "still fit to live")
    assert not [e for e in demo.state(seen)["entries"] if "runs again" in e["text"]]
    demo.told("runs again after", seen)
    assert demo.probe("livez").status == 200
    assert request(f"{demo.service}/items/1").status == 200


@pytest.mark.skipif(not HELD_BY_GIL, reason="without a GIL nothing is held")
def test_while_c_code_holds_the_interpreter_the_probes_answer(demo):
    seen = demo.newest
    page = asked_for_ever(f"{demo.page}/state")
    probes = asked_for_ever(f"{demo.probes}/readyz")

    assert demo.act("hold", seconds=4).status == 202

    demo.told("the interpreter was held", seen)
    # While the page owed one answer, the probes gave many.
    begun, ended = max(page(), key=lambda span: span[1] - span[0])
    meanwhile = [span for span in probes() if begun < span[0] and span[1] < ended]
    assert ended - begun > 1
    assert len(meanwhile) > 3


def test_a_broken_dependency_fails_readiness_until_it_mends(demo):
    seen = demo.newest

    demo.act("stock", broken=True)

    wait_for(lambda: demo.probe("readyz").status == 503, "still ready")
    for check in ("stock", "items"):
        demo.told(f"check {check} went from healthy to unhealthy", seen)
    checks = demo.probe("healthz").document["checks"]
    (stock,), (items,) = checks["stock"], checks["items"]
    assert stock["status"] == "fail"
    assert "answered 503" in stock["output"]
    assert items["causes"] == ["stock"]
    assert demo.probe("livez").status == 200
    alerts = [e["text"] for e in demo.state(seen)["entries"] if "alert:" in e["text"]]
    assert [text for text in alerts if "stock" in text]
    assert not [text for text in alerts if "items" in text]
    # What isn't in the cache can't be made; what is, is served.
    wait_for(lambda: request(f"{demo.service}/items/4999").status == 502, "was made")

    demo.act("stock", broken=False)

    wait_for(lambda: demo.probe("readyz").status == 200, "not ready again")
    assert request(f"{demo.service}/items/4999").status == 200


def test_a_flood_is_refused_and_the_alert_clears(demo):
    seen, refused = demo.newest, demo.metric("mtaio_demo_limiter_refused_total")

    demo.act("flood", seconds=4)
    demo.act("flood", seconds=4)  # one at a time; the second is nothing

    demo.told("alert: limiter_waiting", seen)
    wait_for(
        lambda: demo.metric("mtaio_demo_limiter_refused_total") > refused, "all let in"
    )
    demo.told("cleared: limiter_waiting", seen)
    demo.told("the impatient clients are gone", seen)
    floods = [e for e in demo.state(seen)["entries"] if "impatient" in e["text"]]
    assert len(floods) == 2


def ended(state):
    return state if state["exit_code"] is not None else None


def test_a_drain_fails_readiness_first_and_answers_what_is_under_way(tmp_path):
    with Demo(tmp_path, DRAIN_DELAY=3) as demo:
        assert demo.act("stop").status == 202

        wait_for(lambda: demo.probe("readyz").status == 503, "still ready")
        # From within the signal's handler, so before the loop hears of it.
        wait_for(lambda: demo.state()["phase"] == "draining", "no drain")
        assert demo.state()["in_flight"] >= 5
        assert request(f"{demo.service}/items/1").status == 200
        assert demo.act("block", seconds=1).status == 409
        # The page outlives the rest by one last look, and no more.
        last = wait_for(lambda: ended(demo.state()), "no end was told")
        assert last["exit_code"] == 0
        texts = [entry["text"] for entry in last["entries"]]
        assert texts[-1] == "stopped with exit code 0 (clean)"
        for number in range(1, 6):
            slow = rf"slow request {number} answered after [\d.]+ s, while stopping"
            assert any(re.fullmatch(slow, text) for text in texts), texts
        output = demo.rest()
        assert demo.process.returncode == ExitCode.CLEAN
        assert "asked and answered" in output


def test_a_stop_is_asked_for_while_the_loop_is_blocked(tmp_path):
    with Demo(tmp_path, DRAIN_DELAY=0) as demo:
        demo.act("block", seconds=5)
        demo.told("has not run for")

        demo.act("stop")

        wait_for(lambda: demo.probe("readyz").status == 503, "still ready")
        assert demo.metric("mtaio_watchdog_stalled") == 1
        demo.rest()
        assert demo.process.returncode == ExitCode.CLEAN


# The parts


@pytest.mark.parametrize(
    ("environ", "delay"),
    [
        ({}, 2.0),
        ({"MTAIO_DRAIN_DELAY": "0"}, 0.0),
        ({"MTAIO_DRAIN_DELAY": "7"}, 7.0),
        ({"MTAIO_GRACE_PERIOD": "1"}, 0.5),
        ({"MTAIO_SETTINGS_FILE": "{file}"}, 4.0),
    ],
)
def test_a_drain_lasts_long_enough_to_be_seen_unless_told(tmp_path, environ, delay):
    file = tmp_path / "settings"
    file.write_text("MTAIO_DRAIN_DELAY=4\n")

    given = {name: value.format(file=file) for name, value in environ.items()}

    assert demo_settings(given).drain_delay == delay


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://localhost:80"),
        ("::1", "http://localhost:80"),
        ("10.1.2.3", "http://10.1.2.3:80"),
    ],
)
def test_a_browser_is_told_an_address_that_it_can_ask(host, url):
    assert reachable(ProbeServer(host, 80)) == url


async def fine(request):
    return http.Response(200, request.path.encode())


@pytest.fixture
async def serving():
    """Starts servers; the demo itself runs them on a loop that Windows' isn't."""
    if sys.platform == "win32":
        pytest.skip("the default loop can't watch a socket")
    servers = []

    async def serve(handler):
        server = http.Server(handler)
        await server.start()
        servers.append(server)
        return lambda: asyncio.open_connection(http.HOST, server.port)

    yield serve
    for server in servers:
        await server.stop()


async def test_a_server_holds_no_more_connections_than_it_may(serving, monkeypatch):
    monkeypatch.setattr(http, "MOST_CONNECTIONS", 2)
    connect = await serving(fine)
    first, second, third = [await connect() for _ in range(3)]

    with contextlib.suppress(ConnectionError):
        assert await third[0].read() == b""

    assert (await http.ask(*first, "/1")).body == b"/1"
    assert (await http.ask(*second, "/2")).body == b"/2"
    for _, writer in (first, second, third):
        writer.close()


async def test_a_server_waits_for_nobody_for_ever(serving, monkeypatch):
    monkeypatch.setattr(http, "SLOWEST_REQUEST", 0.05)
    connect = await serving(fine)
    for sent in (b"", b"GET / HT", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nbody"):
        reader, writer = await connect()
        writer.write(sent)

        assert await reader.read() == b""
        writer.close()


async def test_a_handler_that_fails_is_an_answer_and_in_the_log(serving, caplog):
    async def handler(request):
        if request.path == "/broken":
            raise ZeroDivisionError
        return http.Response(200)

    reader, writer = await (await serving(handler))()

    assert (await http.ask(reader, writer, "/broken")).status == 500
    assert (await http.ask(reader, writer, "/")).status == 200
    assert "GET /broken could not be answered" in caplog.text
    writer.close()


def test_a_journal_keeps_the_newest_and_loses_none_of_several_threads():
    journal = Journal()

    def tell():
        for number in range(500):
            journal.tell("info", "action", str(number))

    threads = [threading.Thread(target=tell) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    kept = [entry.number for entry in journal.since(0)]
    assert kept == list(range(2001 - MOST_ENTRIES, 2001))
    assert [entry.number for entry in journal.since(1998)] == [1999, 2000]
    assert journal.since(2000) == []
