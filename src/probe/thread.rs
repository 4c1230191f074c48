//! What native threads of a Python process must mind: signals and fork.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle, yield_now};

/// Starts a named thread that takes no signals.
///
/// Python relies on a signal interrupting the main thread's system call; one
/// delivered here would leave Ctrl-C waiting until that call ends.
pub(crate) fn spawn_quiet<F>(name: &str, body: F) -> io::Result<JoinHandle<()>>
where
    F: FnOnce() + Send + 'static,
{
    // The mask is inherited, so there is no moment in which it isn't in force.
    let before = block_signals();
    let thread = Builder::new().name(name.to_owned()).spawn(body);
    restore_signals(&before);
    thread
}

#[cfg(unix)]
type Mask = libc::sigset_t;

#[cfg(unix)]
fn block_signals() -> Mask {
    // SAFETY: `sigfillset` initialises the set it is given; `pthread_sigmask`
    // reads one set, writes the other, and changes this thread's mask only.
    unsafe {
        let mut all: Mask = std::mem::zeroed();
        let mut before: Mask = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
        before
    }
}

#[cfg(unix)]
fn restore_signals(before: &Mask) {
    // SAFETY: as above; `before` is the mask this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

#[cfg(not(unix))]
type Mask = ();

#[cfg(not(unix))]
fn block_signals() -> Mask {}

#[cfg(not(unix))]
fn restore_signals(_before: &Mask) {}

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

/// An `Arc` that threads read and replace, and that a forked child can free.
///
/// Guarded by a flag instead of a mutex: a fork copies it as it is, and a child
/// whose parent had it taken by another thread resets it. That is sound because
/// nothing but one pointer changes under it, and quick because of the same:
/// whoever finds it taken waits for a few instructions of another thread.
pub(crate) struct Shared<T> {
    taken: AtomicBool,
    value: UnsafeCell<Arc<T>>,
}

// SAFETY: `value` is only reached through `with`, which excludes other threads;
// what it hands out is an `Arc<T>`, which needs `T: Send + Sync` to be shared.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            taken: AtomicBool::new(false),
            value: UnsafeCell::new(Arc::new(value)),
        }
    }

    pub(crate) fn get(&self) -> Arc<T> {
        self.with(|value| Arc::clone(value))
    }

    pub(crate) fn set(&self, value: T) {
        let mut new = Arc::new(value);
        self.with(|value| std::mem::swap(value, &mut new));
        // The former value is dropped here, outside the guard.
    }

    /// Replaces the value by `edit` of it. `edit` runs outside the guard, again
    /// if another thread was faster; it must not wait.
    pub(crate) fn update(&self, edit: impl Fn(&T) -> T) {
        loop {
            let old = self.get();
            let mut new = Arc::new(edit(&old));
            let replaced = self.with(|value| {
                let unchanged = Arc::ptr_eq(value, &old);
                if unchanged {
                    std::mem::swap(value, &mut new);
                }
                unchanged
            });
            // What was replaced is dropped here, outside the guard.
            if replaced {
                return;
            }
        }
    }

    fn with<R>(&self, f: impl FnOnce(&mut Arc<T>) -> R) -> R {
        // Acquire and Release: what the last holder did is seen by this one.
        while self.taken.swap(true, Ordering::Acquire) {
            yield_now();
        }
        // SAFETY: the flag was false and is ours until the store below, so no
        // other reference to the pointer exists; neither closure panics.
        let result = f(unsafe { &mut *self.value.get() });
        self.taken.store(false, Ordering::Release);
        result
    }

    /// In a forked child, whose only thread is this one: whoever had the flag
    /// is gone. It left a whole pointer, old or new, since it was swapping one.
    pub(crate) fn reset_in_child(&self) {
        self.taken.store(false, Ordering::Release);
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn updates_of_many_threads_are_all_kept() {
        let shared = Shared::new(0_u64);

        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..1000).for_each(|_| shared.update(|n| n + 1)));
            }
        });

        assert_eq!(*shared.get(), 4000);
    }

    #[test]
    fn a_child_frees_what_a_thread_of_the_parent_had_taken() {
        let shared = Shared::new(1);
        shared.taken.store(true, Ordering::Release);

        shared.reset_in_child();

        assert_eq!(*shared.get(), 1);
        shared.set(2);
        assert_eq!(*shared.get(), 2);
    }
}
