"""`ResourceMonitor`: life, samples, thresholds, gauges, callbacks, loops."""

import asyncio
import copy
import dataclasses
import gc
import inspect
import logging
import math
import pickle
import sys
import threading
import time
from pathlib import Path

import pytest

import virtual_time
from flat_stats import flatten
from kernel_tree import Tree, host, stat
from mtaio import _rust, _stats, monitoring
from mtaio.exceptions import AlertError, MetricError, MonitoringError
from mtaio.monitoring import ResourceMonitor, SystemStats


@pytest.fixture
def on_virtual_time(tmp_path):
    """Runs `use(monitor, tree)` on a machine of files whose time is virtual."""

    def run(use, **options):
        time_now = virtual_time.VirtualClock()
        tree = Tree(tmp_path, host())

        async def main():
            monitor = ResourceMonitor(root=tmp_path, clock=time_now, **options)
            async with monitor:
                # Between two samples, so that what a test does is before one.
                await asyncio.sleep(0.25)
                return await use(monitor, tree)

        return virtual_time.run(main(), time_now)

    return run


async def until(true):
    """Waits for another thread; the test's own timeout bounds it."""
    while not true():  # noqa: ASYNC110 - no event: a native thread sets none
        await asyncio.sleep(0.01)


async def samples(monitor, more):
    """Waits for that many more samples of the thread."""
    wanted = len(monitor.get_history()) + more
    await until(lambda: len(monitor.get_history()) >= wanted)


def memory(percent):
    """`/proc/meminfo` with that much in use."""
    return {
        "proc/meminfo": f"MemTotal: 1000 kB\nMemAvailable: {1000 - percent * 10} kB\n"
    }


# --- samples ---------------------------------------------------------------


async def test_the_guides_names_hold_before_start():
    stats = await ResourceMonitor().get_current_stats()

    assert 0 <= stats.cpu.usage_percent <= 100
    assert 0 < stats.memory.percent < 100
    assert stats.uptime > 0
    assert abs(stats.timestamp - time.time()) < 60


async def test_stats_are_frozen_and_figures_are_numbers_or_none():
    stats = await ResourceMonitor().get_current_stats()

    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.uptime = 0.0
    for name, value in flatten(stats):
        if name not in {"cpu.per_core_percent", "loop.loops"}:
            assert value is None or (type(value) in {int, float}), name
            assert value is None or math.isfinite(value), name


def test_each_figure_has_its_name_from_the_core():
    sampler = _rust.Sampler(1.0, 1)
    sampler.watch_loop(_rust.LoopLag("main"))
    sampler.tick()
    snapshot = sampler.latest(60.0)

    told = dict(flatten(_stats.build(snapshot)))
    (loop,) = told.pop("loop.loops")

    assert told.pop("cpu.per_core_percent") == snapshot.per_core_percent
    assert told.pop("timestamp") == snapshot.timestamp
    assert told.pop("uptime") == snapshot.uptime
    assert list(told.items()) == [
        (f"{section}.{figure}", value)
        for section, figures in snapshot.sections().items()
        for figure, value in figures.items()
    ]
    assert [dataclasses.asdict(loop)] == snapshot.loops()


@pytest.mark.parametrize("gil", [True, False])
def test_stats_made_quickly_are_like_any_others(gil, monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: gil, raising=False)
    make = _stats._maker(monitoring.LoopLag)

    made = make("main", 3, 0.1, 0.2, 0.3)

    assert made == monitoring.LoopLag(
        name="main",
        ticks=3,
        lag_p50_seconds=0.1,
        lag_p99_seconds=0.2,
        lag_max_seconds=0.3,
    )
    assert pickle.loads(pickle.dumps(made)) == copy.copy(made) == made
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.ticks = 4
    for wrong in (("main", 3), ("main", 3, 0.1, 0.2, 0.3, 0.4)):
        with pytest.raises((TypeError, ValueError)):
            make(*wrong)


async def test_every_figure_but_a_list_is_a_metric():
    names = {name for name, _ in flatten(await ResourceMonitor().get_current_stats())}
    names -= {"timestamp", "cpu.per_core_percent", "loop.loops"}

    short = {"cpu_usage", "memory_usage", "load_average", "thread_count"}
    assert set(ResourceMonitor().metrics) == names | short


