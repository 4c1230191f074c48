//! Looks at systems that have no `/proc`, through `sysinfo`.
//!
//! It tells less: no control groups, pressure, switches or descriptors, and
//! those figures are absent. It works on Linux too, where the tests hold it
//! against `/proc`.

use std::path::{Path, PathBuf};

use sysinfo::{
    CpuRefreshKind, DiskRefreshKind, Disks, MemoryRefreshKind, Networks, Pid, ProcessRefreshKind,
    ProcessesToUpdate, System,
};

use super::reading::{Cgroup, Cpu, CpuTimes, Disk, Memory, Network, Process, Reading};
use super::system;

/// Reads through `sysinfo`.
#[derive(Debug)]
pub(super) struct PortableReader {
    system: System,
    networks: Networks,
    disks: Disks,
    disk_path: PathBuf,
    pid: Pid,
    /// Ticks made up from `sysinfo`'s percentages, so that windows of any
    /// length can be taken as from real counters.
    cores: Vec<CpuTimes>,
    looked_ns: u64,
}

impl PortableReader {
    pub(super) fn new(disk_path: &Path) -> Self {
        let mut system = System::new();
        system.refresh_cpu_usage();
        Self {
            system,
            networks: Networks::new_with_refreshed_list(),
            disks: Disks::new_with_refreshed_list(),
            disk_path: disk_path.to_path_buf(),
            pid: Pid::from_u32(std::process::id()),
            cores: Vec::new(),
            looked_ns: 0,
        }
    }

    pub(super) fn read(&mut self, now_ns: u64) -> Reading {
        Reading {
            at_ns: now_ns,
            cpu: self.cpu(now_ns),
            memory: self.memory(),
            disk: self.disk(),
            network: self.network(),
            process: self.process(),
            cgroup: Cgroup {
                // There are none on such systems, so none is unknown.
                cpu: Some(Vec::new()),
                memory: Some(Vec::new()),
                oom_kills: None,
            },
            ..Reading::default()
        }
    }

    fn cpu(&mut self, now_ns: u64) -> Cpu {
        let elapsed_ns = now_ns.saturating_sub(self.looked_ns);
        let first = self.cores.is_empty();
        if first || elapsed_ns >= sysinfo::MINIMUM_CPU_UPDATE_INTERVAL.as_nanos() as u64 {
            self.system
                .refresh_cpu_specifics(CpuRefreshKind::nothing().with_cpu_usage());
            self.count(if first { 0 } else { elapsed_ns / 1000 });
            self.looked_ns = now_ns;
        }
        let load = System::load_average();
        // Windows has no load average; sysinfo says 0 for it.
        let load = (!cfg!(windows)).then_some([load.one, load.five, load.fifteen]);
        Cpu {
            total: Some(
                self.cores
                    .iter()
                    .fold(CpuTimes::default(), |sum, core| CpuTimes {
                        total: sum.total + core.total,
                        busy: sum.busy + core.busy,
                        ..sum
                    }),
            ),
            cores: self.cores.iter().copied().enumerate().collect(),
            allowed: Vec::new(),
            load,
        }
    }

    fn count(&mut self, ticks: u64) {
        let cpus = self.system.cpus();
        self.cores.resize(cpus.len(), CpuTimes::default());
        for (core, cpu) in self.cores.iter_mut().zip(cpus) {
            core.total += ticks;
            core.busy += (ticks as f64 * f64::from(cpu.cpu_usage()) / 100.0) as u64;
        }
    }

    fn memory(&mut self) -> Memory {
        self.system
            .refresh_memory_specifics(MemoryRefreshKind::everything());
        let system = &self.system;
        Memory {
            total: Some(system.total_memory()),
            available: Some(system.available_memory()),
            swap_total: Some(system.total_swap()),
            swap_free: Some(system.free_swap()),
        }
    }

    fn disk(&mut self) -> Disk {
        self.disks
            .refresh_specifics(false, DiskRefreshKind::nothing().with_io_usage());
        let usages = || self.disks.list().iter().map(sysinfo::Disk::usage);
        let space = system::space(&self.disk_path);
        Disk {
            read_bytes: Some(usages().map(|usage| usage.total_read_bytes).sum()),
            write_bytes: Some(usages().map(|usage| usage.total_written_bytes).sum()),
            reads: None,
            writes: None,
            space_total: space.map(|space| space.total),
            space_free: space.map(|space| space.free),
            space_used: space.map(|space| space.used),
        }
    }

    fn network(&mut self) -> Network {
        self.networks.refresh(true);
        // Loopback goes by `lo` on Linux, `lo0` on macOS.
        let real = |name: &str| name != "lo" && name != "lo0";
        let sum = |count: fn(&sysinfo::NetworkData) -> u64| {
            let interfaces = self.networks.list().iter();
            Some(
                interfaces
                    .filter(|(name, _)| real(name))
                    .map(|(_, data)| count(data))
                    .sum(),
            )
        };
        Network {
            received_bytes: sum(sysinfo::NetworkData::total_received),
            sent_bytes: sum(sysinfo::NetworkData::total_transmitted),
            received_packets: sum(sysinfo::NetworkData::total_packets_received),
            sent_packets: sum(sysinfo::NetworkData::total_packets_transmitted),
            errors: sum(|data| {
                data.total_errors_on_received() + data.total_errors_on_transmitted()
            }),
            drops: None,
        }
    }

    fn process(&mut self) -> Process {
        let kind = ProcessRefreshKind::nothing()
            .with_memory()
            .with_disk_usage()
            .with_cpu();
        self.system
            .refresh_processes_specifics(ProcessesToUpdate::Some(&[self.pid]), true, kind);
        let Some(own) = self.system.process(self.pid) else {
            return Process::default();
        };
        let usage = system::usage();
        let disk = own.disk_usage();
        let count = |count: Option<usize>| count.map(|count| count as u64);
        Process {
            cpu_seconds: usage
                .map(|usage| usage.cpu_seconds)
                .or(Some(own.accumulated_cpu_time() as f64 / 1e3)),
            age_seconds: Some(own.run_time() as f64),
            rss_bytes: Some(own.memory()),
            open_fds: count(own.open_files()),
            fd_limit: count(own.open_files_limit()),
            voluntary_switches: usage.map(|usage| usage.voluntary_switches),
            involuntary_switches: usage.map(|usage| usage.involuntary_switches),
            read_bytes: Some(disk.total_read_bytes),
            write_bytes: Some(disk.total_written_bytes),
            ..Process::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_what_it_can() {
        let mut reader = PortableReader::new(Path::new("/"));
        let first = reader.read(1);
        std::thread::sleep(sysinfo::MINIMUM_CPU_UPDATE_INTERVAL);
        let second = reader.read(1_000_000_001);

        let (before, after) = (first.cpu.total.unwrap(), second.cpu.total.unwrap());
        assert!(after.total > before.total && after.busy - before.busy <= after.total);
        assert!(second.memory.available.unwrap() <= second.memory.total.unwrap());
        assert!(second.process.rss_bytes.unwrap() > 0);
        assert!(second.disk.space_total.unwrap() > 0);
    }
}
