//! Records too long for a ring: each in a file beside it, `<ring>.<n>`, or on
//! the heap where no file can be had.
//!
//! The file is written before the record that names it enters the ring, and
//! removed once the record is in the log. A death in between leaves a file
//! that no record names; it is removed with the dead ring, or, if that is gone,
//! for want of one.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::file::folder;
use super::storage::{create_private, is_ours, open_private};
use super::{fuse, ring};
use crate::sync::Mutex;

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

/// The records beside one ring. See the module.
pub(super) struct Spills {
    /// The ring's file.
    ring: Option<PathBuf>,
    /// They take no more than the ring.
    capacity: u64,
    next: AtomicU64,
    /// Bytes of all that are not forgotten.
    bytes: AtomicU64,
    held: Mutex<HashMap<u64, Vec<u8>>>,
}

impl Spills {
    pub(super) fn new(ring: Option<PathBuf>, capacity: u64) -> Self {
        Self {
            ring,
            capacity,
            next: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            held: Mutex::default(),
        }
    }

    /// True while there is room for `record`, or none is here: one that is
    /// longer than the ring has to go somewhere.
    pub(super) fn have_room(&self, record: &[u8]) -> bool {
        self.would_take(self.bytes.load(Relaxed), record)
    }

    fn would_take(&self, held: u64, record: &[u8]) -> bool {
        held == 0 || held + record.len() as u64 <= self.capacity
    }

    /// Takes a record, if there is room.
    pub(super) fn put(&self, record: &[u8]) -> Option<Spill> {
        let len = record.len() as u64;
        let claim = |held| self.would_take(held, record).then_some(held + len);
        self.bytes.fetch_update(Relaxed, Relaxed, claim).ok()?;
        let number = self.next.fetch_add(1, Relaxed);
        if !self.put_in_file(number, record) {
            self.held.lock().insert(number, record.to_vec());
        }
        Some(Spill {
            number,
            len,
            sum: ring::checksum(record),
        })
    }

    /// False if there is no file for it, for want of room or of a ring's file.
    fn put_in_file(&self, number: u64, record: &[u8]) -> bool {
        let Some(path) = self.path(number) else {
            return false;
        };
        fuse::before();
        // `write` to a full tmpfs is an error, where a mapped page is a SIGBUS.
        let written = create_private(&path)
            .and_then(|mut file| fuse::copy(record, |record| file.write_all(record)));
        if written.is_err() {
            let _ = fs::remove_file(&path);
        }
        written.is_ok()
    }

    /// Appends the record to `out`; `NotFound` if it is gone or damaged.
    pub(super) fn read(&self, spill: &Spill, out: &mut Vec<u8>) -> io::Result<()> {
        let begin = out.len();
        if let Some(record) = self.held.lock().get(&spill.number) {
            out.extend_from_slice(record);
            return Ok(());
        }
        let path = self.path(spill.number);
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

    /// Removes a record: it is in the log, or the ring did not take it.
    pub(super) fn forget(&self, spill: &Spill) {
        // A dead process's are not counted here.
        let less = |held: u64| Some(held.saturating_sub(spill.len));
        let _ = self.bytes.fetch_update(Relaxed, Relaxed, less);
        if self.held.lock().remove(&spill.number).is_none()
            && let Some(path) = self.path(spill.number)
        {
            fuse::before();
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self, number: u64) -> Option<PathBuf> {
        let mut name = self.ring.as_ref()?.as_os_str().to_owned();
        name.push(format!(".{number}"));
        Some(name.into())
    }
}

/// The ring that a file named like this lies beside.
pub(super) fn ring_of(file: &Path) -> Option<PathBuf> {
    let number = file.extension()?.to_str()?;
    let ring = file.with_extension("");
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    (is_number && ring.extension()? == "ring").then_some(ring)
}

/// Removes all that lies beside a dead process's ring, whose lock is held: no
/// process can take the ring's name, and with it theirs, while it exists.
pub(super) fn remove_beside(ring: &Path) {
    let Ok(entries) = fs::read_dir(folder(ring)) else {
        return;
    };
    for file in entries.flatten().map(|entry| entry.path()) {
        if ring_of(&file).is_some_and(|of| of == ring) {
            remove(&file);
        }
    }
}

/// Removes what lies beside no ring. A living process's ring is there for as
/// long as anything in it, or a thread on its way in, can need its file.
pub(super) fn remove_ringless(file: &Path, ring: &Path) {
    if fs::symlink_metadata(ring).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        remove(file);
    }
}

fn remove(file: &Path) {
    if open_private(file).is_ok_and(|open| is_ours(&open)) {
        fuse::before();
        let _ = fs::remove_file(file);
    }
}
