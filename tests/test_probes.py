"""What is published is what is served; all of it or nothing."""

import json
import math
import socket
import threading

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from mtaio.exceptions import MonitoringError, ProbeError
from mtaio.monitoring import (
    Distribution,
    MetricFamily,
    ProbeCollector,
    ProbeServer,
    Watchdog,
)
from probe_client import request

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture
def probes():
    server = ProbeServer()
    server.start()
    yield server
    server.stop()


def every_kind():
    labels = {"queue": 'a "b"\\\nc', "zone": "é"}
    return [
        MetricFamily("gauge", "depth", 'Jobs "now"\\,\nall.', [(labels, -1.5)]),
        MetricFamily("counter", "sent_total", "Sent.", 3, unit="bytes"),
        MetricFamily(
            "summary", "lag", "Lag.", Distribution(3, 0.5, {0.9: 0.2}), unit="seconds"
        ),
        MetricFamily(
            "histogram",
            "wait",
            "Wait.",
            [(labels, Distribution(7, 9.0, {1.0: 4, 0.1: 1}))],
            unit="seconds",
        ),
    ]


def test_a_new_process_is_alive_but_neither_started_nor_ready(probes):
    answers = {
        path: request(probes, path)[0]
        for path in ("/livez", "/startupz", "/readyz", "/healthz", "/metrics")
    }

    assert answers == {
        "/livez": 200,
        "/startupz": 503,
        "/readyz": 503,
        "/healthz": 503,
        "/metrics": 200,
    }


@pytest.mark.parametrize(
    ("verdict", "status", "document"),
    [
        (True, 200, {"status": "pass"}),
        ([], 200, {"status": "pass"}),
        (False, 503, {"status": "fail"}),
        ("draining", 503, {"status": "fail", "notes": ["draining"]}),
        (("a", 'b "\n'), 503, {"status": "fail", "notes": ["a", 'b "\n']}),
    ],
)
@pytest.mark.parametrize("probe", ["live", "ready", "startup"])
def test_a_verdict_is_answered_with_its_reasons(
    probes, probe, verdict, status, document
):
    probes.publish(**{probe: verdict})

    got, headers, body = request(
        probes, f"/{probe.removesuffix('y') if probe != 'ready' else 'ready'}z"
    )

    assert (got, json.loads(body)) == (status, document)
    assert headers["content-type"] == "application/health+json"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("document", "healthy", "status"),
    [
        ({"status": "pass"}, None, 200),
        ({"status": "degraded", "é": [1, None]}, None, 200),
        ({}, None, 200),
        ({"status": "unhealthy"}, None, 503),
        ({"status": "fail"}, None, 503),
        ({"status": "fail"}, True, 200),
        ({"status": "pass"}, False, 503),
    ],
)
def test_healthz_is_the_document(probes, document, healthy, status):
    probes.publish(health=document, healthy=healthy)

    got, _, body = request(probes, "/healthz")

    assert (got, json.loads(body)) == (status, document)


def test_a_reader_sees_all_of_a_publish_or_none(probes):
    stop = threading.Event()

    def flip():
        while not stop.is_set():
            for word in ("odd", "even"):
                probes.publish(live=word, ready=word, health={"word": word})

    writer = threading.Thread(target=flip)
    probes.publish(live="odd", ready="odd", startup=True, health={"word": "odd"})
    writer.start()
    try:
        for _ in range(300):
            # /healthz is one answer of one snapshot; so is /livez.
            body = request(probes, "/livez")[2]
            assert json.loads(body)["notes"] in (["odd"], ["even"])
    finally:
        stop.set()
        writer.join()


def test_openmetrics_is_read_back_by_a_strict_parser(probes):
    probes.publish_metrics(every_kind())

    _, headers, body = request(probes, "/metrics", accept=OPENMETRICS)
    families = {family.name: family for family in parse_openmetrics(body)}

    assert headers["content-type"].startswith("application/openmetrics-text")
    assert body.endswith("# EOF\n")
    assert {name: (f.type, f.unit) for name, f in families.items()} == {
        "depth": ("gauge", ""),
        "sent_bytes": ("counter", "bytes"),
        "lag_seconds": ("summary", "seconds"),
        "wait_seconds": ("histogram", "seconds"),
    }
    assert families["depth"].documentation == 'Jobs "now"\\,\nall.'
    sample = families["depth"].samples[0]
    assert sample.labels == {"queue": 'a "b"\\\nc', "zone": "é"}
    assert sample.value == -1.5


def test_the_older_format_is_the_default_and_says_the_same(probes):
    probes.publish_metrics(every_kind())

    _, headers, body = request(probes, "/metrics")
    families = {family.name: family for family in parse_prometheus(body)}

    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "# EOF" not in body
    assert "# UNIT" not in body
    assert {name: f.type for name, f in families.items()} == {
        "depth": "gauge",
        "sent_bytes": "counter",
        "lag_seconds": "summary",
        "wait_seconds": "histogram",
    }
    assert families["depth"].documentation == 'Jobs "now"\\,\nall.'
    assert families["sent_bytes"].samples[0].name == "sent_bytes_total"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e-320, -0.0])