def test_samples_are_on_the_interval(on_virtual_time):
    async def use(monitor, tree):
        await asyncio.sleep(3.5)
        return monitor.get_history()

    kept = on_virtual_time(use, interval=1.0)

    assert len(kept) == 3
    ages = [one.uptime for one in kept]
    assert ages == [pytest.approx(ages[0] + second) for second in range(3)]


def test_history_is_bounded_and_keeps_the_newest(on_virtual_time):
    async def use(monitor, tree):
        await asyncio.sleep(9.5)
        return [stats.uptime for stats in monitor.get_history()]

    ages = on_virtual_time(use, interval=1.0, history_size=4)

    assert ages == [pytest.approx(4000.0 + second) for second in (6, 7, 8, 9)]


def test_history_can_be_awaited_sliced_and_cut_by_time(on_virtual_time):
    async def use(monitor, tree):
        await asyncio.sleep(4.5)
        kept = await monitor.get_history()
        times = [one.timestamp for one in kept]
        assert isinstance(kept[0], SystemStats)
        assert [one.timestamp for one in kept[1:3]] == times[1:3]
        assert len(monitor.get_history(start=times[-1])) >= 1
        assert len(monitor.get_history(end=times[0])) >= 1
        assert len(monitor.get_history(start=times[-1] + 1)) == 0
        assert len(monitor.get_history(times[0], times[-1])) == 4

    on_virtual_time(use)


def test_pollers_do_not_shorten_each_others_window(tmp_path):
    """Processor use is told over a window however often others ask."""
    tree = Tree(tmp_path, host())
    tree.look(0.0)
    tree.write({"proc/stat": stat([(200, 1000)] * 4)})
    tree.look(1.0)

    tree.write({"proc/stat": stat([(290, 1010)] * 4)})
    asked = [tree.look(0.01)["cpu"]["usage_percent"] for _ in range(50)]

    # 190 of 300 ticks busy since the first look, never 90 of 100.
    assert asked == [pytest.approx(100 * 190 / 300)] * 50


def test_the_first_sample_waits_until_it_can_be_true(tmp_path):
    async def main(clock):
        Tree(tmp_path, host())
        monitor = ResourceMonitor(root=tmp_path, clock=clock)
        asked = clock()
        Tree(tmp_path, {"proc/stat": stat([(150, 950)] * 4)})
        stats = await monitor.get_current_stats()
        return clock() - asked, stats.cpu.usage_percent

    clock = virtual_time.VirtualClock()

    waited, percent = virtual_time.run(main(clock), clock)

    assert waited == pytest.approx(0.5)
    assert percent == pytest.approx(50.0)


async def test_a_started_monitor_answers_from_its_thread():
    async with ResourceMonitor(interval=0.05) as monitor:
        await monitor.get_current_stats()
        await samples(monitor, 3)
        stats = await monitor.get_current_stats()
        await samples(monitor, 1)

        kept = [one.timestamp for one in monitor.get_history()]
        assert stats.timestamp in kept
        assert kept == sorted(kept)


async def test_a_fresh_sample_is_newer_than_the_threads():
    async with ResourceMonitor(interval=30.0) as monitor:
        before = await monitor.get_current_stats()
        after = await monitor.get_current_stats(max_age=0)

        assert after.timestamp > before.timestamp


# --- life ------------------------------------------------------------------


async def test_start_and_stop_can_be_repeated():
    monitor = ResourceMonitor(interval=0.05)

    for _ in range(3):
        await monitor.start()
        await monitor.start()
        assert monitor.running
        await monitor.stop()
        await monitor.stop()
        assert not monitor.running


def sampler_threads():
    tasks = Path("/proc/self/task").glob("*/comm")
    return [task.read_text() for task in tasks].count("mtaio-metrics\n")


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
async def test_stop_ends_the_thread():
    monitor = ResourceMonitor(interval=0.05)

    await monitor.start()
    await until(lambda: sampler_threads() == 1)
    await monitor.stop()
    assert sampler_threads() == 0


