//! `KeyedBuckets`: what `mtaio.resources.KeyedRateLimiter` is built on.

// Python's calling convention, not Rust's, decides what the methods take.
#![allow(clippy::needless_pass_by_value, clippy::unused_self)]

use super::args;
use super::bucket::{
    AtOnce, LimitClock, Tokens, Turn, add, asked, due_error, quota, seconds, timeout_ns, told,
};
use super::clock::monotonic_ns;
use super::errors::RateLimitError;
use super::hot::Made;
use super::names::names;
use super::ready;
use crate::keyed::{Ask, KeyedBuckets, Seek, Taken, Unsure};
use crate::limiter::Joined;
use crate::line::Grant;
use pyo3::Borrowed;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString, PyTuple};
use std::sync::atomic::{AtomicBool, Ordering};

/// A keyed limiter's native half: the buckets, and the lines of those who wait.
///
/// Names with an underscore are for `mtaio.resources`; see `TokenBucket`.
#[pyclass(
    frozen,
    subclass,
    weakref,
    name = "KeyedBuckets",
    module = "mtaio._rust"
)]
pub(crate) struct PyKeyedBuckets {
    buckets: KeyedBuckets<Py<PyAny>>,
    clock: LimitClock,
    /// A key was kept that the collector must see.
    has_containers: AtomicBool,
}

/// Looks for one key. Foreign `__eq__` runs in `locate` only, under no lock.
struct KeySeek<'a, 'py> {
    key: &'a Bound<'py, PyAny>,
    /// Comparing the key with another plain one runs no foreign code.
    plain: bool,
    /// Candidates asked before. They are kept alive, so identity tells them.
    known: Vec<(Py<PyAny>, bool)>,
    /// The candidate to ask next.
    unsure: Option<Py<PyAny>>,
}

/// Whether comparing two such runs the interpreter's own code only.
///
/// `bytes` are not among them: under `python -b`, to compare them with text warns.
fn is_plain(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_none()
        || value
            .cast_exact::<PyTuple>()
            .is_ok_and(|parts| parts.iter().all(|part| is_plain_leaf(&part)))
}

fn both_bytes(one: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> bool {
    one.is_exact_instance_of::<PyBytes>() && other.is_exact_instance_of::<PyBytes>()
}

/// As `is_plain`, one level deep: no recursion to overflow.
fn is_plain_leaf(value: &Bound<'_, PyAny>) -> bool {
    value.cast_exact::<PyTuple>().is_err() && is_plain(value)
}

impl Seek<Py<PyAny>> for KeySeek<'_, '_> {
    #[inline]
    fn same(&mut self, other: &Py<PyAny>) -> Option<bool> {
        let other = other.bind(self.key.py());
        if other.is(self.key) {
            return Some(true);
        }
        if (self.plain && is_plain(other)) || both_bytes(self.key, other) {
            return other.eq(self.key).ok();
        }
        if let Some((_, same)) = self.known.iter().find(|(seen, _)| other.is(seen)) {
            return Some(*same);
        }
        self.unsure = Some(other.clone().unbind());
        None
    }

    fn make(&mut self) -> Py<PyAny> {
        self.key.clone().unbind()
    }
}

impl PyKeyedBuckets {
    /// `work(hash, seek)` until it is sure. `work` takes and drops all locks.
    #[inline]
    fn locate<'py, T>(
        &self,
        key: &Bound<'py, PyAny>,
        mut work: impl FnMut(u64, &mut KeySeek<'_, 'py>) -> Result<T, Unsure>,
    ) -> PyResult<T> {
        let hash = spread(key.hash()?);
        let plain = is_plain(key);
        let mut seek = KeySeek {
            key,
            plain,
            known: Vec::new(),
            unsure: None,
        };
        if !plain && !key.is_exact_instance_of::<PyBytes>() {
            self.has_containers.store(true, Ordering::Relaxed);
        }
        loop {
            if let Ok(done) = work(hash, &mut seek) {
                return Ok(done);
            }
            let other = seek.unsure.take().expect("unsure of a candidate");
            let same = other.bind(key.py()).eq(key)?;
            seek.known.push((other, same));
        }
    }

    #[inline]
    fn take(&self, key: &Bound<'_, PyAny>, tokens: u64) -> PyResult<Taken> {
        let now = self.clock.now(key.py())?;
        // Dropped last, after all locks.
        let mut dropped = Vec::new();
        self.locate(key, |hash, seek| {
            self.buckets
                .try_take(hash, seek, (tokens, now), &mut dropped)
        })
    }
}

