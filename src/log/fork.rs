//! What a fork copies, and how the child lets go of it.
//!
//! A child has no writer thread and shares the parent's open files, so also
//! the locks taken through them: were they left open, a parent that dies with
//! the lock would leave it held as long as the child lives. The handler that
//! runs in the child closes them; it does nothing that could block.

use std::fs::File;
use std::ops::Deref;
#[cfg(unix)]
use std::sync::Once;
use std::sync::atomic::AtomicU64;
#[cfg(unix)]
use std::sync::atomic::{AtomicI32, Ordering};

/// Forks begun in this process. Changes before the fork.
static BEGUN: AtomicU64 = AtomicU64::new(0);
/// Forks this process is the child of.
static GENERATION: AtomicU64 = AtomicU64::new(0);

/// Descriptors beyond this many are not closed in a child, which delays the
/// recovery of a dead parent's records until the child is gone too.
#[cfg(unix)]
const SLOTS: usize = 256;
#[cfg(unix)]
static DESCRIPTORS: [AtomicI32; SLOTS] = [const { AtomicI32::new(-1) }; SLOTS];

/// Which process this is, counted in forks: it changes in a child.
#[inline]
pub(super) fn generation() -> u64 {
    GENERATION.load(std::sync::atomic::Ordering::Relaxed)
}

#[cfg(unix)]
#[allow(unsafe_code)]
mod hooks {
    use super::{BEGUN, DESCRIPTORS, GENERATION, Ordering};

    unsafe extern "C" {
        // POSIX; the libc crate leaves it out on Linux.
        fn pthread_atfork(
            prepare: Option<unsafe extern "C" fn()>,
            parent: Option<unsafe extern "C" fn()>,
            child: Option<unsafe extern "C" fn()>,
        ) -> libc::c_int;
    }

    unsafe extern "C" fn prepare() {
        BEGUN.fetch_add(1, Ordering::SeqCst);
    }

    unsafe extern "C" fn child() {
        GENERATION.fetch_add(1, Ordering::SeqCst);
        for slot in &DESCRIPTORS {
            let fd = slot.swap(-1, Ordering::SeqCst);
            if fd >= 0 {
                // SAFETY: `close` may be called between fork and exec. The
                // descriptor is the copy of one the parent guards, and the
                // parent's objects are never dropped here (see `Life`).
                unsafe { libc::close(fd) };
            }
        }
    }

    pub(super) fn install() {
        // SAFETY: both handlers only touch atomics and `close`.
        // It fails for want of memory alone, and then forks are merely unseen.
        unsafe { pthread_atfork(Some(prepare), None, Some(child)) };
    }
}

/// From now on forks are seen. Idempotent.
pub(super) fn watch() {
    #[cfg(unix)]
    {
        static WATCH: Once = Once::new();
        WATCH.call_once(hooks::install);
    }
}

/// An open file that a forked child closes at birth.
pub(super) struct Guarded {
    file: File,
    #[cfg(unix)]
    slot: Option<usize>,
}

impl Guarded {
    /// Opens by `open`, again if a fork came between opening and guarding.
    pub(super) fn open(open: impl Fn() -> std::io::Result<File>) -> std::io::Result<Self> {
        loop {
            let before = BEGUN.load(std::sync::atomic::Ordering::SeqCst);
            let guarded = Self::new(open()?);
            // A pipe has no locks to keep, and its reader would see the end.
            let lockable = guarded.metadata()?.is_file();
            if !lockable || BEGUN.load(std::sync::atomic::Ordering::SeqCst) == before {
                return Ok(guarded);
            }
        }
    }

    #[cfg(unix)]
    fn new(file: File) -> Self {
        use std::os::fd::AsRawFd;
        let fd = file.as_raw_fd();
        let slot = DESCRIPTORS.iter().position(|slot| {
            slot.compare_exchange(-1, fd, Ordering::SeqCst, Ordering::Relaxed)
                .is_ok()
        });
        Self { file, slot }
    }

    #[cfg(not(unix))]
    fn new(file: File) -> Self {
        Self { file }
    }
}

impl Deref for Guarded {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

#[cfg(unix)]
impl Drop for Guarded {
    fn drop(&mut self) {
        // A child forked between this and the closing has a copy that nobody
        // closes: the lock must not live on in it.
        let _ = self.file.unlock();
        if let Some(slot) = self.slot {
            DESCRIPTORS[slot].store(-1, Ordering::SeqCst);
        }
    }
}
