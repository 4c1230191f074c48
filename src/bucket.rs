//! A token bucket as one atomic word: GCRA (ITU-T I.371, the virtual
//! scheduling form), with a bit that holds the bucket for those who queue.
//!
//! # The fixed point
//!
//! GCRA keeps one number, the *theoretical arrival time*: when the bucket will
//! be full again. Kept in nanoseconds it is wrong for fast rates (at 3e8
//! tokens/s a token is 3.33 ns, rounded up to 4) and overflows for slow ones (a
//! burst of 1e6 at 1e-6 tokens/s takes 1e21 ns). So it is kept in *grains* of
//! 2^-f token, and only a reading of the clock is rounded, never the rate:
//!
//! - a token is exactly 2^f grains, so costs are shifts and add up exactly;
//! - a reading `age` (nanoseconds since the bucket was made) becomes
//!   `age * multiplier >> 63` grains, with `multiplier` the rate in grains per
//!   nanosecond, rounded down;
//! - f is as large as two limits allow: less than 2 grains per nanosecond, so
//!   that 73 years (2^61 ns) stay below 2^62 grains, and `burst` below 2^62
//!   grains. Their sum fits 63 bits whatever the rate from 1e-6 to 1e9 and the
//!   burst up to 2^40. A grain is then 0.5 to 1 ns of refill (more only where
//!   `burst` alone would take over 73 years to refill). Past 73 years the
//!   reading stands still, and so does the refill.
//!
//! ```text
//!  bit 63      bits 62..0
//! +------+-----------------------------------------------------------+
//! | HELD | grains at which the bucket is full (theoretical arrival)   |
//! +------+-----------------------------------------------------------+
//! ```
//!
//! # Why it conforms
//!
//! A grant of n tokens at reading g asks `max(v, g) + n <= g + burst` and stores
//! `max(v, g) + n`. After the first grant in a window [a, b] the word is at least
//! `g(a) + n1`, every grant only adds to it, and the last one leaves it at most
//! `g(b) + burst`. So all in the window is at most `burst + g(b) - g(a)`. Nothing
//! here relies on the order of readings: the clock may go backwards.
//!
//! One who waited may be granted by an earlier reading, that at which the bucket
//! was full: see `Quota::forgiving`. A window in which such grants happen holds
//! what is due in one that began up to `forgiven` sooner: at most half a token
//! more.
//!
//! Rounding two readings down can make `g(b) - g(a)` one grain too large. The
//! multiplier is lowered by a grain per token to pay for that: a window long
//! enough for a token to come back then is a grain short, and in a shorter one
//! none comes back. So at most `burst + rate * T` holds exactly, at the price of
//! 2^-f of the rate: 0.1 % at 1e6 tokens/s, 1e-6 at 1000. Above 2e6 tokens/s,
//! where a nanosecond is worth over 2^-10 token, the price would be the
//! larger error, and the bound holds to the nanosecond the clock can tell.

use crate::sync::{AtomicU64, Ordering};

/// Slowest and fastest rate in tokens per second.
pub const RATES: std::ops::RangeInclusive<f64> = 1e-6..=1e9;
/// Largest burst in tokens.
pub const MAX_BURST: u64 = 1 << 40;

/// How late a grant may be without those behind it being late too...
const MOST_FORGIVEN_NS: u64 = 1_000_000;
/// ...and never for more than what this part of a token takes to come back.
const FORGIVEN_PART: f64 = 0.5;

const MAX_AGE_NS: u64 = 1 << 61;
const MAX_BURST_GRAINS: u64 = (1 << 62) - 2;
/// The least f at which a grain per token is paid for exactness.
const EXACT_FROM: u32 = 10;
const HELD: u64 = 1 << 63;

/// Why a quota can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaError {
    /// The rate is not in `RATES`.
    Rate,
    /// The burst is 0 or above `MAX_BURST`.
    Burst,
}

/// Why tokens were not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Too few tokens now.
    Short,
    /// There are tokens, but others came first and wait.
    Held,
}

/// What a bucket allows: `rate` tokens per second, `burst` at once.
#[derive(Debug, Clone)]
pub struct Quota {
    rate: f64,
    burst: u64,
    /// A token is 2^f grains.
    f: u32,
    /// Grains per nanosecond, times 2^63.
    multiplier: u64,
    /// Nanoseconds of lateness that cost nothing of the rate.
    forgiven_ns: u64,
}