def test_a_loop_that_ends_stops_the_monitor():
    monitor = ResourceMonitor(interval=0.05)

    asyncio.run(monitor.start())
    assert not monitor.running
    assert not any("GcPauses" in repr(each) for each in gc.callbacks)

    async def again():
        async with monitor:
            assert (await monitor.get_current_stats()).uptime > 0

    asyncio.run(again())


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_a_loop_closed_under_the_monitor_does_not_matter(caplog):
    """Closed in the middle of a callback, without cancelling anything."""
    monitor, begun, told = ResourceMonitor(interval=0.05), [], []

    async def hangs(metric, value, threshold):
        begun.append(value)
        if len(begun) == 1:
            await asyncio.sleep(1e6)
        told.append(value)

    async def first():
        monitor.set_threshold("uptime", 0)
        monitor.on_threshold_exceeded(hangs)
        await monitor.start()
        await until(lambda: begun)

    async def second():
        await monitor.stop()
        monitor.set_threshold("uptime", 0)
        async with monitor:
            await until(lambda: told)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(first())
    loop.close()
    asyncio.run(second())

    assert len(begun) == 2
    # What the dead loop left is asyncio's to complain of, and only that.
    gc.collect()
    assert all(record.name == "asyncio" for record in caplog.records)


async def test_a_loop_watched_before_the_start_stays_watched():
    monitor = ResourceMonitor(interval=0.05)
    monitor.watch_loop("mine")

    async with monitor:
        await samples(monitor, 2)
        names = [one.name for one in monitor.get_history()[-1].loop.loops]

    assert names == ["mine"]


async def test_a_second_loop_is_refused_while_the_first_runs():
    def start_elsewhere():
        with pytest.raises(MonitoringError, match="another event loop"):
            asyncio.run(monitor.start())
        with pytest.raises(MonitoringError, match="another event loop"):
            asyncio.run(monitor.stop())

    async with ResourceMonitor() as monitor:
        await asyncio.to_thread(start_elsewhere)
        assert monitor.running


# --- thresholds ------------------------------------------------------------


def alerts_of(monitor):
    told = []
    monitor.on_threshold_exceeded(lambda *alert: told.append(("exceeded", *alert)))
    monitor.on_threshold_cleared(lambda *alert: told.append(("cleared", *alert)))
    return told


def test_a_flapping_metric_gives_one_alert(on_virtual_time):
    async def use(monitor, tree):
        told = alerts_of(monitor)
        monitor.set_threshold("memory_usage", 90.0, clear=80.0)
        for percent in (95, 85, 95, 85, 95, 79, 95):
            tree.write(memory(percent))
            await asyncio.sleep(1.0)
        await asyncio.sleep(0)
        return told

    assert on_virtual_time(use) == [
        ("exceeded", "memory_usage", pytest.approx(95.0), 90.0),
        ("cleared", "memory_usage", pytest.approx(79.0), 90.0),
        ("exceeded", "memory_usage", pytest.approx(95.0), 90.0),
    ]


def test_for_seconds_needs_the_whole_time_without_a_break(on_virtual_time):
    async def use(monitor, tree):
        told = alerts_of(monitor)
        monitor.set_threshold("memory.percent", 90.0, for_seconds=3.0)
        count = []
        for percent in (95, 95, 50, 95, 95, 95, 95, 95):
            tree.write(memory(percent))
            await asyncio.sleep(1.0)
            count.append(len(told))
        return count

    assert on_virtual_time(use) == [0, 0, 0, 0, 0, 0, 1, 1]


def test_below_watches_for_too_little(on_virtual_time):
    async def use(monitor, tree):
        told = alerts_of(monitor)
        monitor.gauge("workers", lambda: workers)
        monitor.set_threshold("workers", 2, below=True, clear=3)
        for workers in (4, 1, 2, 3, 1):  # noqa: B007 - read by the gauge
            await asyncio.sleep(1.0)
        await asyncio.sleep(0.1)
        return [kind for kind, *_ in told]

    assert on_virtual_time(use) == ["exceeded", "cleared", "exceeded"]


@pytest.mark.parametrize(
    ("percent", "kinds"),
    [(85, ["exceeded", "cleared"]), (96, ["exceeded", "exceeded"])],
)
def test_a_threshold_that_replaces_one_tells_what_becomes_of_its_alert(
    on_virtual_time, percent, kinds
):
    async def use(monitor, tree):
        told = alerts_of(monitor)
        monitor.set_threshold("memory_usage", 80.0)
        tree.write(memory(percent))
        await asyncio.sleep(2.0)
        monitor.set_threshold("memory_usage", 95.0)
        await asyncio.sleep(2.0)
        return [kind for kind, *_ in told]

    assert on_virtual_time(use) == kinds


