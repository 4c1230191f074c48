//! From two looks at the kernel to percentages and rates; pure.
//!
//! A percentage is of what this process may use: of its tightest control group
//! limit where one binds, else of the processors and memory of the machine.

use super::reading::{Cgroup, Cpu, CpuGroup, CpuTimes, MemoryGroup, Pressure, Reading, Stall};
use super::snapshot::{Section, Value};

/// Two looks, and what lies between them.
#[derive(Clone, Copy)]
pub(super) struct Window<'a> {
    pub(super) base: &'a Reading,
    pub(super) now: &'a Reading,
}

/// The named sections, and the share of each processor.
pub(super) struct Derived {
    pub(super) sections: Vec<(&'static str, Section)>,
    pub(super) per_core_percent: Vec<f64>,
}

pub(super) fn derive(window: Window<'_>) -> Derived {
    let mut sections = vec![
        ("cpu", window.cpu()),
        ("memory", window.memory()),
        ("io", window.io()),
        ("network", window.network()),
        ("disk", window.disk()),
        ("process", window.process()),
    ];
    let (base, now) = (&window.base.pressure, &window.now.pressure);
    sections.extend([
        ("pressure.cpu", window.pressure(base.cpu, now.cpu)),
        ("pressure.memory", window.pressure(base.memory, now.memory)),
        ("pressure.io", window.pressure(base.io, now.io)),
    ]);
    Derived {
        sections,
        per_core_percent: per_core(&window.base.cpu, &window.now.cpu),
    }
}

impl Window<'_> {
    fn seconds(self) -> f64 {
        self.now.at_ns.saturating_sub(self.base.at_ns) as f64 / 1e9
    }

    /// Growth of a counter per second; absent if it ran backwards, which is a
    /// reset and says nothing.
    fn rate(self, base: Option<u64>, now: Option<u64>) -> Option<f64> {
        let grown = now?.checked_sub(base?)?;
        let seconds = self.seconds();
        (seconds > 0.0).then(|| grown as f64 / seconds)
    }

    fn cpu(self) -> Section {
        let (base, now) = (&self.base.cpu, &self.now.cpu);
        let host = shares(base.total, now.total);
        let allowed = allowed_cores(now);
        let quotas = binding_quotas(&self.now.cgroup, allowed);
        let quota = quotas.as_deref().and_then(tightest);
        let throttle = quota.and_then(|group| Some((before(&self.base.cgroup, group)?, group)));
        let usable = quotas
            .is_some()
            .then(|| quota.map_or(allowed, |group| Some(group.quota_cores)));
        let load = |age: usize| now.load.map(|load| load[age]);
        vec![
            ("usage_percent", self.usage_percent(allowed).into()),
            ("host_usage_percent", host.map(|host| host.busy).into()),
            ("host_iowait_percent", host.map(|host| host.iowait).into()),
            ("host_steal_percent", host.map(|host| host.steal).into()),
            ("allowed_cores", usable.flatten().into()),
            ("host_cores", online_cores(now).into()),
            (
                "throttled_percent",
                throttle
                    .and_then(|(base, now)| {
                        ratio(
                            now.throttled_periods?
                                .checked_sub(base.throttled_periods?)?,
                            now.periods?.checked_sub(base.periods?)?,
                        )
                    })
                    .into(),
            ),
            (
                "throttled_seconds",
                Value::Seconds(quota.and_then(|group| Some(group.throttled_ns? as f64 / 1e9))),
            ),
            ("load_1m", load(0).into()),
            ("load_5m", load(1).into()),
            ("load_15m", load(2).into()),
        ]
    }

