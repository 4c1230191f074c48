//! So many at once: a counting semaphore with a fair line before it.
//!
//! ```text
//!  bit 63    bits 62..0
//! +------+----------------+
//! | HELD | permits in use |
//! +------+----------------+
//! ```
//!
//! HELD is set exactly while someone waits. One word tells both, so a permit
//! given back is either seen by the one who joins the line, or its giver sees
//! the line: a wake-up can't be lost between the two.

use crate::line::{Grant, Left, Line};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};

const HELD: u64 = 1 << 63;

/// More permits were given back than taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTaken;

/// A permit is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GivenBack {
    /// Someone waits for it: call `serve`.
    pub wanted: bool,
}

/// Counts since the permits were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Permits taken now.
    pub in_use: u64,
    /// Callers that wait now.
    pub waiting: usize,
    /// Sum of the waits of all who were granted after waiting.
    pub waited_ns: u128,
}

/// See the module's text. Any thread may call anything; nothing blocks for
/// longer than the line's short lock. `now` is nanoseconds, for the counts only.
#[derive(Debug)]
pub struct Permits {
    limit: u64,
    // A permit guards what the program does with it, so taking one acquires
    // what giving it back released.
    state: AtomicU64,
    line: Mutex<Line>,
}

impl Permits {
    /// `limit` permits (below 2^63), none taken.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        debug_assert!(limit < HELD, "the top bit is the line's");
        Self {
            limit,
            state: AtomicU64::new(0),
            line: Mutex::new(Line::default()),
        }
    }

    /// How many may be taken at once.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Take a permit if one is free and nobody waits for it.
    #[inline]
    pub fn try_take(&self) -> bool {
        self.update(|state| (state < self.limit).then_some(state + 1))
            .is_ok()
    }

    /// Give a permit back.
    #[inline]
    pub fn give_back(&self) -> Result<GivenBack, NotTaken> {
        let before = self
            .update(|state| (state & !HELD > 0).then(|| state - 1))
            .map_err(|_| NotTaken)?;
        Ok(GivenBack {
            wanted: before & HELD != 0,
        })
    }

    /// Take a permit (None), or stand in line for this ticket.
    pub fn join(&self, lane: u64, now: u64) -> Option<u64> {
        let mut queue = self.enter();
        let ticket = if queue.is_empty() && self.take_held() {
            None
        } else {
            Some(queue.join(lane, 1, now))
        };
        self.exit(&queue);
        ticket
    }

    /// Leave the line: `ticket` was cancelled. Whether that freed a permit.
    pub fn leave(&self, ticket: u64, now: u64) -> bool {
        let mut queue = self.enter();
        let freed = matches!(queue.leave(ticket), Left::Granted(_));
        if freed {
            self.untake();
        }
        self.advance(&mut queue, now);
        freed
    }

    /// All of `lane` leave: its loop is closed.
    pub fn drop_lane(&self, lane: u64, now: u64) {
        let mut queue = self.enter();
        for _ in queue.drop_lane(lane) {
            self.untake();
        }
        self.advance(&mut queue, now);
    }

    /// Grant free permits to the head of the queue. The lanes with grants to
    /// collect.
    pub fn serve(&self, now: u64) -> Vec<u64> {
        let mut queue = self.enter();
        self.advance(&mut queue, now);
        queue.lanes()
    }

    /// Hand over the grants of `lane`.
    pub fn collect(&self, lane: u64) -> Vec<Grant> {
        self.line.lock().collect(lane)
    }

    /// Nanoseconds until `lane` should look whether others are still there: while
    /// it waits for them. Time frees no permit, but a loop that is closed does.
    #[must_use]
    pub fn due_ns(&self, lane: u64) -> Option<u64> {
        const PATIENCE_NS: u64 = 100_000_000;
        let queue = self.line.lock();
        let ahead = queue.ahead_of(lane)?;
        (ahead.foreign || queue.has_grants_beside(lane)).then_some(PATIENCE_NS)
    }

    /// None is taken. For a forked child, once all lanes are dropped: those who
    /// took them are in the parent.
    pub fn free_all(&self) {
        let queue = self.line.lock();
        // AcqRel: see `state`.
        self.state.fetch_and(HELD, Ordering::AcqRel);
        self.exit(&queue);
    }

    /// See `Counts`.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let queue = self.line.lock();
        Counts {
            in_use: self.state.load(Ordering::Relaxed) & !HELD,
            waiting: queue.len(),
            waited_ns: queue.waited_ns(),
        }
    }

    fn enter(&self) -> MutexGuard<'_, Line> {
        let queue = self.line.lock();
        self.state.fetch_or(HELD, Ordering::Relaxed);
        queue
    }

    fn exit(&self, queue: &Line) {
        if queue.is_empty() {
            self.state.fetch_and(!HELD, Ordering::Relaxed);
        }
    }

    fn advance(&self, queue: &mut Line, now: u64) {
        queue.grant(now, |_, _| self.take_held().then_some(now));
        self.exit(queue);
    }

    /// Take a permit for the head of the line the word is held for.
    fn take_held(&self) -> bool {
        self.update(|state| (state & !HELD < self.limit).then_some(state + 1))
            .is_ok()
    }

    /// Give back what a grant took; the line is served next.
    fn untake(&self) {
        let given = self.give_back();
        debug_assert!(given.is_ok(), "a grant took a permit");
    }

    fn update(&self, next: impl Fn(u64) -> Option<u64>) -> Result<u64, u64> {
        let mut state = self.state.load(Ordering::Relaxed);
        while let Some(wanted) = next(state) {
            // AcqRel: see `state`.
            match self.state.compare_exchange_weak(
                state,
                wanted,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(before) => return Ok(before),
                Err(seen) => state = seen,
            }
        }
        Err(state)
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_permits;
#[cfg(all(test, not(feature = "loom")))]
mod tests;
