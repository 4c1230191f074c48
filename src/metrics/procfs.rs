//! Looks at Linux: a few files kept open, read whole, every interval.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::cgroup::Groups;
use super::kept::KeptFile;
use super::place::Texts;
use super::reading::{Cpu, Disk, Pressure, Pressures, Process, Reading};
use super::{host, own, system};

/// How often to look whether the process was moved to another group, a limit of
/// files was changed, or a file has come to exist.
const REDISCOVER_NS: u64 = 30_000_000_000;

/// Reads `/proc` and `/sys` below a root. Belongs to the process that made it:
/// a forked child makes its own.
#[derive(Debug)]
pub(super) struct ProcReader {
    root: PathBuf,
    disk_path: PathBuf,
    buffer: Vec<u8>,
    stat: KeptFile,
    load: KeptFile,
    memory: KeptFile,
    disks: KeptFile,
    network: KeptFile,
    status: KeptFile,
    io: KeptFile,
    pressure: [KeptFile; 3],
    groups: Groups,
    /// What `/proc/self/cgroup` said when `groups` was found.
    membership: Vec<u8>,
    fd_limit: Option<u64>,
    /// Names of `/proc/diskstats`, and whether each is a disk of its own.
    known_disks: HashMap<Vec<u8>, bool>,
    /// Age of the process, and when that was so.
    age: Option<(f64, u64)>,
    found_ns: u64,
}

impl ProcReader {
    pub(super) fn new(root: &Path, disk_path: &Path, now_ns: u64) -> Self {
        let proc = |name: &str| KeptFile::new(root.join("proc").join(name));
        let mut reader = Self {
            root: root.to_path_buf(),
            disk_path: disk_path.to_path_buf(),
            buffer: Vec::new(),
            stat: proc("stat"),
            load: proc("loadavg"),
            memory: proc("meminfo"),
            disks: proc("diskstats"),
            network: proc("self/net/dev"),
            status: proc("self/status"),
            io: proc("self/io"),
            pressure: ["cpu", "memory", "io"].map(|name| proc(&format!("pressure/{name}"))),
            groups: Groups::default(),
            // Of no process, so that the first look finds the groups.
            membership: b"?".to_vec(),
            fd_limit: None,
            known_disks: HashMap::new(),
            age: None,
            found_ns: now_ns,
        };
        reader.age = reader.age_now().map(|age| (age, now_ns));
        reader.rediscover(now_ns);
        reader
    }

    pub(super) fn read(&mut self, now_ns: u64) -> Reading {
        if now_ns.saturating_sub(self.found_ns) >= REDISCOVER_NS {
            self.rediscover(now_ns);
        }
        let (process, allowed) = self.process(now_ns);
        Reading {
            at_ns: now_ns,
            cpu: self.cpu(allowed),
            memory: self
                .memory
                .read(&mut self.buffer)
                .map(host::memory)
                .unwrap_or_default(),
            cgroup: self.groups.read(&mut self.buffer),
            pressure: self.pressures(),
            disk: self.disk(),
            network: self
                .network
                .read(&mut self.buffer)
                .map(host::network)
                .unwrap_or_default(),
            process,
        }
    }

    /// Looks again for what seldom changes.
    fn rediscover(&mut self, now_ns: u64) {
        self.found_ns = now_ns;
        let text = |name: &str| std::fs::read(self.root.join("proc/self").join(name)).ok();
        self.fd_limit = text("limits").as_deref().and_then(own::fd_limit);
        let membership = text("cgroup").unwrap_or_default();
        if membership != self.membership {
            let mounts = text("mountinfo").unwrap_or_default();
            self.groups = Groups::find(Texts {
                root: &self.root,
                cgroup: &membership,
                mountinfo: &mounts,
            });
            self.membership = membership;
        }
        self.groups.retry();
        self.known_disks.clear();
        for file in [
            &mut self.stat,
            &mut self.load,
            &mut self.memory,
            &mut self.disks,
            &mut self.network,
            &mut self.status,
            &mut self.io,
        ] {
            file.retry();
        }
        self.pressure.iter_mut().for_each(KeptFile::retry);
    }

