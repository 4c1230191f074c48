//! Where rings lie, and how those of dead processes are found.
//!
//! A ring is a file `mtaio-<log>-<pid>-<n>.ring`, mode 0600, in memory-backed
//! storage. Its owner holds a lock on it for as long as it lives; a ring whose
//! lock is to be had is a dead process's. `<log>` is a hash of the log's path.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::fork::Guarded;
use super::mapping::Mapping;
use super::ring::{self, HEADER, Ring, Unfit};

/// Memory-backed on every Linux we know; verified by `is_memory`.
const SHARED_MEMORY: &str = "/dev/shm";
/// No ring we make is larger; a larger file is not one of ours.
const LARGEST: u64 = 1 << 32;

/// A ring with the file that lets it outlive the process.
pub(super) struct Housed {
    pub(super) ring: Ring,
    home: Option<Home>,
    spills: Spills,
}

/// Records too long for the ring: files beside it, or here when there can't be.
#[derive(Default)]
struct Spills {
    next: AtomicU64,
    /// Bytes of all that are not forgotten.
    bytes: AtomicU64,
    held: Mutex<HashMap<u64, Vec<u8>>>,
}

impl Spills {
    fn locked(&self) -> MutexGuard<'_, HashMap<u64, Vec<u8>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What stands in the ring for a record beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spill {
    number: u64,
    len: u64,
    sum: u64,
}

impl Spill {
    pub(super) fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let words = [self.number, self.len, self.sum];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; 24] = bytes.try_into().ok()?;
        let word = |n: usize| {
            let bytes = bytes[n * 8..][..8].try_into();
            u64::from_le_bytes(bytes.expect("a slice of eight"))
        };
        Some(Self {
            number: word(0),
            len: word(1),
            sum: word(2),
        })
    }
}

struct Home {
    path: PathBuf,
    /// Holds the lock that says the owner lives.
    _lock: Guarded,
}

impl Housed {
    fn new(ring: Ring, home: Option<Home>) -> Self {
        Self {
            ring,
            home,
            spills: Spills::default(),
        }
    }

    /// True when the records outlive the process.
    pub(super) fn is_durable(&self) -> bool {
        self.home.is_some()
    }

    /// True while those beside the ring take no more memory than it does, or
    /// there are none: a record longer than the ring has to go somewhere.
    pub(super) fn takes(&self, record: &[u8]) -> bool {
        self.would_take(self.spills.bytes.load(Ordering::Relaxed), record)
    }

    fn would_take(&self, held: u64, record: &[u8]) -> bool {
        held == 0 || held + record.len() as u64 <= self.ring.capacity()
    }

    /// Puts a record that is too long for the ring beside it, if it has room.
    pub(super) fn spill(&self, record: &[u8]) -> Option<Spill> {
        let len = record.len() as u64;
        let claim = |held| self.would_take(held, record).then_some(held + len);
        let relaxed = Ordering::Relaxed;
        self.spills
            .bytes
            .fetch_update(relaxed, relaxed, claim)
            .ok()?;
        let number = self.spills.next.fetch_add(1, relaxed);
        if !self.spill_to_file(number, record) {
            self.spills.locked().insert(number, record.to_vec());
        }
        Some(Spill {
            number,
            len,
            sum: ring::checksum(record),
        })
    }

    /// False if there is no file for it, for want of room or of a ring's home.
    fn spill_to_file(&self, number: u64, record: &[u8]) -> bool {
        let Some(path) = self.spill_path(number) else {
            return false;
        };
        // `write` to a full tmpfs is an error, where a mapped page is a SIGBUS.
        let written = create_private(&path).and_then(|mut file| file.write_all(record));
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written.is_ok()
    }

