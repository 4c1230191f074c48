//! A rate limiter: a bucket, the line before it, and its counts.
//!
//! Takers that find tokens and no line touch the bucket alone. All others go
//! through the line's lock, under which the bucket is held: while anyone waits,
//! `try_take` takes nothing, so none is overtaken.

use crate::bucket::{Quota, Refused, TokenBucket};
use crate::line::{Grant, Left, Line};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

/// What `join` came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The tokens were there after all, and are taken.
    Granted,
    /// Wait for this ticket.
    Waiting(u64),
    /// It would take this many nanoseconds, more than allowed. Nothing was taken.
    TooLong(u64),
}

/// Counts since the limiter was made; tokens, callers and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Tokens granted and not given back.
    pub granted: u64,
    /// Requests refused: by `try_take`, or because the wait was too long.
    pub refused: u64,
    /// Callers that wait now.
    pub waiting: usize,
    /// Sum of the waits of all who were granted after waiting.
    pub waited_ns: u128,
}

/// See the module's text. Any thread may call anything; nothing blocks for
/// longer than the line's short lock. Tokens asked are at most the burst.
#[derive(Debug)]
pub struct Limiter {
    bucket: TokenBucket,
    line: Mutex<Line>,
    granted: AtomicU64,
    refused: AtomicU64,
}

impl Limiter {
    /// A limiter with a full bucket, made at `now`.
    #[must_use]
    pub fn new(quota: Quota, now: u64) -> Self {
        Self::over(TokenBucket::new(quota, now))
    }

