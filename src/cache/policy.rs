//! Who leaves when there is no room: a small trait and its four answers.
//!
//! A policy knows slots and hashes only, never keys, values or time.

use super::queue::{Links, Queue};
use super::rows::Rows;
use super::s3fifo::S3Fifo;
use super::tally::Tally;

/// The order of leaving of one shard. Slots are small, dense and reused.
pub(crate) trait Policy {
    /// A new entry took `slot`, which this policy does not hold.
    fn admit(&mut self, slot: u32, hash: u32);
    /// The entry in `slot` was read or rewritten.
    fn touch(&mut self, slot: u32);
    /// The entry in `slot` left on its own: deleted or expired.
    fn forget(&mut self, slot: u32);
    /// Takes out the next to leave; `hashes` gives the hash of each slot.
    fn evict(&mut self, hashes: &Rows<u32>) -> Option<u32>;
    /// The entry in slot `from` is now in `to`, which this policy does not hold.
    fn relocate(&mut self, from: u32, to: u32);
    /// No slot of `len` or above is held any more: give its memory back.
    fn truncate(&mut self, len: usize);
}

/// The policies a caller may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// S3-FIFO: the default, by the traces in `benches/`.
    S3Fifo,
    /// Least recently read or written.
    Lru,
    /// Least often read or written; among equals the least recent.
    Lfu,
    /// Oldest, however often read.
    Fifo,
}

/// Oldest first.
#[derive(Debug, Default)]
pub(crate) struct Fifo {
    links: Links,
    queue: Queue,
}

impl Policy for Fifo {
    fn admit(&mut self, slot: u32, _hash: u32) {
        self.queue.push_front(&mut self.links, slot);
    }

    fn touch(&mut self, _slot: u32) {}

    fn forget(&mut self, slot: u32) {
        self.queue.unlink(&mut self.links, slot);
    }

    fn evict(&mut self, _hashes: &Rows<u32>) -> Option<u32> {
        let oldest = self.queue.back()?;
        self.queue.unlink(&mut self.links, oldest);
        Some(oldest)
    }

    fn relocate(&mut self, from: u32, to: u32) {
        self.queue.relocate(&mut self.links, from, to);
    }

    fn truncate(&mut self, len: usize) {
        self.links.truncate(len);
    }
}

/// Least recently used first: a `Fifo` that moves what is touched to the front.
#[derive(Debug, Default)]
pub(crate) struct Lru(Fifo);

impl Policy for Lru {
    fn admit(&mut self, slot: u32, hash: u32) {
        self.0.admit(slot, hash);
    }

    fn touch(&mut self, slot: u32) {
        self.0.queue.move_to_front(&mut self.0.links, slot);
    }

    fn forget(&mut self, slot: u32) {
        self.0.forget(slot);
    }

    fn evict(&mut self, hashes: &Rows<u32>) -> Option<u32> {
        self.0.evict(hashes)
    }

    fn relocate(&mut self, from: u32, to: u32) {
        self.0.relocate(from, to);
    }

    fn truncate(&mut self, len: usize) {
        self.0.truncate(len);
    }
}

/// The policy of a shard. An enum, not a `dyn`: the touch of S3-FIFO is one
/// byte written, and inlines into the lookup.
#[derive(Debug)]
pub(crate) enum Order {
    /// Nobody ever has to leave, so no order is kept.
    Unbounded,
    S3Fifo(S3Fifo),
    Lru(Lru),
    Lfu(Tally),
    Fifo(Fifo),
}

impl Order {
    pub(crate) fn new(eviction: Eviction) -> Self {
        match eviction {
            Eviction::S3Fifo => Self::S3Fifo(S3Fifo::default()),
            Eviction::Lru => Self::Lru(Lru::default()),
            Eviction::Lfu => Self::Lfu(Tally::default()),
            Eviction::Fifo => Self::Fifo(Fifo::default()),
        }
    }
}

impl Policy for Order {
    #[inline]
    fn admit(&mut self, slot: u32, hash: u32) {
        match self {
            Self::Unbounded => {}
            Self::S3Fifo(policy) => policy.admit(slot, hash),
            Self::Lru(policy) => policy.admit(slot, hash),
            Self::Lfu(policy) => policy.admit(slot, hash),
            Self::Fifo(policy) => policy.admit(slot, hash),
        }
    }

    #[inline]
    fn touch(&mut self, slot: u32) {
        match self {
            Self::Unbounded | Self::Fifo(_) => {}
            Self::S3Fifo(policy) => policy.touch(slot),
            Self::Lru(policy) => policy.touch(slot),
            Self::Lfu(policy) => policy.touch(slot),
        }
    }

    fn forget(&mut self, slot: u32) {
        match self {
            Self::Unbounded => {}
            Self::S3Fifo(policy) => policy.forget(slot),
            Self::Lru(policy) => policy.forget(slot),
            Self::Lfu(policy) => policy.forget(slot),
            Self::Fifo(policy) => policy.forget(slot),
        }
    }

    fn evict(&mut self, hashes: &Rows<u32>) -> Option<u32> {
        match self {
            Self::Unbounded => None,
            Self::S3Fifo(policy) => policy.evict(hashes),
            Self::Lru(policy) => policy.evict(hashes),
            Self::Lfu(policy) => policy.evict(hashes),
            Self::Fifo(policy) => policy.evict(hashes),
        }
    }

    fn relocate(&mut self, from: u32, to: u32) {
        match self {
            Self::Unbounded => {}
            Self::S3Fifo(policy) => policy.relocate(from, to),
            Self::Lru(policy) => policy.relocate(from, to),
            Self::Lfu(policy) => policy.relocate(from, to),
            Self::Fifo(policy) => policy.relocate(from, to),
        }
    }

    fn truncate(&mut self, len: usize) {
        match self {
            Self::Unbounded => {}
            Self::S3Fifo(policy) => policy.truncate(len),
            Self::Lru(policy) => policy.truncate(len),
            Self::Lfu(policy) => policy.truncate(len),
            Self::Fifo(policy) => policy.truncate(len),
        }
    }
}
