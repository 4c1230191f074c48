"""What the kernel's files say is told as it is; what they don't say is absent."""

import pytest

from kernel_tree import (
    GIB,
    PSI,
    Tree,
    group_v2,
    host,
    in_v1,
    in_v2,
    stat,
)

BUSY = {"proc/stat": stat([(180, 920)] * 2 + [(120, 980)] * 2)}


@pytest.fixture
def tree(tmp_path):
    return lambda *parts: Tree(tmp_path, host(), *parts)


def test_without_groups_percentages_are_of_the_machine(tree):
    stats = tree().between(BUSY)

    assert stats["cpu"]["usage_percent"] == pytest.approx(50.0)
    assert stats["cpu"]["host_usage_percent"] == pytest.approx(50.0)
    assert stats["cpu"]["allowed_cores"] == 4.0
    assert stats["cpu"]["throttled_percent"] is None
    assert stats["memory"]["percent"] == pytest.approx(25.0)
    assert stats["memory"]["limit_bytes"] == 16 * GIB
    assert stats["memory"]["cgroup_limit_bytes"] is None
    assert stats["memory"]["swap_used_bytes"] == 1 * GIB


def test_processors_it_may_not_run_on_are_not_its_own(tree):
    machine = tree({"proc/self/status": "Cpus_allowed_list:\t0-1\n"})

    stats = machine.between(BUSY)

    assert stats["cpu"]["usage_percent"] == pytest.approx(80.0)
    assert stats["cpu"]["host_usage_percent"] == pytest.approx(50.0)
    assert stats["cpu"]["allowed_cores"] == 2.0
    assert stats["cpu"]["host_cores"] == 4


def v2_cpu(usage, periods=0, throttled=0, throttled_usec=0):
    return (
        f"usage_usec {usage}\nuser_usec 1\nsystem_usec 1\nnr_periods {periods}\n"
        f"nr_throttled {throttled}\nthrottled_usec {throttled_usec}\n"
    )


def test_v2_quota_and_limit_are_what_percentages_are_of(tree):
    machine = tree(
        in_v2("/app"),
        group_v2(
            "app",
            cpu_max="50000 100000\n",
            cpu_stat=v2_cpu(1_000_000, 100, 10),
            memory_max=f"{2 * GIB}\n",
            memory_current=f"{GIB}\n",
            memory_stat=f"anon 1\nfile 2\ninactive_file {GIB // 2}\n",
            memory_events="low 0\nhigh 0\nmax 3\noom 2\noom_kill 1\n",
        ),
    )

    stats = machine.between(
        {
            **BUSY,
            **group_v2("app", cpu_stat=v2_cpu(1_400_000, 110, 15, 2_000_000)),
        }
    )

    assert stats["cpu"]["usage_percent"] == pytest.approx(80.0)
    assert stats["cpu"]["allowed_cores"] == 0.5
    assert stats["cpu"]["throttled_percent"] == pytest.approx(50.0)
    assert stats["cpu"]["throttled_seconds"] == pytest.approx(2.0)
    assert stats["memory"]["percent"] == pytest.approx(25.0)
    assert stats["memory"]["used_bytes"] == GIB // 2
    assert stats["memory"]["available_bytes"] == 2 * GIB - GIB // 2
    assert stats["memory"]["cgroup_usage_bytes"] == GIB
    assert stats["memory"]["cgroup_oom_kills"] == 1


def test_v2_unlimited_is_the_machine(tree):
    machine = tree(
        in_v2("/app"),
        group_v2(
            "app",
            cpu_max="max 100000\n",
            cpu_stat=v2_cpu(1),
            memory_max="max\n",
            memory_current="1\n",
        ),
    )

    stats = machine.between(BUSY)

    assert stats["cpu"]["usage_percent"] == pytest.approx(50.0)
    assert stats["memory"]["percent"] == pytest.approx(25.0)


def test_a_limit_above_the_machine_does_not_bind(tree):
    machine = tree(
        in_v2("/app"),
        group_v2(
            "app",
            cpu_max="800000 100000\n",
            memory_max=f"{64 * GIB}\n",
            memory_current="1\n",
            memory_stat="inactive_file 0\n",
        ),
    )

    stats = machine.between(BUSY)

    assert stats["cpu"]["allowed_cores"] == 4.0
    assert stats["cpu"]["usage_percent"] == pytest.approx(50.0)
    assert stats["memory"]["limit_bytes"] == 16 * GIB


def test_nested_the_limit_nearest_to_being_reached_counts(tree):
    machine = tree(
        in_v2("/pod/app"),
        group_v2(
            "pod",
            cpu_max="200000 100000\n",
            cpu_stat=v2_cpu(0),
            memory_max=f"{4 * GIB}\n",
            memory_current=f"{3 * GIB}\n",
            memory_stat="inactive_file 0\n",
        ),
        group_v2(
            "pod/app",
            cpu_max="100000 100000\n",
            cpu_stat=v2_cpu(0),
            memory_max=f"{2 * GIB}\n",
            memory_current=f"{GIB // 2}\n",
            memory_stat="inactive_file 0\n",
        ),
    )

    stats = machine.between(
        {
            **group_v2("pod", cpu_stat=v2_cpu(1_800_000)),
            **group_v2("pod/app", cpu_stat=v2_cpu(100_000)),
        }
    )

    assert stats["cpu"]["usage_percent"] == pytest.approx(90.0)
    assert stats["cpu"]["allowed_cores"] == 1.0
    assert stats["memory"]["percent"] == pytest.approx(75.0)
    assert stats["memory"]["cgroup_limit_bytes"] == 4 * GIB