    /// A limiter over a bucket in any state.
    pub(crate) fn over(bucket: TokenBucket) -> Self {
        Self {
            bucket,
            line: Mutex::new(Line::default()),
            granted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The bucket.
    pub(crate) fn bucket(&self) -> &TokenBucket {
        &self.bucket
    }

    /// Whether nobody waits and all grants are collected.
    pub(crate) fn is_idle(&self) -> bool {
        let queue = self.line.lock();
        queue.is_empty() && !queue.has_grants()
    }

    /// Nanoseconds until the head of the line is due. None if nobody waits.
    pub(crate) fn head_due_ns(&self, now: u64) -> Option<u64> {
        let head = self.line.lock().head()?;
        Some(self.bucket.wait_ns(u128::from(head), now))
    }

    /// The terms.
    #[must_use]
    pub fn quota(&self) -> &Quota {
        self.bucket.quota()
    }

    /// Take `tokens` now or not at all.
    #[inline]
    pub fn try_take(&self, tokens: u64, now: u64) -> Result<(), Refused> {
        let taken = self.bucket.try_take(tokens, now);
        if taken.is_ok() {
            self.granted.fetch_add(tokens, Ordering::Relaxed);
        }
        taken
    }

    /// Count a request that was refused for good.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Take `tokens` at once, or stand in line, if that takes at most `max_wait`
    /// nanoseconds.
    pub fn join(&self, lane: u64, tokens: u64, now: u64, max_wait: Option<u64>) -> Joined {
        let mut queue = self.enter();
        let joined = if queue.is_empty() && self.bucket.take_held(tokens, now) {
            self.granted.fetch_add(tokens, Ordering::Relaxed);
            Joined::Granted
        } else {
            let wait = self.bucket.wait_ns(queue.asked() + u128::from(tokens), now);
            match max_wait {
                Some(most) if wait > most => Joined::TooLong(wait),
                _ => Joined::Waiting(queue.join(lane, tokens, now)),
            }
        };
        self.exit(&queue);
        if let Joined::TooLong(_) = joined {
            self.count_refused();
        }
        joined
    }

    /// Leave the line: `ticket` was cancelled. Whether the head of the line may
    /// now be due at another time.
    ///
    /// `latest`, here and below, tells the latest reading that any caller may
    /// have used; it is asked once the bucket is held. See `Quota::refund`.
    pub fn leave(&self, ticket: u64, now: u64, latest: impl FnOnce() -> u64) -> bool {
        let mut queue = self.enter();
        let moved = match queue.leave(ticket) {
            Left::Waiting { first } => first,
            Left::Granted(grant) => {
                self.give_back(&grant, latest());
                true
            }
            Left::Unknown => false,
        };
        self.advance(&mut queue, now);
        self.exit(&queue);
        moved
    }

    /// All of `lane` leave: its loop is closed.
    pub fn drop_lane(&self, lane: u64, now: u64, latest: impl FnOnce() -> u64) {
        let mut queue = self.enter();
        let latest = latest();
        for grant in queue.drop_lane(lane) {
            self.give_back(&grant, latest);
        }
        self.advance(&mut queue, now);
        self.exit(&queue);
    }

    /// Give back what a collected grant took, unused.
    pub fn refund(&self, grant: &Grant, now: u64, latest: impl FnOnce() -> u64) {
        let mut queue = self.enter();
        self.give_back(grant, latest());
        self.advance(&mut queue, now);
        self.exit(&queue);
    }

    /// Grant what can be granted now. The lanes with grants to collect.
    pub fn serve(&self, now: u64) -> Vec<u64> {
        let mut queue = self.line.lock();
        self.advance(&mut queue, now);
        self.exit(&queue);
        queue.lanes()
    }

    /// The lanes with grants to collect.
    #[must_use]
    pub fn lanes(&self) -> Vec<u64> {
        self.line.lock().lanes()
    }

    /// Hand over the grants of `lane`.
    pub fn collect(&self, lane: u64) -> Vec<Grant> {
        self.line.lock().collect(lane)
    }

    /// Nanoseconds until `lane` should call `serve`: when its first waiter is
    /// due. None if nobody waits.
    ///
    /// Where others stand before it, that is at most `PATIENCE_NS` after the
    /// head is due, so that a loop that stopped serving holds nobody up.
    #[must_use]
    pub fn due_ns(&self, lane: u64, now: u64) -> Option<u64> {
        const PATIENCE_NS: u64 = 10_000_000;
        let queue = self.line.lock();
        let ahead = queue.ahead_of(lane)?;
        let own = self.bucket.wait_ns(ahead.tokens, now);
        if !ahead.foreign {
            return Some(own.saturating_add(self.batch_ns(ahead.head)));
        }
        let head = self.bucket.wait_ns(u128::from(ahead.head), now);
        Some(own.min(head.saturating_add(PATIENCE_NS)))
    }

    /// How long to gather grants that come faster than a loop turns, where the
    /// bucket has room for them.
    fn batch_ns(&self, head: u64) -> u64 {
        const TURN_NS: u64 = 250_000;
        let quota = self.quota();
        if quota.refill_ns(head) > TURN_NS {
            return 0;
        }
        (quota.refill_ns(quota.burst() - head) / 4).min(TURN_NS)
    }

    /// Nanoseconds until `tokens` asked now would be granted.
    #[must_use]
    pub fn wait_ns(&self, tokens: u64, now: u64) -> u64 {
        let queue = self.line.lock();
        self.bucket.wait_ns(queue.asked() + u128::from(tokens), now)
    }

    /// See `Counts`.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let queue = self.line.lock();
        Counts {
            granted: self.granted.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            waiting: queue.len(),
            waited_ns: queue.waited_ns(),
        }
    }

    fn enter(&self) -> MutexGuard<'_, Line> {
        let queue = self.line.lock();
        self.bucket.hold();
        queue
    }

    /// The bucket is held exactly while someone waits.
    fn exit(&self, queue: &Line) {
        if queue.is_empty() {
            self.bucket.release();
        }
    }

    fn advance(&self, queue: &mut Line, now: u64) {
        queue.grant(now, |tokens, since| {
            let taken = self.bucket.take_due(tokens, since, now)?;
            self.granted.fetch_add(tokens, Ordering::Relaxed);
            Some(taken)
        });
    }

    fn give_back(&self, grant: &Grant, latest: u64) {
        self.bucket.give_back(grant.tokens, grant.taken_ns, latest);
        self.granted.fetch_sub(grant.tokens, Ordering::Relaxed);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod model;
#[cfg(all(test, not(feature = "loom")))]
mod tests;
