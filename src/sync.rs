//! The one place that chooses between std's atomics (and `parking_lot`'s mutex)
//! and loom's.
//!
//! Concurrent modules import from here, so that the very code that ships is the
//! code the model checker explores (`--features loom`).

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "loom")]
pub(crate) use loom::sync::MutexGuard;
#[cfg(not(feature = "loom"))]
pub(crate) use parking_lot::{Mutex, MutexGuard};

/// For what a fork may copy while it is held: a bare futex, where `parking_lot`
/// queues waiters in a table of the whole process, whose lock is copied too.
#[cfg(feature = "loom")]
pub(crate) use loom::sync::Mutex as FutexMutex;
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::Mutex as FutexMutex;

/// loom's mutex with the face of `parking_lot`'s: no poisoning to handle.
#[cfg(feature = "loom")]
#[derive(Debug)]
pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

#[cfg(feature = "loom")]
impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(loom::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().expect("a model that panicked has ended")
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        self.0.try_lock().ok()
    }
}