def test_an_unknown_metric_names_the_known_ones():
    monitor = ResourceMonitor()
    monitor.gauge("queue_depth", lambda: 0)

    with pytest.raises(MetricError, match=r"'cpu'.*cpu\.usage_percent.*queue_depth"):
        monitor.set_threshold("cpu", 1.0)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"metric": ""}, ValueError, "metric must be non-empty text"),
        ({"metric": 1}, TypeError, "metric must be non-empty text"),
        ({"value": math.nan}, ValueError, "value must be a finite number, got nan"),
        ({"value": math.inf}, ValueError, "value must be a finite number, got inf"),
        ({"value": True}, TypeError, "value must be a finite number, got True"),
        ({"value": "80"}, TypeError, "value must be a finite number, got '80'"),
        ({"clear": math.nan}, ValueError, "clear must be a finite number, got nan"),
        ({"clear": False}, TypeError, "clear must be a finite number, got False"),
        ({"clear": 90.5}, ValueError, "clear must be at or below value"),
        ({"clear": 1, "below": True}, ValueError, "clear must be at or above value"),
        ({"for_seconds": -1}, ValueError, "for_seconds must be a finite number >= 0"),
        ({"for_seconds": None}, TypeError, "for_seconds must be a finite number >= 0"),
        ({"below": 1}, TypeError, "below must be a bool, got 1"),
    ],
)
def test_a_bad_threshold_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        ResourceMonitor().set_threshold(
            **{"metric": "cpu_usage", "value": 90.0, **arguments}
        )


def test_a_removed_threshold_tells_nothing(on_virtual_time):
    async def use(monitor, tree):
        told = alerts_of(monitor)
        monitor.set_threshold("uptime", 0.0)
        monitor.remove_threshold("uptime")
        await asyncio.sleep(2.0)
        with pytest.raises(MetricError, match="'uptime' has no threshold"):
            monitor.remove_threshold("uptime")
        return told

    assert on_virtual_time(use) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"interval": 0}, ValueError, "interval must be a finite number > 0"),
        ({"interval": -1.0}, ValueError, "interval must be a finite number > 0"),
        ({"interval": math.nan}, ValueError, "interval must be a finite number > 0"),
        ({"interval": math.inf}, ValueError, "interval must be a finite number > 0"),
        ({"interval": True}, TypeError, "interval must be a finite number > 0"),
        ({"interval": "1"}, TypeError, "interval must be a finite number > 0"),
        ({"interval": 1e-4}, ValueError, "interval must be 0.001 to 86400 seconds"),
        ({"interval": 1e6}, ValueError, "interval must be 0.001 to 86400 seconds"),
        ({"history_size": 0}, ValueError, "history_size must be an int >= 1"),
        ({"history_size": -1}, ValueError, "history_size must be an int >= 1"),
        ({"history_size": 1.0}, TypeError, "history_size must be an int >= 1"),
        ({"history_size": True}, TypeError, "history_size must be an int >= 1"),
        ({"root": 1}, TypeError, "root must be a path"),
        ({"root": ""}, ValueError, "root must be a non-empty path"),
        ({"disk_path": 1}, TypeError, "disk_path must be a path"),
        ({"disk_path": ""}, ValueError, "disk_path must be a non-empty path"),
        ({"clock": 1}, TypeError, "clock must be callable or None, got 1"),
        ({"clock": lambda: math.nan}, ValueError, "clock.. must return a finite"),
    ],
)
def test_a_bad_argument_is_named(arguments, error, message):
    with pytest.raises(error, match=message):
        ResourceMonitor(**arguments)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0])
async def test_bad_times_are_refused(value):
    monitor = ResourceMonitor()

    with pytest.raises(ValueError, match="max_age must be a finite number >= 0"):
        await monitor.get_current_stats(max_age=value)
    with pytest.raises(ValueError, match="start must be a finite number >= 0"):
        monitor.get_history(start=value)
    with pytest.raises(ValueError, match="end must be a finite number >= 0"):
        monitor.get_history(end=value)


