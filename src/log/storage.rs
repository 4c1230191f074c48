//! Where rings lie, and how those of dead processes are found.
//!
//! A ring is a file `mtaio-<log>-<pid>-<n>.ring`, mode 0600, in memory-backed
//! storage. Its owner holds a lock on it for as long as it lives; a ring whose
//! lock is to be had is a dead process's. `<log>` is a hash of the log's path.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::fork::Guarded;
use super::fuse;
use super::mapping::Mapping;
use super::ring::{self, HEADER, NOWHERE, Refused, Ring, Unfit};
use super::spill::{self, Spills};

/// Memory-backed on every Linux we know; verified by `is_memory`.
const SHARED_MEMORY: &str = "/dev/shm";
/// No ring we make is larger; a larger file is not one of ours.
const LARGEST: u64 = 1 << 32;

/// A ring with the file that lets it outlive the process.
pub(super) struct Housed {
    pub(super) ring: Ring,
    pub(super) spills: Spills,
    home: Option<Home>,
}

/// A ring's file, locked.
pub(super) struct Home {
    path: PathBuf,
    /// Says that the owner lives, or that a dead one's ring is in hand.
    _lock: Guarded,
}

impl Home {
    /// Removes a dead process's ring and what lies beside it: that first, since
    /// without its ring it would not be found.
    pub(super) fn remove(&self) {
        spill::remove_beside(&self.path);
        fuse::before();
        let _ = fs::remove_file(&self.path);
    }
}

impl Housed {
    fn new(ring: Ring, home: Option<Home>) -> Self {
        let beside = home.as_ref().map(|home| home.path.clone());
        Self {
            spills: Spills::new(beside, ring.capacity()),
            ring,
            home,
        }
    }

    /// The ring's file.
    pub(super) fn home(&self) -> Option<&Path> {
        self.home.as_ref().map(|home| home.path.as_path())
    }

    /// True when the records outlive the process.
    pub(super) fn is_durable(&self) -> bool {
        self.home.is_some()
    }

    /// Accepts `record`, beside the ring if it would crowd out the others.
    pub(super) fn push(&self, record: &[u8]) -> Result<u64, Refused> {
        if self.is_long(record) {
            return self.push_long(record);
        }
        self.ring.push(record, false)
    }

    fn is_long(&self, record: &[u8]) -> bool {
        record.len() > self.ring.longest() / 4
    }

    #[cold]
    fn push_long(&self, record: &[u8]) -> Result<u64, Refused> {
        let spill = self.spills.put(record).ok_or(Refused::Full)?;
        let pushed = self.ring.push(&spill.to_bytes(), true);
        if pushed.is_err() {
            self.spills.forget(&spill);
        }
        pushed
    }

    /// True while half of the ring is free, and what lies beside it has room for
    /// `record` if it is to lie there.
    pub(super) fn has_room(&self, record: &[u8]) -> bool {
        self.ring.used() <= self.ring.capacity() / 2
            && (!self.is_long(record) || self.spills.have_room(record))
    }

    /// Removes the ring's file if nothing waits in the ring.
    pub(super) fn retire(&self) {
        if let (Some(home), 0) = (&self.home, self.ring.used()) {
            fuse::before();
            let _ = fs::remove_file(&home.path);
        }
    }

    /// Removes the ring's file whatever it holds.
    pub(super) fn discard(&self) {
        if let Some(home) = &self.home {
            home.remove();
        }
    }
}

/// The folder for rings, where the system has one in memory.
pub(super) fn default_folder() -> Option<PathBuf> {
    let folder = PathBuf::from(SHARED_MEMORY);
    is_memory(&folder).then_some(folder)
}

/// A ring for the log at `path`: in `folder` if that can be, else on the heap.
///
/// The error, if any, says why the records will not outlive the process.
pub(super) fn house(
    folder: Option<&Path>,
    path: &Path,
    capacity: usize,
) -> (Housed, Option<io::Error>) {
    let refused = match folder.map(|folder| in_folder(folder, path, capacity)) {
        Some(Ok(housed)) => return (housed, None),
        Some(Err(error)) => Some(error),
        None => None,
    };
    let ring = ring::on_heap(capacity, path);
    (Housed::new(ring, None), refused)
}

