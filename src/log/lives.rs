//! One log over the forks and closings it goes through.
//!
//! A forked child finds the parent's life here: a ring that is not its own and
//! a writer that did not come along. It begins a life of its own, and never
//! touches the parent's again, not even to free it, because a lock in it may
//! have been copied while held.

use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use super::fork;
use super::stats::{Counters, Stats};
use super::{Config, Life};

struct Link {
    life: Life,
    generation: u64,
    counters: Arc<Counters>,
    previous: *mut Link,
}

/// See the module.
pub struct Log {
    config: Config,
    latest: AtomicPtr<Link>,
    /// Drops not yet told in the log.
    unreported: AtomicU64,
}

// SAFETY: the links are reached through `latest` alone, never change once
// there, and live until `drop`, which has the log to itself.
#[allow(unsafe_code)]
unsafe impl Send for Log {}
// SAFETY: as above; everything in a link may be shared between threads.
#[allow(unsafe_code)]
unsafe impl Sync for Log {}

impl Log {
    /// Opens the file and starts the writer.
    pub fn open(config: Config) -> io::Result<Self> {
        let log = Self {
            latest: AtomicPtr::new(ptr::null_mut()),
            unreported: AtomicU64::new(0),
            config,
        };
        log.renew(ptr::null_mut(), true)?;
        Ok(log)
    }

    /// The life of this process: begun now in a fresh child, and after a close.
    #[inline]
    pub fn life(&self) -> io::Result<&Life> {
        let link = self.latest();
        if link.generation == fork::generation() && !link.life.is_closing() {
            return Ok(&link.life);
        }
        self.renew(ptr::from_ref(link).cast_mut(), false)
    }

    /// The last life, if it is this process's.
    pub fn last_life(&self) -> Option<&Life> {
        let link = self.latest();
        (link.generation == fork::generation()).then_some(&link.life)
    }

    #[allow(unsafe_code)]
    fn latest(&self) -> &Link {
        // SAFETY: set by `open` and never null after; links outlive `self`.
        unsafe { &*self.latest.load(Ordering::Acquire) }
    }

    #[cold]
    #[allow(unsafe_code)]
    fn renew(&self, seen: *mut Link, first: bool) -> io::Result<&Life> {
        let generation = fork::generation();
        let counters = self.counters_for(seen, generation);
        let life = Life::begin(&self.config, first, Arc::clone(&counters))?;
        let link = Box::into_raw(Box::new(Link {
            life,
            generation,
            counters,
            previous: seen,
        }));
        // No lock: a grandchild could be forked while it is held.
        let swapped = self
            .latest
            .compare_exchange(seen, link, Ordering::AcqRel, Ordering::Acquire);
        if swapped.is_err() {
            // Another thread was first. SAFETY: nobody else has seen `link`.
            let loser = unsafe { Box::from_raw(link) };
            loser.life.begin_close();
            return self.life();
        }
        // SAFETY: it is in the chain now, which outlives `self`.
        Ok(unsafe { &(*link).life })
    }

    /// A reopened log counts on; a child counts from nothing.
    #[allow(unsafe_code)]
    fn counters_for(&self, seen: *mut Link, generation: u64) -> Arc<Counters> {
        // SAFETY: null or a link of the chain.
        match unsafe { seen.as_ref() } {
            Some(link) if link.generation == generation => Arc::clone(&link.counters),
            _ => {
                self.unreported.store(0, Ordering::Relaxed);
                Arc::default()
            }
        }
    }

    /// Counts a record that was refused.
    pub fn count_dropped(&self) {
        self.latest()
            .counters
            .dropped
            .fetch_add(1, Ordering::Relaxed);
        self.unreported.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops not yet told in the log; they count as told from now on.
    #[inline]
    pub fn take_unreported(&self) -> u64 {
        if self.unreported.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.unreported.swap(0, Ordering::Relaxed)
    }

    /// Gives `take_unreported` back: they could not be told.
    pub fn return_unreported(&self, count: u64) {
        self.unreported.fetch_add(count, Ordering::Relaxed);
    }

    /// What was done so far in this process.
    pub fn stats(&self) -> Stats {
        let link = self.latest();
        if link.generation != fork::generation() {
            // A child that has not logged yet.
            return Stats::default();
        }
        let mut stats = link.counters.snapshot();
        let housed = &link.life.shared.housed;
        stats.ring_used = housed.ring.used();
        stats.ring_bytes = housed.ring.capacity();
        stats.durable = housed.is_durable();
        stats
    }
}

#[allow(unsafe_code)]
impl Drop for Log {
    fn drop(&mut self) {
        let mut link = *self.latest.get_mut();
        while !link.is_null() {
            // SAFETY: `&mut self`: nobody else is in the chain.
            let generation = unsafe { (*link).generation };
            if generation != fork::generation() {
                return;
            }
            // SAFETY: made by `Box::into_raw`, and left behind here.
            let owned = unsafe { Box::from_raw(link) };
            owned.life.begin_close();
            link = owned.previous;
        }
    }
}