def v1_files(path):
    memory = f"sys/fs/cgroup/memory/{path}".rstrip("/")
    cpu = f"sys/fs/cgroup/cpu,cpuacct/{path}".rstrip("/")
    return {
        f"{memory}/memory.limit_in_bytes": f"{2 * GIB}\n",
        f"{memory}/memory.usage_in_bytes": f"{GIB}\n",
        f"{memory}/memory.stat": (
            f"inactive_file 0\nhierarchical_memory_limit {2 * GIB}\n"
            f"total_inactive_file {GIB // 2}\n"
        ),
        f"{memory}/memory.oom_control": (
            "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"
        ),
        f"{cpu}/cpu.cfs_quota_us": "200000\n",
        f"{cpu}/cpu.cfs_period_us": "100000\n",
        f"{cpu}/cpu.stat": "nr_periods 10\nnr_throttled 1\nthrottled_time 5\n",
        f"{cpu}/cpuacct.usage": "0\n",
    }


def v1_second(path):
    cpu = f"sys/fs/cgroup/cpu,cpuacct/{path}".rstrip("/")
    return {
        f"{cpu}/cpuacct.usage": "1000000000\n",
        f"{cpu}/cpu.stat": "nr_periods 20\nnr_throttled 6\nthrottled_time 7000000000\n",
    }


@pytest.mark.parametrize(
    ("membership", "folder"),
    [
        (in_v1("/app"), "app"),
        (in_v1("/docker/abc", mount_root="/docker/abc"), ""),
        (in_v1("/../../elsewhere"), ""),
    ],
    ids=["plain", "container", "other namespace"],
)
def test_v1_quota_and_limit_are_what_percentages_are_of(tree, membership, folder):
    machine = tree(membership, v1_files(folder))

    stats = machine.between(v1_second(folder))

    assert stats["cpu"]["usage_percent"] == pytest.approx(50.0)
    assert stats["cpu"]["allowed_cores"] == 2.0
    assert stats["cpu"]["throttled_percent"] == pytest.approx(50.0)
    assert stats["cpu"]["throttled_seconds"] == pytest.approx(7.0)
    assert stats["memory"]["percent"] == pytest.approx(25.0)
    assert stats["memory"]["cgroup_oom_kills"] == 4


def test_v1_unlimited_is_the_machine(tree):
    machine = tree(
        in_v1("/app"),
        v1_files("app"),
        {
            "sys/fs/cgroup/memory/app/memory.limit_in_bytes": "9223372036854771712\n",
            "sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us": "-1\n",
        },
    )

    stats = machine.between(BUSY)

    assert stats["cpu"]["usage_percent"] == pytest.approx(50.0)
    assert stats["memory"]["percent"] == pytest.approx(25.0)


LIMITED = {
    **in_v2("/app"),
    **group_v2(
        "app",
        cpu_max="50000 100000\n",
        cpu_stat=v2_cpu(0),
        memory_max=f"{2 * GIB}\n",
        memory_current=f"{GIB}\n",
        memory_stat="inactive_file 0\n",
    ),
}


@pytest.mark.parametrize(
    ("name", "text", "absent"),
    [
        ("cpu_max", "garbage\n", "cpu.usage_percent"),
        ("cpu_max", "50000 1000", "cpu.usage_percent"),
        ("cpu_max", "50000 0\n", "cpu.allowed_cores"),
        ("cpu_stat", "usage_usec x\n", "cpu.usage_percent"),
        ("cpu_stat", "usage_usec 12", "cpu.usage_percent"),
        ("memory_max", "-7\n", "memory.percent"),
        ("memory_max", "20", "memory.limit_bytes"),
        ("memory_max", "", "memory.percent"),
        ("memory_current", "x\n", "memory.percent"),
        ("memory_current", "10", "memory.used_bytes"),
        ("memory_stat", "inactive_file 1", "memory.percent"),
        ("memory_stat", "", "memory.available_bytes"),
    ],
)
def test_a_limit_that_cannot_be_told_leaves_the_figure_absent(tree, name, text, absent):
    machine = tree(LIMITED, group_v2("app", **{name: text}))

    stats = machine.between(BUSY)

    section, figure = absent.split(".")
    assert stats[section][figure] is None


@pytest.mark.parametrize(
    "text", ["0::/app", "garbage\n", "4:memory\n", "0::/app\n4:mem"]
)
def test_a_spoilt_membership_leaves_shares_absent(tree, text):
    machine = tree(LIMITED, {"proc/self/cgroup": text})

    stats = machine.between(BUSY)

    assert stats["cpu"]["usage_percent"] is None
    assert stats["memory"]["percent"] is None
    assert stats["cpu"]["host_usage_percent"] == pytest.approx(50.0)
    assert stats["memory"]["host_total_bytes"] == 16 * GIB


