//! What native threads of a Python process must mind: signals and fork.

#![allow(unsafe_code)]

use std::io;
use std::thread::{Builder, JoinHandle};

use parking_lot::Mutex;
use parking_lot::lock_api::GuardNoSend;

/// Starts a named thread that takes no signals.
///
/// Python relies on a signal interrupting the main thread's system call; one
/// delivered here would leave Ctrl-C waiting until that call ends.
pub(crate) fn spawn_quiet<F>(name: &str, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    Builder::new().name(name.to_owned()).spawn(move || {
        block_signals();
        body();
    })
}

#[cfg(unix)]
fn block_signals() {
    // SAFETY: `sigfillset` initialises the set it is given; `pthread_sigmask`
    // reads it, writes nothing else, and changes this thread's mask only.
    unsafe {
        let mut all = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
    }
}

#[cfg(not(unix))]
fn block_signals() {}

/// Closes a socket that a forked child inherited.
#[cfg(unix)]
pub(crate) fn close_inherited(socket: i64) {
    // SAFETY: a plain system call on a number; the caller got it from
    // `Inherited`, which lists only sockets that are open in the parent's
    // thread, and nothing in this process uses or closes them any more.
    unsafe { libc::close(socket as i32) };
}

/// Nothing forks here.
#[cfg(not(unix))]
pub(crate) fn close_inherited(_socket: i64) {}

/// A mutex that a fork never leaves locked in the child.
///
/// `hold` before the fork and `release` after it, on the forking thread and on
/// both sides, mean that no other thread holds the lock at that instant.
pub(crate) struct ForkMutex<T>(Mutex<T>);

impl<T> ForkMutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    /// Runs `f` under the lock: keep it short, no Python code, no fork.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.0.lock())
    }

    pub(crate) fn hold(&self) {
        std::mem::forget(self.0.lock());
    }

    pub(crate) fn release(&self) {
        if self.0.is_locked() {
            // SAFETY: only `hold` leaves the mutex locked without a guard, and
            // it is paired with this call on the same thread (the child's only
            // thread after a fork), so this thread owns the lock.
            unsafe { self.0.force_unlock(GuardNoSend::new()) };
        }
    }
}
