//! `Permits`: what `mtaio.resources.ConcurrencyLimiter` is built on.

// Python's calling convention, not Rust's, decides what the methods take.
#![allow(clippy::needless_pass_by_value, clippy::unused_self)]

use super::args;
use super::bucket::{Turn, seconds, told};
use super::clock::monotonic_ns;
use super::errors::ResourceError;
use super::names::names;
use super::ready;
use crate::permits::Permits;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// A concurrency limiter's native half: the permits and the line before them.
///
/// Names with an underscore are for `mtaio.resources`; see `TokenBucket`.
#[pyclass(frozen, subclass, weakref, name = "Permits", module = "mtaio._rust")]
pub(crate) struct PyPermits {
    permits: Permits,
}

#[pymethods]
impl PyPermits {
    #[new]
    #[pyo3(signature = (limit))]
    fn new(limit: &Bound<'_, PyAny>) -> PyResult<Self> {
        const MOST: u64 = i64::MAX as u64;
        let checked = args::whole("limit", limit, 1)?;
        if checked > MOST {
            let message = format!("limit must be an int from 1 to {MOST}, got {checked}");
            return Err(PyValueError::new_err(message));
        }
        Ok(Self {
            permits: Permits::new(checked),
        })
    }

    /// Take a permit if one is free and nobody waits for it. Never waits; any
    /// thread. Each True needs one `release()`.
    fn try_acquire(&self) -> bool {
        self.permits.try_take()
    }

    /// Give a permit back; the first in line gets it. Never waits; any thread.
    ///
    /// Raises `ResourceError` if none is taken.
    fn release(slf: &Bound<'_, Self>) -> PyResult<()> {
        let given = slf.get().permits.give_back().map_err(|_| {
            ResourceError::new_err("release() without a permit taken: 0 are in use")
        })?;
        if given.wanted {
            slf.call_method0(names(slf.py()).tend.bind(slf.py()))?;
        }
        Ok(())
    }

    /// Take a permit, waiting in line for it if need be.
    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        if slf.get().permits.try_take() {
            return Ok(ready::ready(slf.py())?.into_bound(slf.py()).into_any());
        }
        slf.call_method0(names(slf.py()).wait.bind(slf.py()))
    }

    /// `release()`.
    #[pyo3(signature = (*_exc))]
    fn __aexit__(slf: &Bound<'_, Self>, _exc: &Bound<'_, PyAny>) -> PyResult<Py<ready::PyReady>> {
        Self::release(slf)?;
        ready::ready(slf.py())
    }

    /// The ticket to wait for, or None if a permit was taken at once.
    fn _join(&self, lane: u64) -> Option<u64> {
        self.permits.join(lane, monotonic_ns())
    }

    /// As `TokenBucket._leave`.
    fn _leave(&self, ticket: u64) -> bool {
        self.permits.leave(ticket, monotonic_ns())
    }

    /// The lane's loop is closed: all its waiters are gone.
    fn _drop_lane(&self, lane: u64) {
        self.permits.drop_lane(lane, monotonic_ns());
    }

    /// Give back a permit that `_turn` told of, unused.
    fn _refund(&self, taken_ns: u64) {
        let _ = taken_ns;
        let given = self.permits.give_back();
        debug_assert!(given.is_ok(), "a collected grant took a permit");
    }

    /// In a forked child, its lanes dropped: no permit is taken any more.
    fn _free_all(&self) {
        self.permits.free_all();
    }

    /// As `TokenBucket._turn`.
    fn _turn(&self, lane: u64) -> Turn {
        let mut others = self.permits.serve(monotonic_ns());
        others.retain(|other| *other != lane);
        let due = self.permits.due_ns(lane);
        (told(&self.permits.collect(lane)), others, due)
    }

    /// Nanoseconds until the lane should look whether the loops it waits for are
    /// closed; None if it waits for none.
    fn _due(&self, lane: u64) -> Option<u64> {
        self.permits.due_ns(lane)
    }

    /// (limit, permits in use, waiting callers, seconds waited).
    fn _counts(&self) -> (u64, u64, usize, f64) {
        let counts = self.permits.counts();
        let waited = seconds(counts.waited_ns.min(u128::from(u64::MAX)) as u64);
        (self.permits.limit(), counts.in_use, counts.waiting, waited)
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyPermits>()
}
