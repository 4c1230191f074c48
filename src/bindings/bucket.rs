//! `TokenBucket`: what `mtaio.resources.RateLimiter` is built on.

// Python's calling convention, not Rust's, decides what the methods take.
#![allow(clippy::needless_pass_by_value, clippy::unused_self)]

use super::args;
use super::clock::{Clock, monotonic_ns};
use super::errors::{RateLimitError, ResourceLimitError};
use super::hot::{self, Made, Shortcut};
use super::names::names;
use super::ready;
use crate::bucket::{MAX_BURST, Quota, QuotaError, RATES, Refused};
use crate::limiter::{Joined, Limiter};
use crate::line::Grant;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::PyBool;
use pyo3::{Borrowed, PyClass};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// A rate limiter's native half: the bucket and the line of those who wait.
///
/// Names with an underscore are for `mtaio.resources`: they take and give the
/// numbers of tickets and lanes (a lane is one event loop).
#[pyclass(
    frozen,
    subclass,
    weakref,
    name = "TokenBucket",
    module = "mtaio._rust"
)]
pub(crate) struct PyTokenBucket {
    limiter: Limiter,
    clock: LimitClock,
}

/// Ticket and clock reading of each grant.
pub(crate) type Grants = Vec<(u64, u64)>;

/// The lane's grants, the other lanes with grants, and the nanoseconds until it
/// is due again.
pub(crate) type Turn = (Grants, Vec<u64>, Option<u64>);

pub(crate) fn told(grants: &[Grant]) -> Grants {
    let each = grants.iter().map(|grant| (grant.ticket, grant.taken_ns));
    each.collect()
}

/// A clock that knows its latest reading: one that was passed in may go
/// backwards, which refunds must know. The native one does not.
pub(crate) struct LimitClock {
    clock: Clock,
    latest: AtomicU64,
}

impl LimitClock {
    pub(crate) fn new(py: Python<'_>, given: Option<Py<PyAny>>) -> PyResult<Self> {
        let clock = Clock::new(given);
        let latest = AtomicU64::new(clock.now_ns(py)?);
        Ok(Self { clock, latest })
    }

    #[inline]
    pub(crate) fn now(&self, py: Python<'_>) -> PyResult<u64> {
        let now = self.clock.now_ns(py)?;
        if let Clock::Python(_) = self.clock {
            self.latest.fetch_max(now, Ordering::Relaxed);
        }
        Ok(now)
    }

    /// The latest reading any caller may have used. Runs no Python code.
    pub(crate) fn latest(&self) -> u64 {
        match self.clock {
            Clock::Monotonic => monotonic_ns(),
            Clock::Python(_) => self.latest.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn is_native(&self) -> bool {
        matches!(self.clock, Clock::Monotonic)
    }

    /// The quota as this clock needs it: the system's timers are late at times,
    /// those of a clock that was passed in are as exact as its owner wants.
    pub(crate) fn timed(&self, quota: Quota) -> Quota {
        if self.is_native() {
            quota.forgiving()
        } else {
            quota
        }
    }

    pub(crate) fn traverse(&self, visit: &pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.clock
            .object()
            .map_or(Ok(()), |clock| visit.call(clock))
    }
}

/// The terms, checked; shared with the keyed limiter.
pub(crate) fn quota(rate: &Bound<'_, PyAny>, burst: Option<&Bound<'_, PyAny>>) -> PyResult<Quota> {
    let per_second = args::positive("rate", rate)?;
    let burst = match burst {
        Some(burst) => args::whole("burst", burst, 1)?,
        None => per_second.ceil() as u64,
    };
    Quota::new(per_second, burst).map_err(|error| {
        PyValueError::new_err(match error {
            QuotaError::Rate => format!(
                "rate must be a number from {:e} to {:e} tokens per second, got {per_second}",
                RATES.start(),
                RATES.end()
            ),
            QuotaError::Burst => {
                format!("burst must be an int from 1 to {MAX_BURST}, got {burst}")
            }
        })
    })
}

/// The argument `tokens`: an int of 1 or more.
#[derive(Clone, Copy)]
pub(crate) struct Tokens(u64);

impl<'py> FromPyObject<'_, 'py> for Tokens {
    type Error = PyErr;

    fn extract(given: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        args::whole("tokens", &given, 1).map(Self)
    }
}

/// The error for a wait longer than allowed.
pub(crate) fn due_error(tokens: u64, wait_ns: u64, timeout_ns: Option<u64>) -> PyErr {
    let wait = seconds(wait_ns);
    let timeout = seconds(timeout_ns.unwrap_or(0).saturating_sub(ROUNDING_NS));
    let message = format!("{tokens} tokens asked within {timeout} s, they are due in {wait:.6} s");
    RateLimitError::new_err((message, wait))
}

impl Tokens {
    pub(crate) const ONE: Self = Self(1);

