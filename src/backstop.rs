//! The last resort against a process that does not end.

#![allow(unsafe_code)]

use std::io;
use std::thread::sleep;
use std::time::Duration;

use crate::probe::spawn_quiet;

/// End this process by `_exit` after `delay`, unless it has ended by then.
///
/// A native thread does it, so that neither a lock of an interpreter nor one that
/// is taking itself down can keep the process. Nothing is flushed or called; a
/// child forked meanwhile is not concerned.
///
/// # Errors
///
/// The thread can't be started.
pub fn exit_after(delay: Duration, code: i32) -> io::Result<()> {
    spawn_quiet("mtaio-exit", move || {
        sleep(delay);
        // SAFETY: takes a number, may be called from any thread, and does not return.
        unsafe { libc::_exit(code) }
    })?;
    Ok(())
}
