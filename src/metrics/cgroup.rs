//! The limits that control groups set on this process.
//!
//! Limits nest: the tightest on the way from the process's group up to the
//! mount holds. See cgroups(7) and Documentation/admin-guide/cgroup-v2.rst.

use std::path::Path;

use super::fields::{keyed, lines, number, only, words};
use super::host::pressure;
use super::kept::KeptFile;
use super::place::{Place, Texts, Version};
use super::reading::{Cgroup, CpuGroup, MemoryGroup, Pressure, Pressures};

/// The groups of this process, with their files kept open.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Innermost first; `None` if they can't be told.
    cpu: Option<Vec<CpuFiles>>,
    memory: Option<Vec<MemoryFiles>>,
    oom: Option<KeptFile>,
    /// The innermost group's own pressure files; version 2 only.
    pressure: Option<[KeptFile; 3]>,
}

/// What a limit file says.
enum Limit<T> {
    At(T),
    /// No limit here.
    Free,
    /// Can't be read, or not understood: any limit may hold.
    Unknown,
}

impl<T> Limit<T> {
    /// Of a file that gave no text. The mount has no limit files, and a group
    /// has none whose parent doesn't pass the controller on.
    fn unread(file: &KeptFile) -> Self {
        if file.is_missing() {
            Self::Free
        } else {
            Self::Unknown
        }
    }
}

/// The limits there are; `None` if one is unknown.
fn known<T>(limits: impl Iterator<Item = Limit<T>>) -> Option<Vec<T>> {
    limits
        .filter_map(|limit| match limit {
            Limit::At(limit) => Some(Some(limit)),
            Limit::Free => None,
            Limit::Unknown => Some(None),
        })
        .collect()
}

impl Groups {
    /// Finds the files; reads none of them.
    pub(super) fn find(texts: Texts<'_>) -> Self {
        if !texts.are_whole() {
            return Self::default();
        }
        // A controller that is nowhere mounted sets no limit that anyone sees.
        let cpu = texts.controller(b"cpu");
        let memory = texts.controller(b"memory");
        let cpuacct = texts.controller(b"cpuacct");
        let cpu_level = |place: &Place| {
            place.levels(|group, depth| CpuFiles::new(place, cpuacct.as_ref(), group, depth))
        };
        let memory_level = |place: &Place| place.levels(|group, _| MemoryFiles::new(place, group));
        Self {
            cpu: Some(cpu.as_ref().map(cpu_level).unwrap_or_default()),
            memory: Some(memory.as_ref().map(memory_level).unwrap_or_default()),
            oom: memory.as_ref().map(oom_file),
            pressure: texts.unified().map(|place| pressure_files(&place)),
        }
    }

    /// Tries again what could not be read.
    pub(super) fn retry(&mut self) {
        self.cpu.iter_mut().flatten().for_each(CpuFiles::retry);
        self.memory
            .iter_mut()
            .flatten()
            .for_each(MemoryFiles::retry);
        self.oom.iter_mut().for_each(KeptFile::retry);
        self.pressure.iter_mut().flatten().for_each(KeptFile::retry);
    }

    pub(super) fn read(&mut self, buffer: &mut Vec<u8>) -> Cgroup {
        let cpu = self.cpu.as_mut();
        let cpu = cpu.and_then(|levels| known(levels.iter_mut().map(|level| level.read(buffer))));
        let memory = self.memory.as_mut();
        let memory =
            memory.and_then(|levels| known(levels.iter_mut().map(|level| level.read(buffer))));
        let oom = self.oom.as_mut();
        let oom_kills = oom.and_then(|file| keyed(file.read(buffer)?, b"oom_kill"));
        Cgroup {
            cpu,
            memory,
            oom_kills,
        }
    }

    /// The innermost group's pressure, if it keeps any.
    pub(super) fn pressure(&mut self, buffer: &mut Vec<u8>) -> Option<Pressures> {
        let files = self.pressure.as_mut()?;
        let [cpu, memory, io] = files.each_mut().map(|file| {
            let text = file.read(buffer);
            text.map_or_else(Pressure::default, pressure)
        });
        (!files[0].is_missing()).then_some(Pressures { cpu, memory, io })
    }
}

fn oom_file(memory: &Place) -> KeptFile {
    KeptFile::new(memory.innermost().join(match memory.version {
        Version::One => "memory.oom_control",
        Version::Two => "memory.events",
    }))
}

fn pressure_files(unified: &Place) -> [KeptFile; 3] {
    ["cpu.pressure", "memory.pressure", "io.pressure"]
        .map(|name| KeptFile::new(unified.innermost().join(name)))
}

/// One group's processor files.
#[derive(Debug)]
struct CpuFiles {
    depth: usize,
    version: Version,
    /// `cpu.max`; in version 1 quota and period are two files.
    quota: KeptFile,
    period: Option<KeptFile>,
    stat: KeptFile,
    /// `cpuacct.usage` of version 1; version 2 has it in `stat`.
    usage: Option<KeptFile>,
}

