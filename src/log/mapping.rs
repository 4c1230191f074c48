//! The memory a ring lives in: a file in memory-backed storage where the
//! platform has one, so that it outlives the process; else the heap.
//!
//! The file must not lie on the log's own disk: a store into a mapped page of
//! a stalled file system blocks the storing thread.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fs::File;
use std::io;
use std::ptr::NonNull;

use super::fuse;
use crate::sync::{AtomicU64, Ordering};

/// Pages are 4 KiB or more everywhere; words must not straddle anything.
const ALIGN: usize = 4096;

enum Backing {
    Heap(Layout),
    #[cfg(target_os = "linux")]
    Shared,
}

/// A fixed span of zeroed bytes, readable and writable from any thread.
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    backing: Backing,
}

// SAFETY: `start` is owned by this value and valid until drop; every access
// goes through atomics or the `unsafe` copies, whose callers keep them apart.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

#[allow(unsafe_code)]
impl Mapping {
    /// Zeroed memory of this process alone; it dies with the process.
    pub(super) fn heap(len: usize) -> Self {
        assert!(len > 0, "a mapping has at least one byte");
        let layout = Layout::from_size_align(len, ALIGN).expect("a ring is far below isize::MAX");
        // SAFETY: `layout` has a non-zero size.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self {
            start,
            len,
            backing: Backing::Heap(layout),
        }
    }

    /// Maps the first `len` bytes of `file`, which the caller has allocated:
    /// touching a page that the file system can't supply is a SIGBUS.
    #[cfg(target_os = "linux")]
    pub(super) fn shared(file: &File, len: usize) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        // SAFETY: a fresh mapping chosen by the kernel overlaps nothing of ours;
        // the descriptor is open, and a failure is checked below.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).expect("a successful mmap is never null");
        Ok(Self {
            start,
            len,
            backing: Backing::Shared,
        })
    }

    #[cfg(not(target_os = "linux"))]
    pub(super) fn shared(_file: &File, _len: usize) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Gives the pages from `offset` on back to the system; they read as zeros
    /// then. What can't be given back stays: nothing depends on it.
    pub(super) fn release(&self, offset: usize) {
        assert!(offset <= self.len);
        #[cfg(target_os = "linux")]
        {
            let advice = match self.backing {
                Backing::Heap(_) => libc::MADV_DONTNEED,
                Backing::Shared => libc::MADV_REMOVE,
            };
            // SAFETY: a span of this mapping alone. Its bytes turn to zeros, as
            // a `write` of zeros would make them; callers have nothing there.
            unsafe {
                let start = self.start.as_ptr().add(offset);
                libc::madvise(start.cast(), self.len - offset, advice);
            }
        }
    }

    /// Loads the `index`th 8-byte word, one of the counters in a ring's header.
    #[inline]
    pub(super) fn load(&self, index: usize, order: Ordering) -> u64 {
        self.word(index).load(order)
    }

    /// Stores it, at once: no other thread and no later process sees a part.
    #[inline]
    pub(super) fn store(&self, index: usize, value: u64, order: Ordering) {
        fuse::before();
        self.word(index).store(value, order);
    }

    #[allow(clippy::cast_ptr_alignment)] // see the safety argument
    fn word(&self, index: usize) -> &AtomicU64 {
        assert!((index + 1) * 8 <= self.len);
        // SAFETY: in bounds by the assertion, aligned because `start` is page
        // aligned, and only ever accessed as an atomic.
        unsafe { &*self.start.as_ptr().add(index * 8).cast::<AtomicU64>() }
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Safety
    /// Nobody reads or writes these bytes meanwhile.
    pub(super) unsafe fn write(&self, offset: usize, bytes: &[u8]) {
        assert!(offset <= self.len && bytes.len() <= self.len - offset);
        // SAFETY: in bounds by the assertion; `bytes` is a Rust slice, hence
        // outside the mapping; the caller excludes other accesses.
        fuse::copy(bytes, |bytes| unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.start.as_ptr().add(offset),
                bytes.len(),
            );
        });
    }

    /// Copies from `offset` into `bytes`.
    ///
    /// # Safety
    /// Nobody writes these bytes meanwhile.
    pub(super) unsafe fn read(&self, offset: usize, bytes: &mut [u8]) {
        assert!(offset <= self.len && bytes.len() <= self.len - offset);
        // SAFETY: as in `write`.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.start.as_ptr().add(offset),
                bytes.as_mut_ptr(),
                bytes.len(),
            );
        }
    }
}

#[allow(unsafe_code)]
impl Drop for Mapping {
    fn drop(&mut self) {
        match self.backing {
            // SAFETY: allocated by `heap` with this very layout.
            Backing::Heap(layout) => unsafe { dealloc(self.start.as_ptr(), layout) },
            // SAFETY: mapped by `shared` with this very length.
            #[cfg(target_os = "linux")]
            Backing::Shared => unsafe {
                libc::munmap(self.start.as_ptr().cast(), self.len);
            },
        }
    }
}
