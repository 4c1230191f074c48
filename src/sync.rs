//! The one place that chooses between std's atomics and mutex, and loom's.
//!
//! Concurrent modules import from here, so that the very code that ships is the
//! code the model checker explores (`--features loom`).
//!
//! The locks are std's, a futex each on Linux. `parking_lot` queues its waiters in
//! a table of the process: a child forked while another thread held a part of that
//! table waits for ever at its first contended lock, be the lock ever so new.

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "loom")]
use loom::sync as of;
#[cfg(not(feature = "loom"))]
use std::sync as of;

use std::sync::{PoisonError, TryLockError};

pub(crate) use of::MutexGuard;

/// A mutex without poisoning: who panics under one of our locks leaves nothing
/// half done that others would read.
#[derive(Debug, Default)]
pub(crate) struct Mutex<T>(of::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(of::Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}