impl CpuFiles {
    fn new(cpu: &Place, cpuacct: Option<&Place>, group: &Path, depth: usize) -> Self {
        let file = |place: &Place, name: &str| KeptFile::new(place.mount.join(group).join(name));
        let version = cpu.version;
        let stat = file(cpu, "cpu.stat");
        if version == Version::Two {
            return Self {
                depth,
                version,
                quota: file(cpu, "cpu.max"),
                period: None,
                stat,
                usage: None,
            };
        }
        // Only the same group's usage may be held against the quota.
        let same = cpuacct.filter(|place| place.group == cpu.group);
        Self {
            depth,
            version,
            quota: file(cpu, "cpu.cfs_quota_us"),
            period: Some(file(cpu, "cpu.cfs_period_us")),
            stat,
            usage: same.map(|place| file(place, "cpuacct.usage")),
        }
    }

    fn retry(&mut self) {
        self.quota.retry();
        self.stat.retry();
        self.period
            .iter_mut()
            .chain(&mut self.usage)
            .for_each(KeptFile::retry);
    }

    fn read(&mut self, buffer: &mut Vec<u8>) -> Limit<CpuGroup> {
        match self.quota_cores(buffer) {
            Limit::At(quota_cores) => Limit::At(self.group(quota_cores, buffer)),
            Limit::Free => Limit::Free,
            Limit::Unknown => Limit::Unknown,
        }
    }

    fn group(&mut self, quota_cores: f64, buffer: &mut Vec<u8>) -> CpuGroup {
        let usage_v1 = self
            .usage
            .as_mut()
            .and_then(|file| only(file.read(buffer)?));
        let stat = self.stat.read(buffer).unwrap_or_default();
        let micros = |key: &[u8]| keyed(stat, key)?.checked_mul(1000);
        let (usage_ns, throttled_ns) = match self.version {
            Version::One => (usage_v1, keyed(stat, b"throttled_time")),
            Version::Two => (micros(b"usage_usec"), micros(b"throttled_usec")),
        };
        CpuGroup {
            depth: self.depth,
            quota_cores,
            usage_ns,
            periods: keyed(stat, b"nr_periods"),
            throttled_periods: keyed(stat, b"nr_throttled"),
            throttled_ns,
        }
    }

    fn quota_cores(&mut self, buffer: &mut Vec<u8>) -> Limit<f64> {
        let Some(text) = self.quota.read(buffer) else {
            return Limit::unread(&self.quota);
        };
        if text.starts_with(b"max ") || text == b"-1\n" {
            return Limit::Free;
        }
        let (quota, mut period) = two_numbers(text);
        if let Some(file) = &mut self.period {
            period = file.read(buffer).and_then(only);
        }
        match (quota, period) {
            (Some(quota), Some(period)) if quota > 0 && period > 0 => {
                Limit::At(quota as f64 / period as f64)
            }
            _ => Limit::Unknown,
        }
    }
}

/// Version 2 has both on one line, `50000 100000`.
fn two_numbers(text: &[u8]) -> (Option<u64>, Option<u64>) {
    let mut found = words(lines(text).next().unwrap_or_default());
    let mut next = || found.next().and_then(number);
    (next(), next())
}

/// One group's memory files.
#[derive(Debug)]
struct MemoryFiles {
    version: Version,
    limit: KeptFile,
    usage: KeptFile,
    stat: KeptFile,
}

impl MemoryFiles {
    fn new(place: &Place, group: &Path) -> Self {
        let version = place.version;
        let folder = place.mount.join(group);
        let [limit, usage] = match version {
            Version::One => ["memory.limit_in_bytes", "memory.usage_in_bytes"],
            Version::Two => ["memory.max", "memory.current"],
        };
        Self {
            version,
            limit: KeptFile::new(folder.join(limit)),
            usage: KeptFile::new(folder.join(usage)),
            stat: KeptFile::new(folder.join("memory.stat")),
        }
    }

    fn retry(&mut self) {
        self.limit.retry();
        self.usage.retry();
        self.stat.retry();
    }

    fn read(&mut self, buffer: &mut Vec<u8>) -> Limit<MemoryGroup> {
        // Version 1 writes "no limit" as the largest number of whole pages.
        const FREE: u64 = (i64::MAX as u64) & !0xffff;
        let Some(text) = self.limit.read(buffer) else {
            return Limit::unread(&self.limit);
        };
        match only(text) {
            _ if text == b"max\n" => Limit::Free,
            Some(limit) if limit >= FREE => Limit::Free,
            Some(limit) => Limit::At(self.group(limit, buffer)),
            None => Limit::Unknown,
        }
    }

    fn group(&mut self, limit: u64, buffer: &mut Vec<u8>) -> MemoryGroup {
        let usage = self.usage.read(buffer).and_then(only);
        // Version 1 counts the group alone under the plain name, and all that
        // is below it under `total_`; its usage is of all, so this is too.
        let key: &[u8] = match self.version {
            Version::One => b"total_inactive_file",
            Version::Two => b"inactive_file",
        };
        let inactive_file = self.stat.read(buffer).and_then(|text| keyed(text, key));
        MemoryGroup {
            limit,
            usage,
            inactive_file,
        }
    }
}
