//! `mapping` for the model checker: each word is loom's atomic, and each byte of
//! the ring's data a cell in which loom sees two accesses that could meet.

use std::fs::File;
use std::io;

use loom::cell::UnsafeCell;

use super::ring::HEADER;
use crate::sync::{AtomicU64, Ordering};

/// Words of the header that the ring uses.
const WORDS: usize = 40;

/// See the module.
pub(super) struct Mapping {
    words: Vec<AtomicU64>,
    bytes: Vec<UnsafeCell<u8>>,
}

// SAFETY: the cells tell loom of every access; the ring keeps them apart, which
// is what the model checks.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn heap(len: usize) -> Self {
        Self {
            words: (0..WORDS).map(|_| AtomicU64::new(0)).collect(),
            bytes: (HEADER..len).map(|_| UnsafeCell::new(0)).collect(),
        }
    }

    pub(super) fn shared(_file: &File, _len: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn release(&self, _offset: usize) {}

    pub(super) fn load(&self, index: usize, order: Ordering) -> u64 {
        self.words[index].load(order)
    }

    pub(super) fn store(&self, index: usize, value: u64, order: Ordering) {
        self.words[index].store(value, order);
    }

    /// # Safety
    /// As the real one's; loom reports who does not keep to it.
    #[allow(unsafe_code)]
    pub(super) unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        let Some(first) = offset.checked_sub(HEADER) else {
            return; // the path, written before anyone else has the ring
        };
        for (cell, byte) in self.bytes[first..].iter().zip(bytes) {
            // SAFETY: the pointer is the cell's, for the time of the call.
            cell.with_mut(|place| unsafe { *place = *byte });
        }
    }

    /// # Safety
    /// As `write`.
    #[allow(unsafe_code)]
    pub(super) unsafe fn read(&self, offset: usize, bytes: &mut [u8]) {
        let Some(first) = offset.checked_sub(HEADER) else {
            return;
        };
        for (cell, byte) in self.bytes[first..].iter().zip(bytes) {
            // SAFETY: as above.
            *byte = cell.with(|place| unsafe { *place });
        }
    }
}