@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_a_gauge_holds_any_float(probes, value, accept):
    probes.publish_metrics([MetricFamily("gauge", "x", "", value)])

    _, _, body = request(probes, "/metrics", accept=accept)
    parse = parse_openmetrics if accept else parse_prometheus
    (family,) = parse(body)

    got = family.samples[0].value
    assert got == value or (math.isnan(got) and math.isnan(value))


def test_groups_are_replaced_one_by_one(probes):
    probes.publish_metrics([MetricFamily("gauge", "a", "", 1)], group="x")
    probes.publish_metrics([MetricFamily("gauge", "b", "", 1)], group="y")
    probes.publish_metrics([MetricFamily("gauge", "c", "", 1)], group="x")
    names = [family.name for family in probes.families()]
    probes.publish_metrics([], group="x")

    assert names == ["b", "c"]
    assert [family.name for family in probes.families()] == ["b"]


def test_native_metrics_come_and_go(probes):
    source = Watchdog().source

    probes.add_source(source)
    served = [family.name for family in source.families()]
    probes.remove_source(source)

    assert "mtaio_watchdog_stalls" in served
    assert probes.families() == []


def test_a_collector_gives_prometheus_client_the_same_metrics(probes):
    probes.publish_metrics(every_kind())
    registry = CollectorRegistry()
    registry.register(ProbeCollector(probes))

    theirs = parse_openmetrics(generate_latest(registry).decode())
    ours = parse_openmetrics(request(probes, "/metrics", accept=OPENMETRICS)[2])

    def flat(families):
        return {
            (f.name, f.type, f.unit, s.name, tuple(sorted(s.labels.items())), s.value)
            for f in families
            for s in f.samples
        }

    assert flat(theirs) == flat(ours)


def test_a_family_tells_what_it_holds():
    summary = every_kind()[2]
    ((labels, value),) = summary.series

    assert (summary.kind, summary.name, summary.help, summary.unit) == (
        "summary",
        "lag_seconds",
        "Lag.",
        "seconds",
    )
    assert (labels, value.count, value.sum, value.points) == ({}, 3, 0.5, {0.9: 0.2})
    assert repr(summary) == 'MetricFamily("summary", "lag_seconds", 1 series)'


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "kind must be non-empty text", (1, "a", "", 1)),
        (ValueError, "kind must be one of gauge, counter", ("info", "a", "", 1)),
        (ValueError, "name must be non-empty text", ("gauge", "", "", 1)),
        (TypeError, "name must be non-empty text", ("gauge", None, "", 1)),
        (ValueError, "name must be letters", ("gauge", "a-b", "", 1)),
        (TypeError, "value must be a number", ("gauge", "a", "", True)),
        (TypeError, "value must be a number", ("gauge", "a", "", "1")),
        (TypeError, "value must be a number", ("gauge", "a", "", None)),
        (ValueError, "a counter needs a finite number >= 0", ("counter", "a", "", -1)),
        (ValueError, "a counter needs", ("counter", "a", "", math.nan)),
        (ValueError, "a counter needs", ("counter", "a", "", math.inf)),
        (TypeError, "value of a summary must be a Dist", ("summary", "a", "", 1.0)),
        (TypeError, "pairs of labels and value", ("gauge", "a", "", [1])),
        (TypeError, "labels must map text to text", ("gauge", "a", "", [(1, 1)])),
        (TypeError, "labels must map", ("gauge", "a", "", [({"x": 1}, 1)])),
        (ValueError, "a label must be", ("gauge", "a", "", [({"a-b": "x"}, 1)])),
        (ValueError, "two series have", ("gauge", "a", "", [({}, 1), ({}, 2)])),
        (
            ValueError,
            "a label must be",
            ("summary", "a", "", [({"quantile": "1"}, Distribution(0, 0, {}))]),
        ),
        (
            ValueError,
            "a histogram needs",
            ("histogram", "a", "", Distribution(1, 1, {1: 2})),
        ),
        (
            ValueError,
            "count of a bucket must be whole",
            ("histogram", "a", "", Distribution(9, 1, {1: 0.5})),
        ),
        (
            ValueError,
            "a summary needs",
            ("summary", "a", "", Distribution(1, 1, {2: 2})),
        ),
    ],
)
def test_a_family_that_no_scraper_would_read_is_refused(error, message, arguments):
    with pytest.raises(error, match=message):
        MetricFamily(*arguments)


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "count must be an int >= 0", (-1, 0, {})),
        (TypeError, "count must be an int >= 0", (1.0, 0, {})),
        (TypeError, "count must be an int >= 0", (True, 0, {})),
        (TypeError, "sum must be a number", (1, None, {})),
        (TypeError, "points must be a mapping", (1, 0, [(1, 2)])),
        (TypeError, "point must be a number", (1, 0, {"0.5": 1})),
        (TypeError, "value must be a number", (1, 0, {0.5: "1"})),
    ],
)
def test_a_distribution_checks_its_parts(error, message, arguments):
    with pytest.raises(error, match=message):
        Distribution(*arguments)


