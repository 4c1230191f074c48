//! Threads that leave the process's signals alone.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts `work` on a thread to which no signal is delivered: Python handles
/// them on its main thread, whose blocking calls must be the ones interrupted.
pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let builder = Builder::new().name("mtaio-log".to_owned());
    masked(|| builder.spawn(work))
}

/// A thread inherits the mask of the thread that starts it.
#[cfg(unix)]
#[allow(unsafe_code)]
fn masked<T>(start: impl FnOnce() -> T) -> T {
    // SAFETY: both sets are plain data, filled before they are read, and the
    // mask of this thread is what it was when the function returns.
    unsafe {
        let mut all = std::mem::zeroed();
        let mut before = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let started = start();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        started
    }
}

#[cfg(not(unix))]
fn masked<T>(start: impl FnOnce() -> T) -> T {
    start()
}