fn in_folder(folder: &Path, path: &Path, capacity: usize) -> io::Result<Housed> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    // A few tries: a recovering process may take a ring for dead between its
    // making and its locking, and remove it.
    for _ in 0..8 {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}{}-{number}.ring", prefix(path), std::process::id());
        let home = folder.join(name);
        let lock = match Guarded::open(|| create_private(&home)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            other => other?,
        };
        match furnish(&lock, &home, path, capacity) {
            Ok(Some(ring)) => {
                let home = Some(Home {
                    path: home,
                    _lock: lock,
                });
                return Ok(Housed::new(ring, home));
            }
            Ok(None) => {}
            Err(error) => {
                let _ = fs::remove_file(&home);
                return Err(error);
            }
        }
    }
    Err(io::Error::other("no free name for a ring"))
}

fn furnish(lock: &File, home: &Path, path: &Path, capacity: usize) -> io::Result<Option<Ring>> {
    // Not ours any more: a recovering process took it for a dead one's.
    if lock.try_lock().is_err() || !home.exists() {
        return Ok(None);
    }
    allocate(lock, (HEADER + capacity) as u64)?;
    ring::in_file(&unlocked(home)?, capacity, path).map(Some)
}

/// What a dead process left for a log.
pub(super) enum Orphan {
    /// Its ring, locked.
    Ring(Housed),
    /// A ring that says nothing any more, and its bytes.
    Damaged(Home, u64),
    /// A ring of another version, which is left to it.
    Foreign(PathBuf),
}

impl Orphan {
    pub(super) fn foreign(&self) -> Option<&Path> {
        match self {
            Self::Foreign(home) => Some(home),
            _ => None,
        }
    }
}

/// The rings that dead processes left for the log at `path`, each locked.
pub(super) fn orphans(folder: &Path, path: &Path) -> Vec<Orphan> {
    let homes = homes(folder, path);
    homes.iter().filter_map(|home| adopt(home, path)).collect()
}

/// True if the ring at `home` says of a write to the log at `path` that it was
/// begun, and not that it was done.
pub(super) fn is_cut(home: &Path, path: &Path) -> bool {
    let Ok(file) = open_private(home) else {
        return false;
    };
    let len = file.metadata().map_or(0, |about| about.len());
    let is_ring = is_ours(&file) && len <= LARGEST;
    is_ring
        && open_ring(home, len as usize).is_ok_and(|ring| {
            let intent = ring.unsettled();
            intent.is_some_and(|intent| intent.offset != NOWHERE) && ring.path() == recorded(path)
        })
}

/// True while the owner of the ring at `home`, or who recovers it, lives.
pub(super) fn is_held(home: &Path) -> bool {
    let lock = Guarded::open(|| open_private(home));
    lock.is_ok_and(|lock| lock.try_lock().is_err())
}

/// Where rings of the log may lie. What is left of a ring that is gone goes.
pub(super) fn homes(folder: &Path, path: &Path) -> Vec<PathBuf> {
    let prefix = prefix(path);
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let ours = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        name.as_encoded_bytes().starts_with(prefix.as_bytes())
    };
    let mut found = Vec::new();
    for entry in entries.flatten().filter(ours).map(|entry| entry.path()) {
        if entry.extension().is_some_and(|end| end == "ring") {
            found.push(entry);
        } else if let Some(ring) = spill::ring_of(&entry) {
            spill::remove_ringless(&entry, &ring);
        }
    }
    // By number, so that two rings of one process are emptied in their order.
    found.sort_by_key(|home| (home.as_os_str().len(), home.clone()));
    found
}

/// The file to map: opened apart from the lock, because a mapping keeps the
/// lock of the descriptor it was made from, and a forked child the mapping.
fn unlocked(home: &Path) -> io::Result<File> {
    open_private(home)
}