    /// The number, if the quota can ever give that many.
    #[inline]
    pub(crate) fn within(self, quota: &Quota) -> PyResult<u64> {
        let (asked, burst) = (self.0, quota.burst());
        if asked > burst {
            let message = format!("{asked} tokens asked, burst is {burst}");
            return Err(ResourceLimitError::new_err(message));
        }
        Ok(asked)
    }
}

pub(crate) fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// Added to timeouts, so that 0.1 s is enough for what is due in 0.1 s and a
/// rounding. Less than any wake-up is late.
const ROUNDING_NS: u64 = 1000;

/// A timeout in nanoseconds.
pub(crate) fn timeout_ns(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    timeout
        .map(|given| {
            args::non_negative("timeout", given)
                .map(|s| (s * 1e9) as u64)
                .map(|ns| ns.saturating_add(ROUNDING_NS))
        })
        .transpose()
}

#[pymethods]
impl PyTokenBucket {
    #[new]
    #[pyo3(signature = (rate, burst = None, *, clock = None))]
    fn new(
        py: Python<'_>,
        rate: &Bound<'_, PyAny>,
        burst: Option<&Bound<'_, PyAny>>,
        clock: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let quota = quota(rate, burst)?;
        let clock = LimitClock::new(py, clock)?;
        Ok(Self {
            limiter: Limiter::new(clock.timed(quota), clock.latest()),
            clock,
        })
    }

    /// Tokens per second.
    #[getter]
    fn rate(&self) -> f64 {
        self.limiter.quota().rate()
    }

    /// The most tokens at once.
    #[getter]
    fn burst(&self) -> u64 {
        self.limiter.quota().burst()
    }