    /// Share of the quota used where quotas bind (of the fullest one, since
    /// that one will throttle first), else the busy share of the processors
    /// this process may run on.
    fn usage_percent(self, allowed: Option<f64>) -> Option<f64> {
        let mut fullest = None;
        for group in binding_quotas(&self.now.cgroup, allowed)? {
            let base = before(&self.base.cgroup, group)?;
            let cores = self.rate(base.usage_ns, group.usage_ns)? / 1e9;
            // A burst, or a period more in the window, may pass the quota.
            let percent = (cores / group.quota_cores * 100.0).min(100.0);
            fullest = Some(percent.max(fullest.unwrap_or(0.0)));
        }
        fullest.or_else(|| allowed_busy(&self.base.cpu, &self.now.cpu))
    }

    fn memory(self) -> Section {
        let host = self.now.memory;
        let limits = binding_limits(&self.now.cgroup, host.total);
        let group = limits.as_deref().and_then(fullest);
        let host_used = || host.total?.checked_sub(host.available?);
        let (limit, used) = match &limits {
            Some(limits) if limits.is_empty() => (host.total, host_used()),
            _ => (group.map(|group| group.limit), group.and_then(working_set)),
        };
        let left = || Some(limit?.saturating_sub(used?));
        // A group can't have what the machine hasn't.
        let available = left().map(|left| left.min(host.available.unwrap_or(left)));
        let swap_used = || host.swap_total?.checked_sub(host.swap_free?);
        vec![
            (
                "percent",
                used.zip(limit)
                    .and_then(|(used, limit)| ratio(used, limit))
                    .into(),
            ),
            ("limit_bytes", limit.into()),
            ("used_bytes", used.into()),
            ("available_bytes", available.into()),
            ("host_total_bytes", host.total.into()),
            ("host_available_bytes", host.available.into()),
            ("swap_total_bytes", host.swap_total.into()),
            ("swap_used_bytes", swap_used().into()),
            ("cgroup_limit_bytes", group.map(|group| group.limit).into()),
            (
                "cgroup_usage_bytes",
                group.and_then(|group| group.usage).into(),
            ),
            (
                "cgroup_inactive_file_bytes",
                group.and_then(|group| group.inactive_file).into(),
            ),
            ("cgroup_oom_kills", Value::Total(self.now.cgroup.oom_kills)),
        ]
    }

    fn io(self) -> Section {
        let (base, now) = (&self.base.process, &self.now.process);
        vec![
            ("read_bytes", Value::Total(now.read_bytes)),
            ("write_bytes", Value::Total(now.write_bytes)),
            ("read_count", Value::Total(now.reads)),
            ("write_count", Value::Total(now.writes)),
            (
                "read_bytes_per_second",
                self.rate(base.read_bytes, now.read_bytes).into(),
            ),
            (
                "write_bytes_per_second",
                self.rate(base.write_bytes, now.write_bytes).into(),
            ),
        ]
    }

    fn network(self) -> Section {
        let (base, now) = (&self.base.network, &self.now.network);
        vec![
            ("received_bytes", Value::Total(now.received_bytes)),
            ("sent_bytes", Value::Total(now.sent_bytes)),
            ("received_packets", Value::Total(now.received_packets)),
            ("sent_packets", Value::Total(now.sent_packets)),
            ("errors", Value::Total(now.errors)),
            ("drops", Value::Total(now.drops)),
            (
                "received_bytes_per_second",
                self.rate(base.received_bytes, now.received_bytes).into(),
            ),
            (
                "sent_bytes_per_second",
                self.rate(base.sent_bytes, now.sent_bytes).into(),
            ),
        ]
    }

    fn disk(self) -> Section {
        let (base, now) = (&self.base.disk, &self.now.disk);
        let used = now.space_used.zip(now.space_free);
        vec![
            ("read_bytes", Value::Total(now.read_bytes)),
            ("write_bytes", Value::Total(now.write_bytes)),
            ("read_count", Value::Total(now.reads)),
            ("write_count", Value::Total(now.writes)),
            (
                "read_bytes_per_second",
                self.rate(base.read_bytes, now.read_bytes).into(),
            ),
            (
                "write_bytes_per_second",
                self.rate(base.write_bytes, now.write_bytes).into(),
            ),
            ("total_bytes", now.space_total.into()),
            ("free_bytes", now.space_free.into()),
            // As df(1): of what an unprivileged process could use at all.
            (
                "used_percent",
                used.and_then(|(used, free)| ratio(used, used.checked_add(free)?))
                    .into(),
            ),
        ]
    }

