//! A timer the event loop can poll, exact to microseconds.
//!
//! asyncio's own timers end in `epoll_wait`, which counts in milliseconds and
//! rounds up. Linux has timers that are file descriptors; elsewhere `Alarm()`
//! raises `OSError` and the caller uses the loop's timers.

use pyo3::prelude::*;

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
}

#[pymethods]
impl PyAlarm {
    #[new]
    fn new() -> PyResult<Self> {
        Ok(Self {
            timer: timer::Timer::new()?,
        })
    }

    /// The descriptor, for `loop.add_reader`.
    fn fileno(&self) -> i32 {
        self.timer.fileno()
    }

    /// Fire once, `ns` nanoseconds from now, instead of what was set before.
    fn set(&self, ns: u64) -> PyResult<()> {
        Ok(self.timer.set(ns)?)
    }

    /// Don't fire, and be no longer readable.
    fn clear(&self) -> PyResult<()> {
        Ok(self.timer.clear()?)
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyAlarm>()
}