impl Quota {
    /// Fix the unit for this rate and burst; see the module's text.
    pub fn new(rate: f64, burst: u64) -> Result<Self, QuotaError> {
        if !RATES.contains(&rate) {
            return Err(QuotaError::Rate);
        }
        if burst == 0 || burst > MAX_BURST {
            return Err(QuotaError::Burst);
        }
        let mut f = 60;
        while rate * (f64::from(f)).exp2() >= 2e9 || burst > MAX_BURST_GRAINS >> f {
            f -= 1;
        }
        let mut multiplier = multiplier(rate, f);
        if f >= EXACT_FROM {
            multiplier -= (multiplier >> f) + 1;
        }
        Ok(Self {
            rate,
            burst,
            f,
            multiplier,
            forgiven_ns: 0,
        })
    }

    /// For a clock whose timers are late now and then: what they are late by is
    /// not lost for the rate, up to a millisecond or half a token.
    ///
    /// A bucket that is full loses what would come in, so a grant that waits for
    /// a full bucket and happens late delays all behind it. Here those keep
    /// their times. Guava's `RateLimiter` and Go's `rate.Limiter` do so without
    /// a bound, and let a burst through after a pause.
    #[must_use]
    pub fn forgiving(mut self) -> Self {
        let part = (FORGIVEN_PART / self.rate * 1e9) as u64;
        self.forgiven_ns = part.min(MOST_FORGIVEN_NS);
        self
    }

    /// Tokens per second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The most tokens at once.
    #[must_use]
    pub fn burst(&self) -> u64 {
        self.burst
    }

    /// Nanoseconds that `tokens` take to come back.
    pub(crate) fn refill_ns(&self, tokens: u64) -> u64 {
        (tokens as f64 / self.rate * 1e9) as u64
    }

    /// The reading `age_ns` in grains, rounded down.
    #[inline]
    pub(crate) fn grains(&self, age_ns: u64) -> u64 {
        let age = u128::from(age_ns.min(MAX_AGE_NS));
        ((age * u128::from(self.multiplier)) >> 63) as u64
    }

    #[inline]
    fn cost(&self, tokens: u64) -> u64 {
        debug_assert!(tokens <= self.burst, "callers refuse more than the burst");
        tokens << self.f
    }

    /// The word after a grant of `tokens` at `reading` grains, if conforming.
    #[inline]
    pub(crate) fn grant(&self, full_at: u64, tokens: u64, reading: u64) -> Option<u64> {
        let cost = self.cost(tokens);
        let conforms = full_at.max(reading) + cost <= reading + self.cost(self.burst);
        conforms.then(|| full_at.max(reading) + cost)
    }

    /// The age by which a grant at `age_ns` counts, to one who has waited since
    /// `since_ns`: when the bucket was full, if that is at most `forgiven_ns` ago.
    fn due_age(&self, full_at: u64, since_ns: u64, age_ns: u64) -> u64 {
        if self.forgiven_ns == 0 || self.grains(age_ns) <= full_at {
            return age_ns;
        }
        let earliest = age_ns.saturating_sub(self.forgiven_ns).max(since_ns);
        self.age_at(full_at).max(earliest).min(age_ns)
    }

    /// The least age that reads `grains` or more.
    fn age_at(&self, grains: u64) -> u64 {
        (u128::from(grains) << 63).div_ceil(u128::from(self.multiplier)) as u64
    }

    /// The word after giving back `tokens` taken at `taken` grains.
    ///
    /// Had they never been taken, the bucket might have stood full since and
    /// let that much refill go by; so what has refilled since is not given
    /// back a second time. `latest` is the latest reading any grant may have
    /// used, so that this holds under a clock that went backwards too.
    pub(crate) fn refund(&self, full_at: u64, tokens: u64, taken: u64, latest: u64) -> u64 {
        let owed = self
            .cost(tokens)
            .saturating_sub(latest.saturating_sub(taken));
        full_at.saturating_sub(owed)
    }

    /// Nanoseconds from `age_ns` until `tokens` (even above the burst: those of
    /// a whole queue, one after the other) would all have been granted.
    /// `u64::MAX` stands for longer than the clock runs.
    ///
    /// Where a queue is late, it is told as if served now: see `due_age`.
    pub(crate) fn wait_ns(&self, full_at: u64, tokens: u128, age_ns: u64) -> u64 {
        let due = self.grains(self.due_age(full_at, 0, age_ns));
        let base = u128::from(full_at.max(due));
        let last = tokens
            .checked_mul(1 << self.f)
            .and_then(|cost| cost.checked_add(base))
            .map(|full| full.saturating_sub(u128::from(self.cost(self.burst))));
        match last {
            Some(reading) if reading <= u128::from(self.grains(MAX_AGE_NS)) => {
                self.age_at(reading as u64).saturating_sub(age_ns)
            }
            _ => u64::MAX,
        }
    }
}