    fn process(self) -> Section {
        let (base, now) = (&self.base.process, &self.now.process);
        let cpu_percent = || {
            let used = now.cpu_seconds? - base.cpu_seconds?;
            let seconds = self.seconds();
            (seconds > 0.0 && used >= 0.0).then(|| used / seconds * 100.0)
        };
        let fd_percent = now.open_fds.zip(now.fd_limit);
        vec![
            ("cpu_percent", cpu_percent().into()),
            ("cpu_seconds", Value::Seconds(now.cpu_seconds)),
            ("rss_bytes", now.rss_bytes.into()),
            ("peak_rss_bytes", now.peak_rss_bytes.into()),
            ("threads", now.threads.into()),
            ("open_fds", now.open_fds.into()),
            ("fd_limit", now.fd_limit.into()),
            (
                "fd_percent",
                fd_percent
                    .and_then(|(open, limit)| ratio(open, limit))
                    .into(),
            ),
            ("voluntary_switches", Value::Total(now.voluntary_switches)),
            (
                "involuntary_switches",
                Value::Total(now.involuntary_switches),
            ),
            (
                "voluntary_switches_per_second",
                self.rate(base.voluntary_switches, now.voluntary_switches)
                    .into(),
            ),
            (
                "involuntary_switches_per_second",
                self.rate(base.involuntary_switches, now.involuntary_switches)
                    .into(),
            ),
        ]
    }

    fn pressure(self, base: Pressure, now: Pressure) -> Section {
        // The kernel's own averages lag; this is the share of this very window.
        let share = |base: Option<Stall>, now: Option<Stall>| {
            let micros = self.rate(
                base.map(|stall| stall.total_us),
                now.map(|stall| stall.total_us),
            )?;
            Some((micros / 1e6 * 100.0).min(100.0))
        };
        let average = |stall: Option<Stall>, age: usize| stall.map(|stall| stall.averages[age]);
        let seconds =
            |stall: Option<Stall>| Value::Seconds(stall.map(|stall| stall.total_us as f64 / 1e6));
        vec![
            ("some_percent", share(base.some, now.some).into()),
            ("some_avg10_percent", average(now.some, 0).into()),
            ("some_avg60_percent", average(now.some, 1).into()),
            ("some_avg300_percent", average(now.some, 2).into()),
            ("some_seconds", seconds(now.some)),
            ("full_percent", share(base.full, now.full).into()),
            ("full_avg10_percent", average(now.full, 0).into()),
            ("full_avg60_percent", average(now.full, 1).into()),
            ("full_avg300_percent", average(now.full, 2).into()),
            ("full_seconds", seconds(now.full)),
        ]
    }
}

/// `part` of `whole` in percent, at most 100.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| (part as f64 / whole as f64 * 100.0).min(100.0))
}

#[derive(Clone, Copy)]
struct Shares {
    busy: f64,
    iowait: f64,
    steal: f64,
}

fn shares(base: Option<CpuTimes>, now: Option<CpuTimes>) -> Option<Shares> {
    let (base, now) = (base?, now?);
    // Every column may step back a little when a processor goes offline or a
    // tick is accounted anew (proc(5) warns of iowait); then it did not grow.
    let total = now.total.checked_sub(base.total)?;
    let share = |base: u64, now: u64| ratio(now.saturating_sub(base), total);
    Some(Shares {
        busy: share(base.busy, now.busy)?,
        iowait: share(base.iowait, now.iowait)?,
        steal: share(base.steal, now.steal)?,
    })
}

fn core(cpu: &Cpu, wanted: usize) -> Option<CpuTimes> {
    let found = cpu.cores.iter().find(|(core, _)| *core == wanted);
    found.map(|(_, times)| *times)
}