    /// Take `tokens`, waiting in line for them if need be.
    ///
    /// Await it, or hand it to anything that takes an awaitable. Tokens that are
    /// there and that nobody waits for are taken at the call, and the answer is
    /// a shared object that has already finished. Otherwise a coroutine stands
    /// in line from when it first runs; cancelled, it gives back what it had.
    /// Any thread may call it; the wait belongs to the loop that awaits.
    ///
    /// Args:
    ///     tokens: 1 to `burst`.
    ///     timeout: Longest wait in seconds, judged up front; by default none.
    ///
    /// Raises:
    ///     `ResourceLimitError`: `tokens` is above `burst`; at the call.
    ///     `RateLimitError`: The wait would be longer than `timeout`; at once,
    ///         when awaited, taking nothing. `retry_after` tells how long.
    ///     `ValueError`: `tokens` or `timeout` is out of range.
    ///     `TypeError`: `tokens` is not an int, or `timeout` not a number.
    #[inline]
    #[pyo3(signature = (tokens = Tokens::ONE, *, timeout = None), text_signature = "($self, tokens=1, *, timeout=None)")]
    fn acquire<'py>(
        slf: &Bound<'py, Self>,
        tokens: Tokens,
        timeout: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, this) = (slf.py(), slf.get());
        let asked = tokens.within(this.limiter.quota())?;
        let timeout_ns = timeout_ns(timeout)?;
        if this.limiter.try_take(asked, this.clock.now(py)?).is_ok() {
            return Ok(ready::ready(py)?.into_bound(py).into_any());
        }
        slf.call_method1(names(py).wait.bind(py), (asked, timeout_ns))
    }

    /// `acquire()`, for `async with`.
    fn __aenter__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::acquire(slf, Tokens::ONE, None)
    }

    /// Nothing to give back: tokens are spent.
    #[pyo3(signature = (*_exc))]
    fn __aexit__(&self, py: Python<'_>, _exc: &Bound<'_, PyAny>) -> PyResult<Py<ready::PyReady>> {
        ready::ready(py)
    }

    /// Take `tokens` and return True if they are there and nobody waits for
    /// them; else take nothing and return False. Never waits; any thread.
    ///
    /// Raises `ResourceLimitError` if `tokens` is above `burst`.
    #[inline]
    #[pyo3(signature = (tokens = Tokens::ONE), text_signature = "($self, tokens=1)")]
    fn try_acquire(slf: &Bound<'_, Self>, tokens: Tokens) -> PyResult<bool> {
        let (py, this) = (slf.py(), slf.get());
        let asked = tokens.within(this.limiter.quota())?;
        match this.limiter.try_take(asked, this.clock.now(py)?) {
            Ok(()) => return Ok(true),
            Err(Refused::Short) => {}
            Err(Refused::Held) => {
                // There are tokens, so the head of the line is due, or asks for
                // more, or its loop is gone: look after the line, then again.
                slf.call_method0(names(py).tend.bind(py))?;
                if this.limiter.try_take(asked, this.clock.now(py)?).is_ok() {
                    return Ok(true);
                }
            }
        }
        this.limiter.count_refused();
        Ok(false)
    }

    /// The ticket to wait for, or None if the tokens were taken at once.
    ///
    /// Raises `RateLimitError` if the wait is longer than `timeout_ns`.
    fn _join(
        &self,
        py: Python<'_>,
        lane: u64,
        tokens: u64,
        timeout_ns: Option<u64>,
    ) -> PyResult<Option<u64>> {
        match self
            .limiter
            .join(lane, tokens, self.clock.now(py)?, timeout_ns)
        {
            Joined::Granted => Ok(None),
            Joined::Waiting(ticket) => Ok(Some(ticket)),
            Joined::TooLong(wait) => Err(due_error(tokens, wait, timeout_ns)),
        }
    }

    /// The ticket's waiter is gone; what it may have been granted is given back.
    /// Whether its lane, left as the only one, is due at another time now.
    fn _leave(&self, py: Python<'_>, ticket: u64) -> PyResult<bool> {
        let now = self.clock.now(py)?;
        Ok(self.limiter.leave(ticket, now, || self.clock.latest()))
    }

    /// The lane's loop is closed: all its waiters are gone.
    fn _drop_lane(&self, py: Python<'_>, lane: u64) -> PyResult<()> {
        let now = self.clock.now(py)?;
        self.limiter.drop_lane(lane, now, || self.clock.latest());
        Ok(())
    }

    /// Give back `tokens` taken at `taken_ns`, as `_turn` told, unused.
    fn _refund(&self, py: Python<'_>, tokens: u64, taken_ns: u64) -> PyResult<()> {
        let now = self.clock.now(py)?;
        let grant = Grant {
            ticket: 0,
            lane: 0,
            tokens,
            taken_ns,
        };
        self.limiter.refund(&grant, now, || self.clock.latest());
        Ok(())
    }

    /// Grant what can be granted now: the grants of this lane, to be handed out,
    /// the other lanes that have some to collect, and as `_due`.
    fn _turn(&self, py: Python<'_>, lane: u64) -> PyResult<Turn> {
        let now = self.clock.now(py)?;
        let mut others = self.limiter.serve(now);
        others.retain(|other| *other != lane);
        let grants = told(&self.limiter.collect(lane));
        Ok((grants, others, self.limiter.due_ns(lane, now)))
    }

    /// Nanoseconds until the lane must have its turn. None if nobody waits.
    fn _due(&self, py: Python<'_>, lane: u64) -> PyResult<Option<u64>> {
        Ok(self.limiter.due_ns(lane, self.clock.now(py)?))
    }

    /// Seconds until `tokens` asked now would be granted; 0.0 is at once.
    #[pyo3(signature = (tokens = Tokens::ONE), text_signature = "($self, tokens=1)")]
    fn _retry_after(&self, py: Python<'_>, tokens: Tokens) -> PyResult<f64> {
        let asked = tokens.within(self.limiter.quota())?;
        Ok(seconds(self.limiter.wait_ns(asked, self.clock.now(py)?)))
    }

    /// (granted tokens, refused requests, waiting callers, seconds waited).
    fn _counts(&self) -> (u64, u64, usize, f64) {
        let counts = self.limiter.counts();
        let waited = counts.waited_ns as f64 / 1e9;
        (counts.granted, counts.refused, counts.waiting, waited)
    }

    /// Whether the native clock is used, which timers of the system can follow.
    #[getter]
    fn _native_clock(&self) -> bool {
        self.clock.is_native()
    }

    fn __traverse__(&self, visit: pyo3::PyVisit<'_>) -> Result<(), pyo3::PyTraverseError> {
        self.clock.traverse(&visit)
    }
}