/// Python hashes small ints to themselves; the map needs all bits to differ.
#[inline]
fn spread(hash: isize) -> u64 {
    // 2^64 over the golden ratio: Fibonacci hashing, then the high half folded
    // down, which multiplication does not reach.
    let mixed = (hash as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ (mixed >> 32)
}

#[pymethods]
impl PyKeyedBuckets {
    #[new]
    #[pyo3(signature = (rate, burst = None, *, max_keys = None, clock = None))]
    #[pyo3(text_signature = "(rate, burst=None, *, max_keys=100000, clock=None)")]
    fn new(
        py: Python<'_>,
        rate: &Bound<'_, PyAny>,
        burst: Option<&Bound<'_, PyAny>>,
        max_keys: Option<&Bound<'_, PyAny>>,
        clock: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let quota = quota(rate, burst)?;
        let max_keys = max_keys.map_or(Ok(100_000), |given| args::whole("max_keys", given, 1))?;
        let clock = LimitClock::new(py, clock)?;
        let start = clock.latest();
        Ok(Self {
            buckets: KeyedBuckets::new(clock.timed(quota), max_keys, start),
            clock,
            has_containers: AtomicBool::new(false),
        })
    }

    /// Tokens per second and key.
    #[getter]
    fn rate(&self) -> f64 {
        self.buckets.quota().rate()
    }

    /// The most tokens at once for a key.
    #[getter]
    fn burst(&self) -> u64 {
        self.buckets.quota().burst()
    }

    /// The most keys remembered.
    #[getter]
    fn max_keys(&self) -> u64 {
        self.buckets.max_keys()
    }

    /// Keys remembered now: those that owe, and some that are full again.
    fn __len__(&self) -> usize {
        self.buckets.len()
    }

    /// Take `tokens` for `key`, waiting in the key's line for them if need be.
    ///
    /// As `RateLimiter.acquire`, each key for itself. `key` is anything
    /// hashable. Raises `RateLimitError` also if the key is new and `max_keys`
    /// keys owe.
    #[inline]
    #[pyo3(signature = (key, tokens = Tokens::ONE, *, timeout = None))]
    #[pyo3(text_signature = "($self, key, tokens=1, *, timeout=None)")]
    fn acquire<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        tokens: Tokens,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let asked = tokens.within(this.buckets.quota())?;
        let timeout_ns = timeout_ns(timeout)?;
        if this.take(key, asked)? == Taken::Granted {
            return Ok(ready::ready(py)?.into_bound(py).into_any());
        }
        slf.call_method1(names(py).wait.bind(py), (key, asked, timeout_ns))
    }

    /// Take `tokens` for `key` and return True if they are there and nobody
    /// waits for them; else take nothing and return False. False also if the
    /// key is new and `max_keys` keys owe. Never waits; any thread.
    #[inline]
    #[pyo3(signature = (key, tokens = Tokens::ONE))]
    #[pyo3(text_signature = "($self, key, tokens=1)")]
    fn try_acquire(
        slf: &Bound<'_, Self>,
        key: &Bound<'_, PyAny>,
        tokens: Tokens,
    ) -> PyResult<bool> {
        let this = slf.get();
        let asked = tokens.within(this.buckets.quota())?;
        let mut taken = this.take(key, asked)?;
        if taken == Taken::Held {
            // Perhaps for a loop that is gone: look after the lines, then again.
            slf.call_method0(names(slf.py()).tend.bind(slf.py()))?;
        }
        if matches!(taken, Taken::Held | Taken::Crowded) {
            taken = this.take(key, asked)?;
        }
        if taken != Taken::Granted {
            this.buckets.count_refused();
        }
        Ok(taken == Taken::Granted)
    }

    /// As `TokenBucket._join`, for `key`.
    fn _join(
        &self,
        lane: u64,
        key: &Bound<'_, PyAny>,
        tokens: u64,
        timeout_ns: Option<u64>,
    ) -> PyResult<Option<u64>> {
        let ask = Ask {
            lane,
            tokens,
            now: self.clock.now(key.py())?,
            max_wait: timeout_ns,
        };
        let mut dropped = Vec::new();
        let joined = self.locate(key, |hash, seek| {
            self.buckets.join(hash, seek, &ask, &mut dropped)
        })?;
        match joined {
            Some(Joined::Granted) => Ok(None),
            Some(Joined::Waiting(ticket)) => Ok(Some(ticket)),
            Some(Joined::TooLong(wait)) => Err(due_error(tokens, wait, timeout_ns)),
            None => {
                self.buckets.count_refused();
                let most = self.buckets.max_keys();
                let message = format!("a new key, and max_keys={most} keys owe tokens already");
                // A guess: the keys that owe are full after that at the latest.
                let burst = self.buckets.quota().burst() as f64;
                let retry_after = burst / self.buckets.quota().rate();
                Err(RateLimitError::new_err((message, retry_after)))
            }
        }
    }

    /// As `TokenBucket._leave`.
    fn _leave(&self, py: Python<'_>, ticket: u64) -> PyResult<bool> {
        let now = self.clock.now(py)?;
        Ok(self.buckets.leave(ticket, now, || self.clock.latest()))
    }

    /// As `TokenBucket._drop_lane`.
    fn _drop_lane(&self, py: Python<'_>, lane: u64) -> PyResult<()> {
        let now = self.clock.now(py)?;
        self.buckets.drop_lane(lane, now, || self.clock.latest());
        Ok(())
    }

    /// As `TokenBucket._refund`, for `key`.
    fn _refund(&self, key: &Bound<'_, PyAny>, tokens: u64, taken_ns: u64) -> PyResult<()> {
        let now = self.clock.now(key.py())?;
        let grant = Grant {
            ticket: 0,
            lane: 0,
            tokens,
            taken_ns,
        };
        self.locate(key, |hash, seek| {
            let latest = || self.clock.latest();
            self.buckets.refund(hash, seek, &grant, now, latest)
        })
    }

    /// As `TokenBucket._turn`.
    fn _turn(&self, py: Python<'_>, lane: u64) -> PyResult<Turn> {
        let now = self.clock.now(py)?;
        let mut others = self.buckets.serve(now);
        others.retain(|other| *other != lane);
        let grants = told(&self.buckets.collect(lane));
        Ok((grants, others, self.buckets.due_ns(now)))
    }

    /// As `TokenBucket._due`.
    fn _due(&self, py: Python<'_>, lane: u64) -> PyResult<Option<u64>> {
        let _ = lane;
        Ok(self.buckets.due_ns(self.clock.now(py)?))
    }

    /// As `TokenBucket._retry_after`, for `key`.
    #[pyo3(signature = (key, tokens = Tokens::ONE), text_signature = "($self, key, tokens=1)")]
    fn _retry_after(&self, key: &Bound<'_, PyAny>, tokens: Tokens) -> PyResult<f64> {
        let asked = tokens.within(self.buckets.quota())?;
        let now = self.clock.now(key.py())?;
        let wait = self.locate(key, |hash, seek| {
            self.buckets.wait_ns(hash, seek, (asked, now))
        })?;
        Ok(seconds(wait))
    }

    /// As `TokenBucket._counts`.
    fn _counts(&self) -> (u64, u64, usize, f64) {
        let counts = self.buckets.counts();
        let waited = counts.waited_ns as f64 / 1e9;
        (counts.granted, counts.refused, counts.waiting, waited)
    }

    /// As `TokenBucket._native_clock`.
    #[getter]
    fn _native_clock(&self) -> bool {
        self.clock.is_native()
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.clock.traverse(&visit)?;
        if self.has_containers.load(Ordering::Relaxed) {
            self.buckets.visit(|key| visit.call(key))?;
        }
        Ok(())
    }

    fn __clear__(&self) {
        // Dropped here, with no lock held.
        let _keys = self.buckets.clear();
    }
}