fn per_core(base: &Cpu, now: &Cpu) -> Vec<f64> {
    now.cores
        .iter()
        .filter_map(|(number, times)| shares(core(base, *number), Some(*times)))
        .map(|share| share.busy)
        .collect()
}

fn online_cores(cpu: &Cpu) -> Option<u64> {
    (!cpu.cores.is_empty()).then_some(cpu.cores.len() as u64)
}

/// Processors online that this process may run on; all, when that is unknown.
fn allowed_cores(cpu: &Cpu) -> Option<f64> {
    let online = online_cores(cpu)? as usize;
    let allowed = cpu
        .cores
        .iter()
        .filter(|(core, _)| cpu.allowed.contains(core));
    let usable = if cpu.allowed.is_empty() {
        online
    } else {
        allowed.count()
    };
    (usable > 0).then_some(usable as f64)
}

/// The busy share of the allowed processors.
fn allowed_busy(base: &Cpu, now: &Cpu) -> Option<f64> {
    let everything = allowed_cores(now) == online_cores(now).map(|cores| cores as f64);
    if now.cores.is_empty() && !now.allowed.is_empty() {
        return None;
    }
    if now.cores.is_empty() || everything {
        return shares(base.total, now.total).map(|share| share.busy);
    }
    let (mut before, mut after) = (CpuTimes::default(), CpuTimes::default());
    for (number, times) in now
        .cores
        .iter()
        .filter(|(core, _)| now.allowed.contains(core))
    {
        // One that has just come online has no history to compare with.
        let Some(earlier) = core(base, *number) else {
            continue;
        };
        before.total += earlier.total;
        before.busy += earlier.busy;
        after.total += times.total;
        after.busy += times.busy;
    }
    shares(Some(before), Some(after)).map(|share| share.busy)
}

/// Quotas that allow less than the processors would; `None` if unknown.
fn binding_quotas(cgroup: &Cgroup, allowed: Option<f64>) -> Option<Vec<&CpuGroup>> {
    let most = allowed.unwrap_or(f64::INFINITY);
    let binds = |group: &&CpuGroup| group.quota_cores < most;
    Some(cgroup.cpu.as_ref()?.iter().filter(binds).collect())
}

fn tightest<'a>(quotas: &[&'a CpuGroup]) -> Option<&'a CpuGroup> {
    let tighter = |a: &&&CpuGroup, b: &&&CpuGroup| a.quota_cores.total_cmp(&b.quota_cores);
    quotas.iter().min_by(tighter).copied()
}

/// The same group in an earlier look.
fn before<'a>(base: &'a Cgroup, group: &CpuGroup) -> Option<&'a CpuGroup> {
    let earlier = base.cpu.as_ref()?.iter();
    earlier
        .into_iter()
        .find(|earlier| earlier.depth == group.depth)
}

/// Limits that allow less than the machine has; `None` if unknown.
fn binding_limits(cgroup: &Cgroup, host_total: Option<u64>) -> Option<Vec<&MemoryGroup>> {
    let binds = |group: &&MemoryGroup| host_total.is_none_or(|total| group.limit < total);
    Some(cgroup.memory.as_ref()?.iter().filter(binds).collect())
}

/// What the kernel can't take back at once, as the kubelet counts it.
fn working_set(group: &MemoryGroup) -> Option<u64> {
    Some(group.usage?.saturating_sub(group.inactive_file?))
}

/// The limit that is nearest to being reached; absent if any can't be told,
/// since that one might be it.
fn fullest<'a>(limits: &[&'a MemoryGroup]) -> Option<&'a MemoryGroup> {
    let mut fullest: Option<(f64, &MemoryGroup)> = None;
    for group in limits {
        let share = working_set(group)? as f64 / group.limit.max(1) as f64;
        if fullest.is_none_or(|(most, _)| share > most) {
            fullest = Some((share, group));
        }
    }
    fullest.map(|(_, group)| group)
}