    fn cpu(&mut self, allowed: Vec<usize>) -> Cpu {
        let mut cpu = self
            .stat
            .read(&mut self.buffer)
            .map(host::cpu)
            .unwrap_or_default();
        cpu.load = self.load.read(&mut self.buffer).and_then(host::load);
        cpu.allowed = allowed;
        cpu
    }

    fn process(&mut self, now_ns: u64) -> (Process, Vec<usize>) {
        let mut process = Process {
            fd_limit: self.fd_limit,
            open_fds: open_fds(&self.root),
            age_seconds: self.age_at(now_ns),
            ..Process::default()
        };
        if let Some(usage) = system::usage() {
            process.cpu_seconds = Some(usage.cpu_seconds);
            process.voluntary_switches = Some(usage.voluntary_switches);
            process.involuntary_switches = Some(usage.involuntary_switches);
        }
        if let Some(text) = self.io.read(&mut self.buffer) {
            own::io(text, &mut process);
        }
        let status = self.status.read(&mut self.buffer);
        let allowed = status.map(|text| own::status(text, &mut process));
        (process, allowed.unwrap_or_default())
    }

    /// The group's own pressure where it keeps one, else the machine's.
    fn pressures(&mut self) -> Pressures {
        if let Some(own) = self.groups.pressure(&mut self.buffer) {
            return own;
        }
        let [cpu, memory, io] = self.pressure.each_mut().map(|file| {
            let text = file.read(&mut self.buffer);
            text.map_or_else(Pressure::default, host::pressure)
        });
        Pressures { cpu, memory, io }
    }

    fn disk(&mut self) -> Disk {
        let (known, root) = (&mut self.known_disks, &self.root);
        let text = self.disks.read(&mut self.buffer);
        let mut disk = text
            .map(|text| host::disks(text, |name| is_disk(known, root, name)))
            .unwrap_or_default();
        if let Some(space) = system::space(&self.disk_path) {
            disk.space_total = Some(space.total);
            disk.space_free = Some(space.free);
            disk.space_used = Some(space.used);
        }
        disk
    }

    fn age_now(&mut self) -> Option<f64> {
        let text = |name: &str| std::fs::read(self.root.join("proc").join(name)).ok();
        let started = own::started(&text("self/stat")?)?;
        let uptime = own::uptime(&text("uptime")?)?;
        // lxcfs gives a container an uptime of its own, shorter than the age.
        (uptime >= started).then_some(uptime - started)
    }

    fn age_at(&self, now_ns: u64) -> Option<f64> {
        let (age, at_ns) = self.age?;
        Some(age + now_ns.saturating_sub(at_ns) as f64 / 1e9)
    }
}

/// A disk of its own has a device behind it; partitions, loops, RAM disks and
/// what is stacked on other disks (LVM, RAID) have none, and would count twice.
fn is_disk(known: &mut HashMap<Vec<u8>, bool>, root: &Path, name: &[u8]) -> bool {
    if let Some(known) = known.get(name) {
        return *known;
    }
    // The kernel writes a slash of the name as `!` in /sys.
    let folder = String::from_utf8_lossy(name).replace('/', "!");
    let found = root.join("sys/block").join(folder).join("device").exists();
    known.insert(name.to_vec(), found);
    found
}

/// Since Linux 6.2 the folder's size is the count; before, it says 0.
fn open_fds(root: &Path) -> Option<u64> {
    let folder = root.join("proc/self/fd");
    let size = std::fs::metadata(&folder).ok()?.len();
    if size > 0 && root == Path::new("/") {
        return Some(size);
    }
    let listed = std::fs::read_dir(&folder).ok()?.count() as u64;
    // Listing takes one descriptor itself.
    Some(if root == Path::new("/") {
        listed.saturating_sub(1)
    } else {
        listed
    })
}