@pytest.mark.parametrize("name", ["live", "ready", "startup"])
def test_a_verdict_of_another_type_is_refused(name):
    server = ProbeServer()

    for wrong in (1, 1.5, object()):
        with pytest.raises(TypeError, match=f"{name} must be a bool, a reason"):
            server.publish(**{name: wrong})
    for wrong in ("", [""]):
        with pytest.raises(ValueError, match=f"{name} must be non-empty text"):
            server.publish(**{name: wrong})
    with pytest.raises(TypeError, match=f"{name} must be non-empty text"):
        server.publish(**{name: [1]})


def test_a_refused_publish_changes_nothing():
    server = ProbeServer()

    with pytest.raises(TypeError):
        server.publish(live="down", ready=1)
    with pytest.raises(ValueError, match="healthy must come with health"):
        server.publish(live="down", healthy=True)
    with pytest.raises(TypeError, match="health must be a mapping"):
        server.publish(live="down", health=[])
    with pytest.raises(TypeError, match="healthy must be a bool"):
        server.publish(live="down", health={}, healthy=1)
    with pytest.raises(ValueError, match="not JSON compliant"):
        server.publish(live="down", health={"x": math.nan})
    with pytest.raises(TypeError, match="not JSON serializable"):
        server.publish(live="down", health={"x": object()})

    assert server.answer("GET", "/livez")[0] == 200


def test_only_families_are_published():
    server = ProbeServer()

    with pytest.raises(TypeError, match="families must be MetricFamily objects"):
        server.publish_metrics([1])
    with pytest.raises(TypeError):
        server.publish_metrics(1)
    with pytest.raises(ValueError, match="group must be non-empty text"):
        server.publish_metrics([], group="")


@pytest.mark.parametrize(
    ("name", "wrong_values", "wrong_types"),
    [
        ("host", [""], [None, 1, b"::1"]),
        ("port", [-1, 65_536], [True, 1.0, "80", None]),
        ("max_connections", [0, -1, 65_537], [True, 1.0, None]),
        ("max_header_bytes", [0, 255, 2**20 + 1], [True, 1e3, None]),
        ("header_timeout", [0, -1, math.nan, math.inf, 3601], [True, "1", None]),
    ],
)
def test_arguments_are_checked(name, wrong_values, wrong_types):
    for value in wrong_values:
        with pytest.raises(ValueError, match=f"{name} must be"):
            ProbeServer(**{name: value})
    for value in wrong_types:
        with pytest.raises(TypeError, match=f"{name} must be"):
            ProbeServer(**{name: value})


@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
async def test_a_stop_needs_a_real_deadline(probes, value):
    with pytest.raises(ValueError, match="timeout must be"):
        probes.stop(value)
    with pytest.raises(ValueError, match="timeout must be"):
        await probes.aclose(value)

    assert probes.running


async def test_a_deadline_may_be_longer_than_any_clock(probes):
    probes.stop(1e300)
    probes.start()
    await probes.aclose(1e300)

    assert not probes.running


def test_an_address_in_use_is_named(probes):
    other = ProbeServer(port=probes.port)

    with pytest.raises(ProbeError, match=f"127.0.0.1:{probes.port}: ") as caught:
        other.start()

    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, MonitoringError)
    assert caught.value.errno is not None
    assert not other.running


def test_a_name_that_is_no_host_is_named():
    with pytest.raises(ProbeError, match="no such host:7"):
        ProbeServer("no such host", 7).start()


def _has_ipv6():
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


@pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 loopback here")
def test_ipv6_is_served_and_its_url_bracketed():
    server = ProbeServer("::1")
    server.start()

    try:
        assert request(server, "/livez")[0] == 200
        assert server.url == f"http://[::1]:{server.port}"
    finally:
        server.stop()


async def test_a_server_starts_and_stops_again_and_again():
    server = ProbeServer()
    server.publish(ready=True)
    for _ in range(3):
        async with server:
            server.start()
            port = server.port
            assert port != 0
            assert request(server, "/readyz")[0] == 200
        assert not server.running
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
    server.stop()
    await server.aclose()


def test_one_origin_may_read_the_probes_if_told_so():
    own = ProbeServer(allowed_origin="http://127.0.0.1:8000")
    with_none = ProbeServer()
    for server in (own, with_none):
        server.start()

    _, allowed, _ = request(own, "/livez")
    _, headers, _ = request(with_none, "/livez")

    assert allowed["access-control-allow-origin"] == "http://127.0.0.1:8000"
    assert not [name for name in headers if name.startswith("access-control")]
    own.stop()
    with_none.stop()


@pytest.mark.parametrize(
    "origin", ["*", "null", "127.0.0.1:8000", "http://a/", "http://A", "http://a:80"]
)
def test_what_no_browser_sends_is_no_origin(origin):
    with pytest.raises(ValueError, match="allowed_origin must be an origin"):
        ProbeServer(allowed_origin=origin)


@pytest.mark.parametrize("origin", [b"http://a", 1, True])
def test_an_origin_is_text(origin):
    with pytest.raises(TypeError, match="allowed_origin must be non-empty text"):
        ProbeServer(allowed_origin=origin)