/// Whether two exact `str` or two exact `int` are equal; None for others.
#[inline]
fn plainly_same(key: &Bound<'_, PyAny>, other: &Bound<'_, PyAny>) -> Option<bool> {
    if key.is(other) {
        return Some(true);
    }
    let text = key.is_exact_instance_of::<PyString>();
    let alike = key.get_type_ptr() == other.get_type_ptr();
    if alike && (text || key.is_exact_instance_of::<PyInt>()) {
        return key.eq(other).ok();
    }
    None
}

impl AtOnce for PyKeyedBuckets {
    /// For a key that is remembered.
    #[inline]
    fn take_at_once(&self, arguments: &[Borrowed<'_, '_, PyAny>]) -> Option<bool> {
        let (key, tokens) = arguments.split_first()?;
        let asked = asked(tokens, self.buckets.quota())?;
        let plain = key.is_exact_instance_of::<PyString>() || key.is_exact_instance_of::<PyInt>();
        if !plain || !self.clock.is_native() {
            return None;
        }
        let hash = spread(key.hash().ok()?);
        let same = |other: &Py<PyAny>| plainly_same(key, other.bind(key.py()));
        let taken = self
            .buckets
            .try_take_known(hash, same, asked, monotonic_ns())?;
        Some(taken == Taken::Granted)
    }

    fn count_refused(&self) {
        self.buckets.count_refused();
    }

    fn made() -> &'static [Made; 2] {
        static MADE: [Made; 2] = [Made::new(), Made::new()];
        &MADE
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    add::<PyKeyedBuckets>(m)
}
