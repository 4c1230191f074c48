//! The clock the bindings pass down to the cores.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Nanoseconds on the clock that `time.monotonic()` and `loop.time()` use.
#[cfg(unix)]
#[allow(unsafe_code)]
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    // CPython reads CLOCK_UPTIME_RAW on macOS (mach_absolute_time).
    #[cfg(target_os = "macos")]
    const ID: libc::clockid_t = libc::CLOCK_UPTIME_RAW;
    #[cfg(not(target_os = "macos"))]
    const ID: libc::clockid_t = libc::CLOCK_MONOTONIC;
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid, writable timespec, and ID is a clock every
    // supported system has, so the call cannot fail.
    unsafe { libc::clock_gettime(ID, &raw mut now) };
    (now.tv_sec as u64) * 1_000_000_000 + now.tv_nsec as u64
}

/// Nanoseconds since the first call. Only differences are ever used.
#[cfg(not(unix))]
#[inline]
pub(crate) fn monotonic_ns() -> u64 {
    use std::sync::OnceLock;
    use std::time::Instant;
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

/// The monotonic clock, or one the caller passed in (`clock=`): a callable that
/// returns seconds as a float, for tests and for virtual-time loops.
pub(crate) enum Clock {
    Monotonic,
    Python(Py<PyAny>),
}

impl Clock {
    pub(crate) fn new(given: Option<Py<PyAny>>) -> Self {
        given.map_or(Self::Monotonic, Self::Python)
    }

    /// Nanoseconds now. Runs Python code when the clock was passed in, so never
    /// call it under a lock.
    #[inline]
    pub(crate) fn now_ns(&self, py: Python<'_>) -> PyResult<u64> {
        match self {
            Self::Monotonic => Ok(monotonic_ns()),
            Self::Python(clock) => {
                let seconds: f64 = clock.bind(py).call0()?.extract()?;
                if !seconds.is_finite() || seconds < 0.0 {
                    return Err(PyValueError::new_err(format!(
                        "clock() must return a finite number of seconds >= 0, got {seconds}"
                    )));
                }
                Ok((seconds * 1e9) as u64)
            }
        }
    }

    /// For the collector: the only Python object a clock can hold.
    #[allow(dead_code)] // used by each binding that takes `clock=`
    pub(crate) fn object(&self) -> Option<&Py<PyAny>> {
        match self {
            Self::Monotonic => None,
            Self::Python(clock) => Some(clock),
        }
    }
}
