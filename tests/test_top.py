"""The live view: readable figures and rates, from any page of metrics."""

import contextlib
import io
import math
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading

import pytest

from mtaio import _top
from mtaio._top import Page, Row, figure, lines, look, top
from mtaio.exceptions import MonitoringError
from mtaio.monitoring import Distribution, MetricFamily, ProbeServer

if sys.platform != "win32":
    import fcntl
    import pty
    import termios


def publish(probes, jobs):
    probes.publish(ready=True, startup="loading")
    probes.publish_metrics(
        [
            MetricFamily("counter", "jobs", "Jobs.", [({"queue": "[red]a"}, jobs)]),
            MetricFamily("gauge", "memory", "RSS.", 5 * 1024 * 1024, unit="bytes"),
            MetricFamily(
                "summary",
                "lag",
                "Lag.",
                Distribution(3, 0.5, {0.99: 0.002}),
                unit="seconds",
            ),
            MetricFamily("histogram", "wait", "Wait.", Distribution(4, 2.0, {0.1: 1})),
        ]
    )


@pytest.fixture
def probes():
    server = ProbeServer()
    publish(server, 10)
    server.start()
    yield server
    server.stop()


def shown(probes, **options):
    file = io.StringIO()
    top(probes.url, file=file, **options)
    return file.getvalue()


def test_a_page_shows_metrics_in_units_and_probes_by_name(probes):
    text = shown(probes, count=1)

    for part in ("jobs", "queue=[red]a", "5.0 MiB", "2 ms", "count 4", probes.url):
        assert part in text
    for probe in ("livez", "readyz", "startupz"):
        assert probe in text
    assert "_bucket" not in text
    assert "le=0.1" not in text


def test_a_counter_shows_how_fast_it_grows():
    def page(at, value):
        row = Row("jobs", "counter", "", "jobs_total", (("a", "b"),), value)
        return Page(at, (row,))

    assert list(lines(page(1.0, 10.0), None)) == [("jobs", "a=b", "10", "")]
    (grown,) = lines(page(3.0, 50.0), page(1.0, 10.0))
    assert grown == ("jobs", "a=b", "50", "20")
    (restarted,) = lines(page(3.0, 5.0), page(1.0, 10.0))
    assert restarted == ("jobs", "a=b", "5", "")


def test_several_looks_follow_each_other(probes):
    text = shown(probes, count=3, interval=0.01)

    assert text.count(probes.url) == 3


def test_a_process_that_goes_away_is_shown_as_gone():
    probes = ProbeServer()
    publish(probes, 1)
    probes.start()
    url, file = probes.url, io.StringIO()
    threading.Timer(0.3, probes.stop).start()

    top(url, file=file, count=12, interval=0.1)

    assert "does not answer" in file.getvalue()


def test_rates_are_right_when_a_process_comes_back(monkeypatch):
    def page(at, value):
        row = Row("jobs", "counter", "", "jobs_total", (), value)
        return Page(at, (row,), {"livez": 200})

    before = page(1.0, 10.0)
    monkeypatch.setattr("mtaio._top.look", _unreachable)
    for _ in range(5):
        before = _top._look_again("http://x", before)

    assert before.probes == {}
    ((*_, rate),) = lines(page(11.0, 110.0), before)
    assert rate == "10"


def _unreachable(where):
    raise MonitoringError(where)


def test_only_the_metrics_asked_for_are_shown(probes):
    text = shown(probes, count=1, only="mem")

    assert "memory" in text
    assert "jobs" not in text
    assert "livez" in text


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\njobs 1\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n\xff\xfe\xfd\xfc\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 301 Moved\r\nlocation: /metrics\r\ncontent-length: 0\r\n\r\n",
    ],
)
def test_what_is_not_mtaio_is_an_error_that_names_it(answer):
    def serve():
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                client, _ = there.accept()
                with client:
                    client.recv(65536)
                    client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as there:
        url = f"http://127.0.0.1:{there.getsockname()[1]}"
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with pytest.raises(MonitoringError, match=url):
                top(url, count=1)
        finally:
            there.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_no_colour_where_no_terminal_is(probes):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mtaio", "top", probes.url),
            *("--count", "2", "--interval", "0.01"),
        ],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert "\x1b" not in done.stdout
    assert done.stdout.count(probes.url) == 2