/// floor(rate * 2^f / 1e9 * 2^63), exactly, from the parts of the float.
fn multiplier(rate: f64, f: u32) -> u64 {
    let bits = rate.to_bits();
    // RATES holds normal numbers only: the implicit leading bit is there.
    let mantissa = u128::from(bits & ((1 << 52) - 1) | (1 << 52));
    let exponent = (bits >> 52) as i32 - 1075;
    // 53 + 74 bits fit the u128; the shift back is what 74 was too many.
    let scaled = (mantissa << 74) / 1_000_000_000;
    let excess = 74 - (exponent + f.cast_signed() + 63);
    (scaled >> excess) as u64
}

/// One bucket, full when made. Any thread may call anything.
///
/// `now` is nanoseconds on any clock, always the same one for one bucket.
#[derive(Debug)]
pub struct TokenBucket {
    quota: Quota,
    /// The reading of the clock when the bucket was made; ages count from it.
    start_ns: u64,
    // Every access is Relaxed: the word is the whole state and publishes no
    // other memory, so the modification order of this one atomic is enough.
    state: AtomicU64,
}

impl TokenBucket {
    /// A full bucket, made at `now`.
    #[must_use]
    pub fn new(quota: Quota, now: u64) -> Self {
        Self {
            quota,
            start_ns: now,
            state: AtomicU64::new(0),
        }
    }

    /// A bucket that goes on from `full_at`, ages counted from `start_ns`.
    pub(crate) fn resume(quota: Quota, start_ns: u64, full_at: u64) -> Self {
        Self {
            quota,
            start_ns,
            state: AtomicU64::new(full_at),
        }
    }

    /// The grains at which it is full; with it another bucket can go on.
    pub(crate) fn full_at(&self) -> u64 {
        self.state.load(Ordering::Relaxed) & !HELD
    }

    /// The terms.
    #[must_use]
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    #[inline]
    fn age(&self, now: u64) -> u64 {
        // A clock that went back to before the start reads 0, which only
        // delays; see "Why it conforms".
        now.saturating_sub(self.start_ns)
    }

    /// Take `tokens` (at most the burst) if that conforms and nobody queues.
    #[inline]
    pub fn try_take(&self, tokens: u64, now: u64) -> Result<(), Refused> {
        let reading = self.quota.grains(self.age(now));
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let next = self.quota.grant(state & !HELD, tokens, reading);
            let next = next.ok_or(Refused::Short)?;
            if state & HELD != 0 {
                return Err(Refused::Held);
            }
            match self.swap(state, next) {
                Ok(()) => return Ok(()),
                Err(seen) => state = seen,
            }
        }
    }

    /// As `try_take`, for the head of the queue the bucket is held for.
    pub fn take_held(&self, tokens: u64, now: u64) -> bool {
        let reading = self.quota.grains(self.age(now));
        self.update(|full_at| self.quota.grant(full_at, tokens, reading))
    }

    /// As `take_held`, for one who has waited since `since`. The clock reading by
    /// which the tokens are taken: `now`, or earlier by what the quota forgives.
    pub fn take_due(&self, tokens: u64, since: u64, now: u64) -> Option<u64> {
        let (since, age) = (self.age(since), self.age(now));
        let mut due = age;
        let taken = self.update(|full_at| {
            due = self.quota.due_age(full_at, since, age);
            self.quota.grant(full_at, tokens, self.quota.grains(due))
        });
        taken.then(|| now - (age - due))
    }

    /// Give back `tokens` taken at `taken` (a clock reading) and never used.
    ///
    /// `latest` is the latest reading the bucket may have been asked with, found
    /// out while the bucket is held.
    pub fn give_back(&self, tokens: u64, taken: u64, latest: u64) {
        let taken = self.quota.grains(self.age(taken));
        let latest = self.quota.grains(self.age(latest));
        self.update(|full_at| Some(self.quota.refund(full_at, tokens, taken, latest)));
    }

    /// From now on only `take_held` takes: others queue.
    pub fn hold(&self) {
        self.state.fetch_or(HELD, Ordering::Relaxed);
    }

    /// The queue is empty: `try_take` takes again.
    pub fn release(&self) {
        self.state.fetch_and(!HELD, Ordering::Relaxed);
    }

    /// Nanoseconds until `tokens` more would be granted to the last of a queue.
    #[must_use]
    pub fn wait_ns(&self, tokens: u128, now: u64) -> u64 {
        self.quota.wait_ns(self.full_at(), tokens, self.age(now))
    }

    /// Change the word by `next`, the held bit kept; false where it gives none.
    fn update(&self, mut next: impl FnMut(u64) -> Option<u64>) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while let Some(full_at) = next(state & !HELD) {
            match self.swap(state, full_at | (state & HELD)) {
                Ok(()) => return true,
                Err(seen) => state = seen,
            }
        }
        false
    }

    #[inline]
    fn swap(&self, seen: u64, next: u64) -> Result<(), u64> {
        self.state
            .compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed)
            .map(|_| ())
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_bucket;
#[cfg(all(test, not(feature = "loom")))]
mod tests;
