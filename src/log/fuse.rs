//! Where a process may die: before each store that outlives it, and amid each
//! copy. A test lights a fuse that ends it at the n-th such point, as SIGKILL
//! would: nothing after it is done. In what ships these are nothing.

/// What follows takes effect at once or not at all.
#[inline]
pub(super) fn before() {
    #[cfg(all(test, not(feature = "loom")))]
    lit::burn();
}

/// Has all of `bytes` copied, or a half, or nothing.
#[inline]
pub(super) fn copy<T>(bytes: &[u8], mut copy: impl FnMut(&[u8]) -> T) -> T {
    #[cfg(all(test, not(feature = "loom")))]
    lit::copy(bytes, &mut copy);
    copy(bytes)
}

#[cfg(all(test, not(feature = "loom")))]
pub(super) use lit::{light, shielded};

#[cfg(all(test, not(feature = "loom")))]
mod lit {
    use std::cell::Cell;
    use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

    thread_local! {
        /// Points that this thread passes until it dies at the next.
        static LEFT: Cell<Option<usize>> = const { Cell::new(None) };
    }

    struct Burnt;

    pub(super) fn burn() {
        match LEFT.get() {
            None => {}
            Some(0) => {
                LEFT.set(None);
                // Not a panic: nobody is told, and no lock of ours asks.
                resume_unwind(Box::new(Burnt));
            }
            Some(left) => LEFT.set(Some(left - 1)),
        }
    }

    /// The copy that dies halfway, if it is this one.
    pub(super) fn copy<T>(bytes: &[u8], copy: &mut impl FnMut(&[u8]) -> T) {
        if bytes.is_empty() {
            return;
        }
        burn();
        if LEFT.get() == Some(0) {
            copy(&bytes[..bytes.len() / 2]);
        }
        burn();
    }

    /// Does `work`; `None` if it died after `points`.
    pub(in crate::log) fn light<T>(points: usize, work: impl FnOnce() -> T) -> Option<T> {
        LEFT.set(Some(points));
        let outcome = catch_unwind(AssertUnwindSafe(work));
        LEFT.set(None);
        match outcome {
            Ok(done) => Some(done),
            Err(payload) if payload.is::<Burnt>() => None,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Does `work` without a fuse: another process's part.
    pub(in crate::log) fn shielded<T>(work: impl FnOnce() -> T) -> T {
        let left = LEFT.take();
        let done = work();
        LEFT.set(left);
        done
    }
}