fn adopt(home: &Path, path: &Path) -> Option<Orphan> {
    let lock = Guarded::open(|| open_private(home)).ok()?;
    // Refused while the owner lives, or while another process recovers it.
    lock.try_lock().ok()?;
    let len = lock.metadata().ok()?.len();
    if !is_ours(&lock) || len > LARGEST {
        return None;
    }
    let opened = open_ring(home, len as usize);
    let home = Home {
        path: home.to_owned(),
        _lock: lock,
    };
    match opened {
        Ok(ring) if ring.path() == recorded(path) => {
            Some(Orphan::Ring(Housed::new(ring, Some(home))))
        }
        // Another log's, whose path has the same hash.
        Ok(_) => None,
        Err(Unfit::Unfinished) => {
            home.remove();
            None
        }
        Err(Unfit::Foreign) => Some(Orphan::Foreign(home.path)),
        Err(Unfit::Damaged) => Some(Orphan::Damaged(home, len)),
    }
}

fn open_ring(home: &Path, len: usize) -> Result<Ring, Unfit> {
    if len == 0 {
        return Err(Unfit::Unfinished);
    }
    let file = unlocked(home).map_err(|_| Unfit::Damaged)?;
    let map = Mapping::shared(&file, len).map_err(|_| Unfit::Damaged)?;
    Ring::adopt(map, len)
}

/// Lays `image` where the dead process `process` would have left its ring.
#[cfg(all(target_os = "linux", any(test, fuzzing), not(feature = "loom")))]
pub(super) fn leave(folder: &Path, path: &Path, process: u32, image: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let name = format!("{}{process}-0.ring", prefix(path));
    create_private(&folder.join(name))?.write_all(image)
}

#[cfg(unix)]
fn recorded(path: &Path) -> &[u8] {
    use std::os::unix::ffi::OsStrExt;
    let path = path.as_os_str().as_bytes();
    &path[..path.len().min(ring::LONGEST_PATH)]
}

#[cfg(not(unix))]
fn recorded(path: &Path) -> &[u8] {
    path.as_os_str().as_encoded_bytes()
}

/// FNV-1a of the path: stable across versions, and the full path is compared.
fn prefix(path: &Path) -> String {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3);
    let hash = recorded(path).iter().fold(0xCBF2_9CE4_8422_2325, step);
    format!("mtaio-{hash:016x}-")
}

#[cfg(unix)]
pub(super) fn create_private(home: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create_new(true);
    options
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(home)
}

#[cfg(unix)]
pub(super) fn open_private(home: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true);
    options
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(home)
}

/// The folder is world-writable: what another user put there is not ours.
#[cfg(unix)]
#[allow(unsafe_code)]
pub(super) fn is_ours(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: `geteuid` has no precondition and can't fail.
    let user = unsafe { libc::geteuid() };
    file.metadata().is_ok_and(|m| {
        m.is_file() && m.uid() == user && m.mode() & 0o777 == 0o600 && m.nlink() == 1
    })
}

#[cfg(not(unix))]
pub(super) fn create_private(_home: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
pub(super) fn open_private(home: &Path) -> io::Result<File> {
    File::open(home)
}

#[cfg(not(unix))]
pub(super) fn is_ours(_file: &File) -> bool {
    false
}

/// Reserves the pages now: to run out of them later would be a SIGBUS.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn allocate(file: &File, len: u64) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let len = libc::off_t::try_from(len).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open; the call touches no memory of ours.
    match unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, len) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

#[cfg(not(target_os = "linux"))]
fn allocate(_file: &File, _len: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// True for tmpfs and ramfs, whose pages never wait for a disk.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
pub(super) fn is_memory(folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    const RAMFS_MAGIC: i64 = 0x8584_58F6;
    let Ok(name) = std::ffi::CString::new(folder.as_os_str().as_bytes()) else {
        return false;
    };
    let mut about = std::mem::MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: a terminated path and room for the answer, which is plain data
    // and zeroed, so it is initialised even if the call fails.
    let (code, about) = unsafe {
        let code = libc::statfs(name.as_ptr(), about.as_mut_ptr());
        (code, about.assume_init())
    };
    #[allow(clippy::unnecessary_cast)] // `f_type` is narrower on some targets
    let kind = about.f_type as i64;
    #[allow(clippy::unnecessary_cast)]
    let tmpfs = libc::TMPFS_MAGIC as i64;
    code == 0 && (kind == tmpfs || kind == RAMFS_MAGIC)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn is_memory(_folder: &Path) -> bool {
    false
}
