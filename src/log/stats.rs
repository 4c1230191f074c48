//! What a log has done so far.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::drain::Tally;
use crate::sync::Mutex;

/// Counters since the handler was made, over all its forks' own lives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records put into the ring.
    pub accepted: u64,
    /// Records appended to the file.
    pub written: u64,
    /// Bytes appended to the file.
    pub written_bytes: u64,
    /// Records refused for want of room.
    pub dropped: u64,
    /// Records of dead processes appended to the file.
    pub recovered: u64,
    /// Bytes of rings that were damaged.
    pub corrupt_bytes: u64,
    /// Attempts to write that failed.
    pub failed_writes: u64,
    /// Rotations done.
    pub rotations: u64,
    /// Rotations or removals of backups that failed.
    pub failed_rotations: u64,
    /// Bytes waiting in the ring.
    pub ring_used: u64,
    /// Bytes the ring holds at most.
    pub ring_bytes: u64,
    /// Whether accepted records outlive the process.
    pub durable: bool,
    /// The last error, in words.
    pub last_error: Option<String>,
}

/// The shared, writable form of `Stats`.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) dropped: AtomicU64,
    written: AtomicU64,
    written_bytes: AtomicU64,
    recovered: AtomicU64,
    corrupt_bytes: AtomicU64,
    failed_writes: AtomicU64,
    rotations: AtomicU64,
    failed_rotations: AtomicU64,
    last_error: Mutex<Option<String>>,
}

impl Counters {
    pub(super) fn add(&self, tally: &Tally) {
        self.written.fetch_add(tally.records, Relaxed);
        self.written_bytes.fetch_add(tally.bytes, Relaxed);
        self.recovered.fetch_add(tally.recovered, Relaxed);
        self.corrupt_bytes.fetch_add(tally.corrupt_bytes, Relaxed);
        self.rotations.fetch_add(tally.rotations, Relaxed);
    }

    pub(super) fn failed_write(&self, error: &str) {
        self.failed_writes.fetch_add(1, Relaxed);
        self.note(error);
    }

    pub(super) fn failed_rotation(&self, error: &str) {
        self.failed_rotations.fetch_add(1, Relaxed);
        self.note(error);
    }

    pub(super) fn note(&self, error: &str) {
        *self.last_error.lock() = Some(error.to_owned());
    }

    pub(super) fn snapshot(&self) -> Stats {
        Stats {
            accepted: self.accepted.load(Relaxed),
            written: self.written.load(Relaxed),
            written_bytes: self.written_bytes.load(Relaxed),
            dropped: self.dropped.load(Relaxed),
            recovered: self.recovered.load(Relaxed),
            corrupt_bytes: self.corrupt_bytes.load(Relaxed),
            failed_writes: self.failed_writes.load(Relaxed),
            rotations: self.rotations.load(Relaxed),
            failed_rotations: self.failed_rotations.load(Relaxed),
            last_error: self.last_error.lock().clone(),
            ..Stats::default()
        }
    }
}