def test_an_empty_root_has_no_figure_but_the_process_own(tmp_path):
    stats = Tree(tmp_path).between({})

    present = {
        f"{section}.{figure}"
        for section, figures in stats.items()
        for figure, value in figures.items()
        if value is not None
    }
    assert present == {
        # getrusage(2) and statvfs(2), which no root replaces
        "process.cpu_seconds",
        "process.cpu_percent",
        "process.voluntary_switches",
        "process.involuntary_switches",
        "process.voluntary_switches_per_second",
        "process.involuntary_switches_per_second",
        "disk.total_bytes",
        "disk.free_bytes",
        "disk.used_percent",
    }


def test_any_cut_gives_the_same_figures_or_none(tmp_path):
    """Every file, cut anywhere: a figure is as before, or absent."""
    files = {**host(), **LIMITED}
    whole = told(Tree(tmp_path, files).between({}))

    wrong = []
    for name, text in files.items():
        # No membership at all is that of a machine without control groups.
        first = 1 if name in {"proc/self/cgroup", "proc/self/mountinfo"} else 0
        for end in range(first, len(text), max(1, len(text) // 40)):
            cut = told(Tree(tmp_path, {name: text[:end]}).between({}))
            wrong += [(name, end, *figure) for figure in cut - whole]
        Tree(tmp_path, {name: text})

    assert not wrong


def told(stats):
    """The figures there are, but for those that no root replaces."""
    own = ("cpu_seconds", "cpu_percent", "voluntary", "involuntary")
    figures = [
        (f"{section}.{figure}", value)
        for section, figures in stats.items()
        for figure, value in figures.items()
        if not figure.startswith(own)
    ]
    return {
        (name, value)
        for name, value in figures
        if value is not None and name not in {"disk.free_bytes", "disk.used_percent"}
    }


def test_rates_are_over_the_window(tree):
    machine = tree()

    stats = machine.between(
        {
            "proc/self/net/dev": "  eth0: 3000 10 1 2 0 0 0 0 6000 20 3 4 0 0 0 0\n",
            "proc/diskstats": " 254 0 vda 12 0 10 0 20 0 24 0 0 0 0\n",
            "proc/self/io": "read_bytes: 6096\nwrite_bytes: 8192\nsyscr: 3\n",
            "proc/pressure/io": PSI.format(some=3_500_000, full=2_200_000),
        },
        after=2.0,
    )

    assert stats["network"]["received_bytes_per_second"] == pytest.approx(1000.0)
    assert stats["network"]["sent_bytes_per_second"] == pytest.approx(2000.0)
    assert stats["network"]["errors"] == 4
    assert stats["disk"]["read_bytes_per_second"] == pytest.approx(512.0)
    assert stats["disk"]["write_bytes_per_second"] == pytest.approx(2048.0)
    assert stats["io"]["read_bytes_per_second"] == pytest.approx(1000.0)
    assert stats["pressure.io"]["some_percent"] == pytest.approx(25.0)
    assert stats["pressure.io"]["full_percent"] == pytest.approx(10.0)
    assert stats["pressure.io"]["some_avg10_percent"] == 1.5


def test_a_counter_that_went_back_has_no_rate(tree):
    stats = tree().between(
        {"proc/self/net/dev": "  eth0: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n"}
    )

    assert stats["network"]["received_bytes"] == 1
    assert stats["network"]["received_bytes_per_second"] is None


def test_partitions_and_loops_do_not_count_twice(tree):
    stats = tree().look()

    assert stats["disk"]["read_count"] == 10
    assert stats["disk"]["write_bytes"] == 16 * 512


def test_a_groups_own_pressure_stands_before_the_machines(tree):
    own = group_v2(
        "app",
        cpu_pressure=PSI.format(some=7_000_000, full=0),
        memory_pressure="garbage\n",
    )

    stats = tree(in_v2("/app"), own).look()

    assert stats["pressure.cpu"]["some_seconds"] == 7.0
    assert stats["pressure.memory"]["some_seconds"] is None
    assert stats["pressure.io"]["some_seconds"] is None


def test_own_figures_of_the_process(tree):
    process = tree().look()["process"]

    assert process["rss_bytes"] == 10 << 20
    assert process["peak_rss_bytes"] == 20 << 20
    assert process["threads"] == 7
    assert (process["open_fds"], process["fd_limit"]) == (2, 1000)
    assert process["fd_percent"] == pytest.approx(0.2)


def test_uptime_is_the_age_of_the_process(tree):
    machine = tree()
    machine.look(0.0)

    assert machine.sampler is not None
    assert machine.sampler.fresh().uptime == pytest.approx(4000.0)


def test_a_group_that_moved_or_came_later_is_found(tree):
    machine = tree()
    assert machine.between({})["memory"]["cgroup_limit_bytes"] is None

    machine.write(LIMITED)
    stats = machine.look(after=31.0)

    assert stats["memory"]["cgroup_limit_bytes"] == 2 * GIB