class Terminal:
    """A terminal of a size, and all that a program wrote to it."""

    def __init__(self, arguments, rows, columns):
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
        # What started the tests may have it ignored, which is inherited.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        environment = {**os.environ, "TERM": "xterm", "PYTHONWARNINGS": "ignore"}
        for name in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mtaio", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
            close_fds=True,
        )
        os.close(theirs)
        self.written = ""

    def until(self, part, times=1):
        """Reads on until `part` was written, or the program ended."""
        with contextlib.suppress(OSError):  # the other end is closed
            while self.written.count(part) < times:
                self.written += os.read(self._ours, 65536).decode(errors="replace")

    def end(self):
        self.process.send_signal(signal.SIGINT)
        hangs = threading.Timer(30, self.process.kill)
        hangs.start()
        self.until("\0never")
        hangs.cancel()
        os.close(self._ours)
        return self.process.wait(30)


terminals = pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")


@terminals
@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (8, 30), (3, 10)])
def test_a_terminal_is_drawn_in_place_within_its_size(probes, rows, columns):
    many = [({"n": str(n)}, 1.0) for n in range(100)]
    probes.publish_metrics([MetricFamily("gauge", "many", "", many)], group="more")

    terminal = Terminal(["top", probes.url, "--interval", "0.05"], rows, columns)
    terminal.until("\x1b[1;1H", times=3)
    code = terminal.end()

    assert code == 0, terminal.written[-2000:]
    # The other screen is left, so that the terminal is as it was.
    entered, drawn = terminal.written.split("\x1b[?1049h")
    drawn, left = drawn.split("\x1b[?1049l")
    assert "Traceback" not in entered + drawn + left
    lines = {int(line) for line in re.findall(r"\x1b\[(\d+);1H", drawn)}
    assert lines == set(range(1, rows + 1))
    assert "… and more" in drawn
    assert "\n" not in drawn


@terminals
def test_the_terminal_is_given_back_however_early_it_is_left(probes):
    terminal = Terminal(["top", probes.url], 24, 80)
    terminal.until("\x1b[?1049h")
    code = terminal.end()

    assert code == 0
    assert terminal.written.count("\x1b[?1049l") == 1


@terminals
def test_a_view_that_fits_says_so_by_saying_nothing(probes):
    terminal = Terminal(["top", probes.url, "--interval", "0.05"], 60, 120)
    terminal.until("memory")
    terminal.end()

    assert "--only" not in terminal.written
    assert "5.0 MiB" in terminal.written


def test_both_text_formats_are_read(probes, monkeypatch):
    newer = look(probes.url)
    monkeypatch.setattr("mtaio._top._ACCEPT", "text/plain")
    older = look(probes.url)

    def flat(page):
        return {(row.key, row.value) for row in page.rows}

    assert flat(newer) == flat(older)
    assert newer.probes == {"livez": 200, "readyz": 200, "startupz": 503}


def test_nobody_there_is_an_error_that_names_the_address(probes):
    url = probes.url
    probes.stop()

    with pytest.raises(MonitoringError, match=f"no metrics from {url}"):
        top(url, count=1)


def test_a_page_that_is_no_metrics_is_an_error(probes, monkeypatch):
    monkeypatch.setattr("mtaio._top._fetch", lambda url: (200, "<html>\n"))

    with pytest.raises(MonitoringError, match="no metrics from"):
        look(probes.url)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "", "0"),
        (1234567, "", "1,234,567"),
        (0.25, "ratio", "25.0%"),
        (33.333, "percent", "33.3%"),
        (1023, "bytes", "1,023 bytes"),
        (1536, "bytes", "1.5 KiB"),
        (3 * 2**40, "bytes", "3.0 TiB"),
        (0.0123, "seconds", "12.3 ms"),
        (90, "seconds", "90 seconds"),
        (math.nan, "seconds", "nan seconds"),
        (math.inf, "bytes", "inf PiB"),
    ],
)
def test_figures_are_for_people(value, unit, text):
    assert figure(value, unit, "x") == text


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "url must be like", {"url": "ftp://x"}),
        (ValueError, "url must be like", {"url": "127.0.0.1:80"}),
        (ValueError, "url must be like", {"url": "http://127.0.0.1:99999"}),
        (ValueError, "url must be like", {"url": "http://127.0.0.1:x"}),
        (ValueError, "url must be like", {"url": "http://[::1"}),
        (ValueError, "url must be non-empty text", {"url": ""}),
        (TypeError, "url must be non-empty text", {"url": None}),
        (ValueError, "interval must be a finite", {"interval": 0}),
        (ValueError, "interval must be a finite", {"interval": math.nan}),
        (TypeError, "interval must be a finite", {"interval": True}),
        (ValueError, "count must be an int >= 1", {"count": 0}),
        (TypeError, "count must be an int >= 1", {"count": 1.0}),
    ],
)
def test_arguments_are_checked(error, message, arguments):
    with pytest.raises(error, match=message):
        top(**({"url": "http://127.0.0.1:1"} | arguments))