async def test_bad_types_of_times_and_names_are_refused():
    monitor = ResourceMonitor()

    with pytest.raises(TypeError, match="max_age"):
        await monitor.get_current_stats(max_age=True)
    with pytest.raises(TypeError, match="start"):
        monitor.get_history("yesterday")
    with pytest.raises(TypeError, match="name must be non-empty text"):
        monitor.watch_loop(None)
    with pytest.raises(ValueError, match="name must be non-empty text"):
        monitor.watch_loop("")
    with pytest.raises(TypeError, match="name must be non-empty text"):
        monitor.gauge(1, lambda: 1)
    with pytest.raises(ValueError, match="name must be new, 'cpu_usage' is"):
        monitor.gauge("cpu_usage", lambda: 1)
    with pytest.raises(TypeError, match="read must be callable, got 1"):
        monitor.gauge("depth", 1)
    with pytest.raises(TypeError, match="read must be a plain function, got <func"):
        monitor.gauge("depth", samples)
    with pytest.raises(TypeError, match="callback must be callable, got 'print'"):
        monitor.on_threshold_exceeded("print")
    with pytest.raises(TypeError, match="callback must be callable, got None"):
        monitor.on_threshold_cleared(None)


# --- gauges and callbacks --------------------------------------------------


def test_a_gauge_that_fails_is_absent_and_logged(on_virtual_time, caplog):
    answers = iter([1.0, ValueError("gone"), math.nan, "x", 4])

    def read():
        answer = next(answers, 4)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def use(monitor, tree):
        monitor.gauge("depth", read)
        seen = []
        for _ in range(5):
            await asyncio.sleep(1.01)
            seen.append(monitor.gauges.get("depth"))
        return seen

    assert on_virtual_time(use) == [1.0, None, None, None, 4.0]
    assert sum("'depth'" in record.message for record in caplog.records) == 3


def test_a_failing_callback_harms_no_other_and_is_reported(on_virtual_time, caplog):
    async def use(monitor, tree):
        told = []

        @monitor.on_threshold_exceeded
        def breaks(metric, value, threshold):
            raise ZeroDivisionError

        @monitor.on_threshold_exceeded
        async def breaks_too(metric, value, threshold):
            await asyncio.sleep(0)
            raise KeyError(metric)

        @monitor.on_threshold_exceeded
        async def works(metric, value, threshold):
            told.append((metric, threshold))

        monitor.set_threshold("uptime", 1.0)
        await asyncio.sleep(2.0)
        assert callable(breaks)
        assert inspect.iscoroutinefunction(works)
        return told, monitor.callback_failures

    with caplog.at_level(logging.ERROR, "mtaio.monitoring"):
        told, failures = on_virtual_time(use)

    assert told == [("uptime", 1.0)]
    assert failures == 2
    errors = [record.exc_info[1] for record in caplog.records]
    assert all(isinstance(error, AlertError) for error in errors)
    assert {type(error.__cause__) for error in errors} == {ZeroDivisionError, KeyError}


def test_a_slow_callback_gets_its_alerts_in_order_and_holds_up_nobody(on_virtual_time):
    async def use(monitor, tree):
        slow, quick = [], []

        async def sleeps(metric, value, threshold):
            await asyncio.sleep(10)
            slow.append(value)

        monitor.on_threshold_exceeded(sleeps)
        monitor.on_threshold_exceeded(
            lambda metric, value, threshold: quick.append(value)
        )
        monitor.gauge("depth", lambda: depth)
        monitor.set_threshold("depth", 0)
        for depth in (1, 0, 2, 0, 3, 0):  # noqa: B007 - read by the gauge
            await asyncio.sleep(1.0)
        fast = list(quick)
        await asyncio.sleep(40)
        return fast, slow

    fast, slow = on_virtual_time(use)

    assert fast == [1.0, 2.0, 3.0]
    assert slow == [1.0, 2.0, 3.0]


def test_stop_gives_a_callback_a_second_then_cancels_it(on_virtual_time, caplog):
    ended = []

    async def use(monitor, tree):
        async def hangs(metric, value, threshold):
            try:
                await asyncio.sleep(1e6)
            except asyncio.CancelledError:
                ended.append(asyncio.get_running_loop().time())
                raise

        monitor.on_threshold_exceeded(hangs)
        monitor.set_threshold("uptime", 0)
        await asyncio.sleep(1.5)
        began = asyncio.get_running_loop().time()
        await monitor.stop()
        return began

    began = on_virtual_time(use)

    assert ended == [pytest.approx(began + 1.0)]
    assert "did not end within" in caplog.text


def test_a_callback_may_stop_the_monitor(on_virtual_time):
    async def use(monitor, tree):
        stopped = asyncio.Event()

        @monitor.on_threshold_exceeded
        async def stops(metric, value, threshold):
            await monitor.stop()
            stopped.set()

        monitor.set_threshold("uptime", 0)
        await asyncio.wait_for(stopped.wait(), 10)
        return monitor.running

    assert on_virtual_time(use) is False


