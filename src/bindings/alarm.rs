//! A timer the event loop can poll, exact to microseconds.
//!
//! asyncio's own timers end in `epoll_wait`, which counts in milliseconds and
//! rounds up. Linux has timers that are file descriptors; elsewhere `Alarm()`
//! raises `OSError` and the caller uses the loop's timers.

use super::clock::monotonic_ns;
use crate::limiter::MOST_SPIN_NS;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(target_os = "linux")]
mod timer {
    #![allow(unsafe_code)]
    use std::io;
    use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

    pub(super) struct Timer(OwnedFd);

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
            // SAFETY: takes no pointers; the result is checked below.
            let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: `fd` was just opened, is valid, and nobody else owns it.
            Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
        }

        pub(super) fn fileno(&self) -> i32 {
            self.0.as_raw_fd()
        }

        /// Fire once, `ns` from now. Setting also clears an earlier expiry, so
        /// the descriptor need not be read. 0 would disarm, so it is 1.
        pub(super) fn set(&self, ns: u64) -> io::Result<()> {
            // Past i64 it would be centuries anyway.
            let ns = ns.clamp(1, i64::MAX as u64).cast_signed();
            self.write(ns / 1_000_000_000, ns % 1_000_000_000)
        }

        pub(super) fn clear(&self) -> io::Result<()> {
            self.write(0, 0)
        }

        fn write(&self, seconds: i64, ns: i64) -> io::Result<()> {
            let zero = libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            };
            let timer = libc::itimerspec {
                it_interval: zero,
                it_value: libc::timespec {
                    tv_sec: seconds,
                    tv_nsec: ns,
                },
            };
            // SAFETY: the descriptor is open as long as `self`, `timer` is valid
            // for reads, and the old value is not asked for.
            let done = unsafe {
                libc::timerfd_settime(self.fileno(), 0, &raw const timer, std::ptr::null_mut())
            };
            if done < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod timer {
    use std::io;

    pub(super) enum Timer {}

    impl Timer {
        pub(super) fn new() -> io::Result<Self> {
            Err(io::Error::from(io::ErrorKind::Unsupported))
        }

        pub(super) fn fileno(&self) -> i32 {
            match *self {}
        }

        pub(super) fn set(&self, _ns: u64) -> io::Result<()> {
            match *self {}
        }

        pub(super) fn clear(&self) -> io::Result<()> {
            match *self {}
        }
    }
}

/// A one-shot timer with a file descriptor that turns readable when it fires.
///
/// Raises `OSError` where the system has none (all but Linux) or is out of
/// descriptors. The descriptor is closed when the object dies.
#[pyclass(frozen, name = "Alarm", module = "mtaio._rust")]
pub(crate) struct PyAlarm {
    timer: timer::Timer,
    /// When it was set to fire, if exactly, on the monotonic clock; 0 once noted.
    target_ns: AtomicU64,
}

/// How much sooner than exact an alarm is set; what is left of that on waking is
/// waited for on the processor. What a wake-up takes is the machine's, so all
/// alarms learn it together. The first guess is common: 20 to 60 microseconds.
static LEAD_NS: AtomicU64 = AtomicU64::new(50_000);
/// The lead grows by this when a wake-up was later...
const GROW_NS: u64 = 4_000;
/// ...and shrinks by this when it was not: it settles where one in five is later.
/// So a few very late ones, or a blocked loop, move it no further than others.
const SHRINK_NS: u64 = 1_000;

#[pymethods]
impl PyAlarm {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self {
            timer: timer::Timer::new()?,
            target_ns: AtomicU64::new(0),
        })
    }

    /// The descriptor, for `loop.add_reader`.
    fn fileno(&self) -> i32 {
        self.timer.fileno()
    }

    /// Fire once, `ns` nanoseconds from now, instead of what was set before.
    ///
    /// With `exact`, sooner by about as much as it is usually late.
    fn set(&self, ns: u64, exact: bool) -> PyResult<()> {
        if !exact {
            self.target_ns.store(0, Ordering::Relaxed);
            return Ok(self.timer.set(ns)?);
        }
        let ns = ns.saturating_sub(LEAD_NS.load(Ordering::Relaxed));
        self.target_ns
            .store(monotonic_ns().saturating_add(ns), Ordering::Relaxed);
        Ok(self.timer.set(ns)?)
    }

    /// It has fired: note how late, if it was to be exact. Called by the loop's
    /// thread.
    fn fired(&self) {
        let target = self.target_ns.swap(0, Ordering::Relaxed);
        if target > 0 {
            let late = monotonic_ns().saturating_sub(target);
            let lead = LEAD_NS.load(Ordering::Relaxed);
            let next = if late > lead {
                (lead + GROW_NS).min(MOST_SPIN_NS)
            } else {
                lead.saturating_sub(SHRINK_NS)
            };
            LEAD_NS.store(next, Ordering::Relaxed);
        }
    }

    /// Don't fire, and be no longer readable.
    fn clear(&self) -> PyResult<()> {
        self.target_ns.store(0, Ordering::Relaxed);
        Ok(self.timer.clear()?)
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyAlarm>()
}