    /// Appends the record to `out`; `NotFound` if it is gone or damaged.
    pub(super) fn unspill(&self, spill: &Spill, out: &mut Vec<u8>) -> io::Result<()> {
        let begin = out.len();
        if let Some(record) = self.spills.locked().get(&spill.number) {
            out.extend_from_slice(record);
            return Ok(());
        }
        let path = self.spill_path(spill.number);
        let file = open_private(&path.ok_or(io::ErrorKind::NotFound)?)?;
        if !is_ours(&file) || file.metadata()?.len() != spill.len {
            return Err(io::ErrorKind::NotFound.into());
        }
        (&file).take(spill.len).read_to_end(out)?;
        if ring::checksum(&out[begin..]) != spill.sum {
            out.truncate(begin);
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(())
    }

    /// Removes the record beside the ring: it is in the log.
    pub(super) fn forget(&self, spill: &Spill) {
        // A dead process's are not counted here.
        let less = |held: u64| Some(held.saturating_sub(spill.len));
        let relaxed = Ordering::Relaxed;
        let _ = self.spills.bytes.fetch_update(relaxed, relaxed, less);
        if self.spills.locked().remove(&spill.number).is_none()
            && let Some(path) = self.spill_path(spill.number)
        {
            let _ = fs::remove_file(path);
        }
    }

    fn spill_path(&self, number: u64) -> Option<PathBuf> {
        let home = self.home.as_ref()?;
        let mut name = home.path.as_os_str().to_owned();
        name.push(format!(".{number}"));
        Some(name.into())
    }

    /// Removes the ring's file if nothing waits in the ring.
    pub(super) fn retire(&self) {
        if let (Some(home), 0) = (&self.home, self.ring.used()) {
            let _ = fs::remove_file(&home.path);
        }
    }

    /// Removes the ring's file whatever it holds.
    pub(super) fn discard(&self) {
        if let Some(home) = &self.home {
            let _ = fs::remove_file(&home.path);
        }
    }
}

/// The folder for rings, where the platform has one.
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
    Damaged(PathBuf, u64),
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

/// Where rings of the log may lie.
fn homes(folder: &Path, path: &Path) -> Vec<PathBuf> {
    let prefix = prefix(path);
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|entry| is_ring_of(entry, &prefix))
        .collect();
    // By number, so that two rings of one process are emptied in their order.
    found.sort_by_key(|home| (home.as_os_str().len(), home.clone()));
    found
}

/// The file to map: opened apart from the lock, because a mapping keeps the
/// lock of the descriptor it was made from, and a forked child the mapping.
fn unlocked(home: &Path) -> io::Result<File> {
    open_private(home)
}

fn is_ring_of(entry: &Path, prefix: &str) -> bool {
    let name = entry.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with(prefix) && name.ends_with(".ring")
}

fn adopt(home: &Path, path: &Path) -> Option<Orphan> {
    let lock = Guarded::open(|| open_private(home)).ok()?;
    // Refused while the owner lives, or while another process recovers it.
    lock.try_lock().ok()?;
    let len = lock.metadata().ok()?.len();
    if !is_ours(&lock) || len > LARGEST {
        return None;
    }
    match open_ring(home, len as usize) {
        Ok(ring) if ring.path() == recorded(path) => {
            let home = Some(Home {
                path: home.to_owned(),
                _lock: lock,
            });
            Some(Orphan::Ring(Housed::new(ring, home)))
        }
        // Another log's, whose path has the same hash.
        Ok(_) => None,
        Err(Unfit::Unfinished) => {
            let _ = fs::remove_file(home);
            None
        }
        Err(Unfit::Foreign) => Some(Orphan::Foreign(home.to_owned())),
        Err(Unfit::Damaged) => Some(Orphan::Damaged(home.to_owned(), len)),
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
fn create_private(home: &Path) -> io::Result<File> {
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
fn is_ours(file: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    // SAFETY: `geteuid` has no precondition and can't fail.
    let user = unsafe { libc::geteuid() };
    file.metadata().is_ok_and(|m| {
        m.is_file() && m.uid() == user && m.mode() & 0o777 == 0o600 && m.nlink() == 1
    })
}

#[cfg(not(unix))]
fn create_private(_home: &Path) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
pub(super) fn open_private(home: &Path) -> io::Result<File> {
    File::open(home)
}

#[cfg(not(unix))]
fn is_ours(_file: &File) -> bool {
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
