//! The one place that chooses between std's atomics and locks, and loom's.
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
use std::time::{Duration, Instant};

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

/// Where threads wait for what a `Mutex` guards to change.
#[derive(Debug, Default)]
pub(crate) struct Condvar(of::Condvar);

impl Condvar {
    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Wait for as long as it is `blocked`.
    pub(crate) fn wait_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut blocked: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        while blocked(&mut guard) {
            guard = self.0.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
        guard
    }

    /// The same, but for `longest` at most.
    pub(crate) fn wait_timeout_while<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        longest: Duration,
        mut blocked: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        let start = Instant::now();
        while blocked(&mut guard)
            && let Some(left) = longest.checked_sub(start.elapsed())
        {
            let waited = self.0.wait_timeout(guard, left);
            guard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        guard
    }
}