/// `[tokens]`; None where that is for the method itself to judge.
#[inline]
pub(crate) fn asked(arguments: &[Borrowed<'_, '_, PyAny>], quota: &Quota) -> Option<u64> {
    let tokens = match arguments {
        [] => 1,
        [tokens] => hot::whole(tokens)?,
        _ => return None,
    };
    (1..=quota.burst()).contains(&tokens).then_some(tokens)
}

/// A limiter whose usual cases have short cuts.
pub(crate) trait AtOnce: PyClass<Frozen = True> + Sync {
    /// Take now, by the system's clock, what `try_acquire` was asked for. None
    /// where that is for the method itself to judge.
    fn take_at_once(&self, arguments: &[Borrowed<'_, '_, PyAny>]) -> Option<bool>;

    /// Count a request that was refused for good.
    fn count_refused(&self);

    /// A static of its own: for `try_acquire` and for `acquire`.
    fn made() -> &'static [Made; 2];
}

/// `try_acquire` where it can be answered at once.
struct TryAcquire<L>(PhantomData<L>);

impl<L: AtOnce> Shortcut for TryAcquire<L> {
    type Class = L;
    const NAME: &'static str = "try_acquire";

    #[inline]
    fn usual<'py>(
        slf: Borrowed<'_, 'py, L>,
        arguments: &[Borrowed<'_, 'py, PyAny>],
    ) -> Option<Bound<'py, PyAny>> {
        let limiter = slf.get();
        let taken = limiter.take_at_once(arguments)?;
        if !taken {
            limiter.count_refused();
        }
        Some(PyBool::new(slf.py(), taken).to_owned().into_any())
    }

    fn made() -> &'static Made {
        &L::made()[0]
    }
}

/// `acquire` with tokens left.
struct Acquire<L>(PhantomData<L>);

impl<L: AtOnce> Shortcut for Acquire<L> {
    type Class = L;
    const NAME: &'static str = "acquire";

    #[inline]
    fn usual<'py>(
        slf: Borrowed<'_, 'py, L>,
        arguments: &[Borrowed<'_, 'py, PyAny>],
    ) -> Option<Bound<'py, PyAny>> {
        let ready = ready::shared(slf.py())?;
        (slf.get().take_at_once(arguments) == Some(true)).then_some(ready)
    }

    fn made() -> &'static Made {
        &L::made()[1]
    }
}

/// Add the class with its short cuts.
pub(crate) fn add<L: AtOnce>(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<L>()?;
    hot::install::<TryAcquire<L>>(m.py())?;
    hot::install::<Acquire<L>>(m.py())
}

impl AtOnce for PyTokenBucket {
    #[inline]
    fn take_at_once(&self, arguments: &[Borrowed<'_, '_, PyAny>]) -> Option<bool> {
        let asked = asked(arguments, self.limiter.quota())?;
        if !self.clock.is_native() {
            return None;
        }
        match self.limiter.try_take(asked, monotonic_ns()) {
            Ok(()) => Some(true),
            Err(Refused::Short) => Some(false),
            Err(Refused::Held) => None,
        }
    }

    fn count_refused(&self) {
        self.limiter.count_refused();
    }

    fn made() -> &'static [Made; 2] {
        static MADE: [Made; 2] = [Made::new(), Made::new()];
        &MADE
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    add::<PyTokenBucket>(m)
}
