"""Trees of kernel files on disk, for `ResourceMonitor(root=...)`."""

from pathlib import Path
from typing import Any

from mtaio import _rust

GIB = 1 << 30

MEMINFO = f"""\
MemTotal:       {16 * GIB // 1024} kB
MemFree:        {1 * GIB // 1024} kB
MemAvailable:   {12 * GIB // 1024} kB
SwapTotal:      {2 * GIB // 1024} kB
SwapFree:       {1 * GIB // 1024} kB
"""

STATUS = """\
Name:\tpython
VmHWM:\t   20480 kB
VmRSS:\t   10240 kB
Threads:\t7
Cpus_allowed_list:\t0-3
"""

PSI = """\
some avg10=1.50 avg60=2.50 avg300=3.50 total={some}
full avg10=0.10 avg60=0.20 avg300=0.30 total={full}
"""

V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"


def stat(cores: list[tuple[int, int]]) -> str:
    """`/proc/stat` of processors with these `(busy, idle)` ticks."""
    rows = [(sum(b for b, _ in cores), sum(i for _, i in cores)), *cores]
    names = ["cpu ", *(f"cpu{number}" for number in range(len(cores)))]
    lines = [
        f"{name} {busy} 0 0 {idle} 0 0 0 0 0 0"
        for name, (busy, idle) in zip(names, rows, strict=True)
    ]
    return "\n".join([*lines, "intr 12345", "ctxt 1", ""])


def host() -> dict[str, str]:
    """A machine of 4 processors and 16 GiB, without control groups."""
    return {
        "proc/stat": stat([(100, 900)] * 4),
        "proc/loadavg": "0.50 0.25 0.10 1/100 4242\n",
        "proc/meminfo": MEMINFO,
        "proc/uptime": "5000.00 19000.00\n",
        "proc/diskstats": (
            " 254 0 vda 10 0 8 0 20 0 16 0 0 0 0\n"
            " 254 1 vda1 9 0 9 0 9 0 9 0 0 0 0\n"
            " 7 0 loop0 9 0 9 0 9 0 9 0 0 0 0\n"
        ),
        "proc/pressure/cpu": PSI.format(some=1_000_000, full=0),
        "proc/pressure/memory": PSI.format(some=2_000_000, full=1_000_000),
        "proc/pressure/io": PSI.format(some=3_000_000, full=2_000_000),
        "proc/self/stat": f"7 (py thon) S {' '.join(['1'] * 18)} 100000 1 1\n",
        "proc/self/status": STATUS,
        "proc/self/io": (
            "rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\n"
            "read_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 0\n"
        ),
        "proc/self/limits": (
            "Limit                     Soft Limit           Hard Limit\n"
            "Max open files            1000                 4096         files\n"
        ),
        "proc/self/net/dev": (
            "Inter-|   Receive          |  Transmit\n"
            " face |bytes packets errs drop fifo frame compressed multicast|bytes\n"
            "    lo: 999 9 0 0 0 0 0 0 999 9 0 0 0 0 0 0\n"
            "  eth0: 1000 10 1 2 0 0 0 0 2000 20 3 4 0 0 0 0\n"
        ),
        "proc/self/fd/0": "",
        "proc/self/fd/1": "",
        "sys/block/vda/device": "",
    }


def group_v2(path: str, **files: str) -> dict[str, str]:
    """A version 2 group: `memory_max="max\\n"` is the file `memory.max`."""
    folder = f"sys/fs/cgroup/{path}".rstrip("/")
    return {f"{folder}/{dotted(name)}": text for name, text in files.items()}


def dotted(name: str) -> str:
    return name.replace("_", ".", 1)


def in_v2(path: str) -> dict[str, str]:
    """This process is in that version 2 group."""
    return {"proc/self/cgroup": f"0::{path}\n", "proc/self/mountinfo": V2_MOUNT}


def in_v1(path: str, mount_root: str = "/") -> dict[str, str]:
    """This process is in those version 1 groups, under their usual mounts."""
    mounts = [
        f"35 31 0:32 {mount_root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        f"36 31 0:33 {mount_root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup "
        "rw,cpu,cpuacct",
    ]
    return {
        "proc/self/cgroup": f"4:memory:{path}\n2:cpu,cpuacct:{path}\n0::/\n",
        "proc/self/mountinfo": "\n".join(mounts) + "\n",
    }


class Tree:
    """Files under a root, and samples taken of them at times of our own."""

    def __init__(self, root: Path, *parts: dict[str, str]) -> None:
        self.root = root
        self.now = 1000.0
        for part in parts:
            self.write(part)
        self.sampler: _rust.Sampler | None = None

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")

    def look(self, after: float = 1.0) -> dict[str, dict[str, Any]]:
        """A sample; the first call makes the sampler, which looks once itself."""
        if self.sampler is None:
            self.sampler = _rust.Sampler(
                1.0, 10, root=self.root, disk_path=self.root, clock=lambda: self.now
            )
        self.now += after
        return self.sampler.fresh().sections()

    def between(
        self, files: dict[str, str], after: float = 1.0
    ) -> dict[str, dict[str, Any]]:
        """A sample over a second in which the kernel wrote `files`."""
        self.look(0.0)
        self.write(files)
        return self.look(after)
