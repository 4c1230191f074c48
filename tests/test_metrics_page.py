"""The page that a scraper gets from a monitor and a watchdog, by strict parsers."""

import asyncio

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus

from flat_stats import flatten
from mtaio.monitoring import ProbeServer, ResourceMonitor, Watchdog

# What only grows: from boot, from the group's making, or from the process's start.
TOTALS = {
    "cpu.throttled_seconds",
    "process.cpu_seconds",
    "process.voluntary_switches",
    "process.involuntary_switches",
    "memory.cgroup_oom_kills",
    *(
        f"network.{way}_{what}"
        for way in ("received", "sent")
        for what in ("bytes", "packets")
    ),
    "network.errors",
    "network.drops",
    *(
        f"{of}.{way}_{what}"
        for of in ("io", "disk")
        for way in ("read", "write")
        for what in ("bytes", "count")
    ),
    *(
        f"pressure.{of}.{who}_seconds"
        for of in ("cpu", "memory", "io")
        for who in ("some", "full")
    ),
}
UNITS = ("bytes", "seconds", "percent")


@pytest.fixture
async def page():
    """The stats, and the page in the format asked for, of the same sample."""
    probes = ProbeServer()
    # One sample, and the next an hour later.
    async with ResourceMonitor(interval=3600.0) as monitor, Watchdog() as watchdog:
        monitor.gauge('queue "depth"', lambda: -1.5)
        probes.add_source(monitor.source)
        probes.add_watchdog(watchdog)
        # The thread's own sample, lest it come between two pages.
        while not len(monitor.get_history()):  # noqa: ASYNC110 - a native thread
            await asyncio.sleep(0.001)
        stats = await monitor.get_current_stats()
        monitor._take_turn()
        yield stats, lambda accept: probes.answer("GET", "/metrics", accept)[2].decode()


async def test_every_family_is_strict_openmetrics(page):
    stats, get = page

    families = {
        each.name: each
        for each in parse_openmetrics(get("application/openmetrics-text"))
    }

    for family in families.values():
        assert family.documentation.endswith("."), family.name
        assert family.unit in {"", *UNITS}
        assert family.name.endswith(family.unit)
        assert family.samples, family.name
    figures = dict(flatten(stats))
    for name in ("timestamp", "cpu.per_core_percent", "loop.loops"):
        del figures[name]
    for name, value in figures.items():
        dotted = "uptime_seconds" if name == "uptime" else name
        family = families.pop(f"mtaio_{dotted.replace('.', '_')}", None)
        assert (family is None) == (value is None), name
        if family is None:
            continue
        assert (family.type == "counter") == (name in TOTALS), name
        rate = name.endswith("_per_second")
        unit = dotted.rpartition("_")[2].rpartition(".")[2]
        assert family.unit == (unit if unit in UNITS and not rate else ""), name
        (sample,) = family.samples
        assert sample.value == pytest.approx(value), name
        assert sample.labels == {}
    assert {name: family.type for name, family in families.items()} == {
        "mtaio_gauge": "gauge",
        "mtaio_watchdog_lag_seconds": "gauge",
        "mtaio_watchdog_stalled": "gauge",
        "mtaio_watchdog_stalled_seconds": "counter",
        "mtaio_watchdog_stalls": "counter",
    }
    assert families["mtaio_gauge"].samples[0].labels == {"name": 'queue "depth"'}


async def test_both_formats_say_the_same(page):
    _, get = page

    def samples(families):
        return {
            (each.name, tuple(each.labels.items())): each.value
            for family in families
            for each in family.samples
            if "watchdog_lag" not in each.name  # of the moment of asking
        }

    newer = samples(parse_openmetrics(get("application/openmetrics-text")))

    assert newer == samples(parse_prometheus(get("")))
    assert len(newer) > 50
