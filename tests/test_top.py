"""The live view: readable figures and rates, from any page of metrics."""

import io
import math
import threading

import pytest

from mtaio._top import Page, Row, figure, lines, look, top
from mtaio.exceptions import MonitoringError
from mtaio.monitoring import Distribution, MetricFamily, ProbeServer


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