def test_samples_taken_while_the_loop_was_blocked_are_judged(caplog):
    """The thread goes on sampling; thresholds miss nothing."""

    async def main():
        told = []
        monitor = ResourceMonitor(interval=0.05)
        monitor.set_threshold("uptime", 0)
        monitor.on_threshold_exceeded(lambda *alert: told.append(alert))
        async with monitor:
            time.sleep(1.0)  # noqa: ASYNC251 - a blocked loop is the point
            blocked = len(monitor.get_history())
            await until(lambda: told)
        return blocked

    assert asyncio.run(main()) >= 3


def test_a_gauge_is_judged_by_what_was_read_of_it():
    """One reading after a block is no proof that it lasted through the block."""

    async def main():
        reads, told = [], []
        monitor = ResourceMonitor(interval=0.05)
        monitor.gauge("depth", lambda: reads.append(1) or len(reads))
        monitor.set_threshold("depth", 0, for_seconds=0.5)
        monitor.on_threshold_exceeded(lambda *alert: told.append(len(reads)))
        async with monitor:
            time.sleep(1.5)  # noqa: ASYNC251 - a blocked loop is the point
            assert len(monitor.get_history()) > 1
            await until(lambda: told)
        return told[0]

    assert asyncio.run(main()) > 1


# --- loops and collector ---------------------------------------------------


async def test_a_blocked_loop_shows_while_it_is_blocked():
    seen = []

    def look_from_another_thread(monitor, end):
        while not end.is_set():
            newest = monitor.get_history()
            if len(newest):
                seen.append(newest[-1].loop.lag_max_seconds or 0.0)
            time.sleep(0.02)

    async with ResourceMonitor(interval=0.1) as monitor:
        await monitor.get_current_stats()
        end = threading.Event()
        looker = asyncio.get_running_loop().run_in_executor(
            None, look_from_another_thread, monitor, end
        )
        await asyncio.sleep(0.05)
        time.sleep(0.6)  # noqa: ASYNC251 - a blocked loop is the point
        during = max(seen, default=0.0)
        end.set()
        await looker

    assert during > 0.2


async def test_loops_of_other_threads_are_watched_by_name_until_they_end():
    begun, end = threading.Event(), threading.Event()

    async def other(monitor):
        monitor.watch_loop("worker")
        monitor.watch_loop("again")
        begun.set()
        await until(end.is_set)

    async def names(monitor):
        await samples(monitor, 2)
        return [one.name for one in monitor.get_history()[-1].loop.loops]

    async with ResourceMonitor(interval=0.05) as monitor:
        thread = threading.Thread(target=lambda: asyncio.run(other(monitor)))
        thread.start()
        await asyncio.to_thread(begun.wait)
        during = await names(monitor)
        end.set()
        await asyncio.to_thread(thread.join)
        after = await names(monitor)

    assert during == ["main", "worker"]
    assert after == ["main"]


async def test_pauses_of_the_collector_are_measured():
    async with ResourceMonitor(interval=0.05) as monitor:
        await monitor.get_current_stats()
        for _ in range(5):
            gc.collect()
        await samples(monitor, 2)
        kept = [one.process for one in monitor.get_history()]

    assert sum(one.gc_pauses for one in kept) >= 5
    assert sum(one.gc_pause_seconds for one in kept) > 0
    assert max(one.gc_pause_max_seconds for one in kept) > 0


def test_figures_and_gauges_are_served_on_metrics():
    def page(probes):
        return probes.answer("GET", "/metrics")[2].decode()

    async def serve():
        probes = monitoring.ProbeServer()
        async with ResourceMonitor(interval=0.05) as monitor:
            monitor.gauge("queue_depth", lambda: 7)
            probes.add_source(monitor.source)
            await until(lambda: "mtaio_gauge" in page(probes))
            return page(probes)

    text = asyncio.run(serve())

    assert 'mtaio_gauge{name="queue_depth"} 7.0\n' in text
    assert "# TYPE mtaio_memory_percent gauge\n" in text
    assert "# TYPE mtaio_process_cpu_seconds_total counter\n" in text
    assert "\nmtaio_uptime_seconds " in text


def test_all_that_is_promised_is_exported():
    assert set(monitoring.__all__) >= {
        "CPUStats",
        "IOStats",
        "MemoryStats",
        "ResourceMonitor",
        "SystemStats",
    }
