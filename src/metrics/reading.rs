//! What one look at the kernel gives: counters and levels, nothing derived.
//!
//! `None` is "the kernel doesn't say", and stays so all the way to the user.

/// One look at the machine, the process and its control groups.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// Monotonic nanoseconds of the look.
    pub(super) at_ns: u64,
    /// All processors together.
    pub(super) cpu: Cpu,
    /// The machine's memory, in bytes.
    pub(super) memory: Memory,
    /// Each limit on the way from the process's groups to the root.
    pub(super) cgroup: Cgroup,
    /// Stalled tasks.
    pub(super) pressure: Pressures,
    /// Whole disks together, and the space of one file system.
    pub(super) disk: Disk,
    /// All interfaces but the loopback, together.
    pub(super) network: Network,
    /// This process.
    pub(super) process: Process,
}

/// Processor time since boot.
#[derive(Clone, Debug, Default)]
pub(super) struct Cpu {
    /// All processors.
    pub(super) total: Option<CpuTimes>,
    /// Each processor online, by its number.
    pub(super) cores: Vec<(usize, CpuTimes)>,
    /// Processors this process may run on, by number; empty when unknown.
    pub(super) allowed: Vec<usize>,
    /// Tasks runnable, averaged over 1, 5 and 15 minutes.
    pub(super) load: Option<[f64; 3]>,
}

/// Ticks (1/100 s) of one processor or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTimes {
    /// All ticks.
    pub(super) total: u64,
    /// Ticks that were neither idle nor waiting for a disk.
    pub(super) busy: u64,
    /// Idle while a disk request was under way.
    pub(super) iowait: u64,
    /// Taken by the hypervisor for others.
    pub(super) steal: u64,
}

/// The machine's memory in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// All of it.
    pub(super) total: Option<u64>,
    /// What new work can have without swapping.
    pub(super) available: Option<u64>,
    /// Swap in all.
    pub(super) swap_total: Option<u64>,
    /// Swap not in use.
    pub(super) swap_free: Option<u64>,
}

/// The limits that hold this process, innermost first.
#[derive(Clone, Debug, Default)]
pub(super) struct Cgroup {
    /// Groups with a processor quota; `None` if that can't be told.
    pub(super) cpu: Option<Vec<CpuGroup>>,
    /// Groups with a memory limit; `None` if that can't be told.
    pub(super) memory: Option<Vec<MemoryGroup>>,
    /// Processes of the innermost group killed for want of memory.
    pub(super) oom_kills: Option<u64>,
}

/// A group with a processor quota.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CpuGroup {
    /// Levels from the mount, so that two looks compare the same group.
    pub(super) depth: usize,
    /// Processors' worth of time it may use.
    pub(super) quota_cores: f64,
    /// Time it used.
    pub(super) usage_ns: Option<u64>,
    /// Quota periods with anything to run.
    pub(super) periods: Option<u64>,
    /// Those in which it was held back.
    pub(super) throttled_periods: Option<u64>,
    /// Time it was held back, summed over its processors.
    pub(super) throttled_ns: Option<u64>,
}

/// A group with a memory limit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MemoryGroup {
    /// Bytes it may use.
    pub(super) limit: u64,
    /// Bytes it uses, file cache and all.
    pub(super) usage: Option<u64>,
    /// File cache not touched lately, which the kernel takes back first.
    pub(super) inactive_file: Option<u64>,
}

/// Stalled tasks by resource.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pressures {
    /// Waiting for a processor.
    pub(super) cpu: Pressure,
    /// Waiting for memory.
    pub(super) memory: Pressure,
    /// Waiting for a disk.
    pub(super) io: Pressure,
}

/// Stalls for one resource.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pressure {
    /// Some task was stalled.
    pub(super) some: Option<Stall>,
    /// All tasks were stalled at once.
    pub(super) full: Option<Stall>,
}

/// Time stalled.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Stall {
    /// Percent of the last 10, 60 and 300 seconds.
    pub(super) averages: [f64; 3],
    /// Microseconds in all.
    pub(super) total_us: u64,
}

/// Disk counters since boot, and space.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disk {
    /// Bytes read.
    pub(super) read_bytes: Option<u64>,
    /// Bytes written.
    pub(super) write_bytes: Option<u64>,
    /// Reads completed.
    pub(super) reads: Option<u64>,
    /// Writes completed.
    pub(super) writes: Option<u64>,
    /// Size of the watched file system in bytes.
    pub(super) space_total: Option<u64>,
    /// Bytes of it an unprivileged process can still have.
    pub(super) space_free: Option<u64>,
    /// Bytes of it in use.
    pub(super) space_used: Option<u64>,
}

/// Network counters since boot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Network {
    /// Bytes received.
    pub(super) received_bytes: Option<u64>,
    /// Bytes sent.
    pub(super) sent_bytes: Option<u64>,
    /// Packets received.
    pub(super) received_packets: Option<u64>,
    /// Packets sent.
    pub(super) sent_packets: Option<u64>,
    /// Packets spoilt, either way.
    pub(super) errors: Option<u64>,
    /// Packets dropped, either way.
    pub(super) drops: Option<u64>,
}

/// This process since its start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// Processor time, user and system, in seconds.
    pub(super) cpu_seconds: Option<f64>,
    /// Seconds since it started, at the look.
    pub(super) age_seconds: Option<f64>,
    /// Resident memory in bytes.
    pub(super) rss_bytes: Option<u64>,
    /// The most it ever was.
    pub(super) peak_rss_bytes: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
    /// Open file descriptors.
    pub(super) open_fds: Option<u64>,
    /// How many it may open; `None` also when unlimited.
    pub(super) fd_limit: Option<u64>,
    /// Times it gave the processor up.
    pub(super) voluntary_switches: Option<u64>,
    /// Times the processor was taken from it.
    pub(super) involuntary_switches: Option<u64>,
    /// Bytes it caused to be read from storage.
    pub(super) read_bytes: Option<u64>,
    /// Bytes it caused to be written to storage.
    pub(super) write_bytes: Option<u64>,
    /// Read system calls.
    pub(super) reads: Option<u64>,
    /// Write system calls.
    pub(super) writes: Option<u64>,
}
