//! The lines of those who wait for one of many keys; see `keyed`.
//!
//! A key whose bucket is short gets a limiter of its own, and its bucket moves
//! in there. It moves back once nobody waits and all grants are collected.

use crate::bucket::{Quota, Refused, TokenBucket};
use crate::limiter::{Joined, Limiter};
use crate::line::Grant;
use std::collections::{BTreeSet, HashMap};

/// What is asked, by whom, when.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// The loop that asks.
    pub lane: u64,
    /// At least 1, at most the burst.
    pub tokens: u64,
    /// Clock reading in nanoseconds.
    pub now: u64,
    /// Longest wait in nanoseconds, if any.
    pub max_wait: Option<u64>,
}

/// A line that is over: its bucket goes back to the key with this hash.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Over {
    pub(crate) id: u64,
    pub(crate) hash: u64,
    pub(crate) full_at: u64,
}

#[derive(Debug)]
struct KeyLine {
    hash: u64,
    limiter: Limiter,
    /// Its entry in `Lines::due`: when the head's tokens are there.
    due: Option<u64>,
    /// Its lanes in `Lines::granted`.
    lanes: Vec<u64>,
}

/// See the module's text. Kept behind a lock.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    open: HashMap<u64, KeyLine>,
    last_id: u64,
    /// Lane and line of all who wait, or are granted and not collected.
    tickets: HashMap<u64, (u64, u64)>,
    /// (time, line), earliest first.
    due: BTreeSet<(u64, u64)>,
    /// (lane, line) with grants to collect.
    granted: BTreeSet<(u64, u64)>,
    /// Lines that may be over, until `close` looks.
    touched: Vec<u64>,
    /// Of the lines that are over. Wraps: a grant of one line may be given
    /// back through the key's next one.
    granted_tokens: u64,
    waited_ns: u128,
}

impl Lines {
    /// Open a line for the key with this hash, with its bucket.
    pub(crate) fn open(&mut self, hash: u64, quota: &Quota, start_ns: u64, full_at: u64) -> u64 {
        self.last_id += 1;
        let bucket = TokenBucket::resume(quota.clone(), start_ns, full_at);
        let line = KeyLine {
            hash,
            limiter: Limiter::over(bucket),
            due: None,
            lanes: Vec::new(),
        };
        self.open.insert(self.last_id, line);
        self.last_id
    }

    /// As `Limiter::try_take`, in this line.
    pub(crate) fn try_take(&mut self, id: u64, tokens: u64, now: u64) -> Result<(), Refused> {
        self.line(id).limiter.try_take(tokens, now)
    }

    /// As `Limiter::join`, in this line.
    pub(crate) fn join(&mut self, id: u64, ask: &Ask) -> Joined {
        let limiter = &self.line(id).limiter;
        let joined = limiter.join(ask.lane, ask.tokens, ask.now, ask.max_wait);
        if let Joined::Waiting(ticket) = joined {
            self.tickets.insert(ticket, (ask.lane, id));
        }
        self.settle(id, ask.now);
        joined
    }

    /// As `Limiter::wait_ns`, in this line.
    pub(crate) fn wait_ns(&mut self, id: u64, tokens: u64, now: u64) -> u64 {
        self.line(id).limiter.wait_ns(tokens, now)
    }

    /// Grant what is due in all lines.
    pub(crate) fn serve(&mut self, now: u64) {
        while let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            self.line(id).limiter.serve(now);
            self.settle(id, now);
        }
    }

    /// As `Limiter::leave`, in whichever line the ticket is.
    pub(crate) fn leave(&mut self, ticket: u64, now: u64, latest: impl FnOnce() -> u64) -> bool {
        let Some((_, id)) = self.tickets.remove(&ticket) else {
            return false;
        };
        let moved = self.line(id).limiter.leave(ticket, now, latest);
        self.settle(id, now);
        moved
    }

    /// As `Limiter::drop_lane`, in all lines.
    pub(crate) fn drop_lane(&mut self, lane: u64, now: u64, latest: impl Fn() -> u64) {
        let mut mine = BTreeSet::new();
        self.tickets.retain(|_, &mut (of, id)| {
            if of == lane {
                mine.insert(id);
            }
            of != lane
        });
        for id in mine {
            self.line(id).limiter.drop_lane(lane, now, &latest);
            self.settle(id, now);
        }
    }

    /// As `Limiter::refund`, in this line.
    pub(crate) fn refund(
        &mut self,
        id: u64,
        grant: &Grant,
        now: u64,
        latest: impl FnOnce() -> u64,
    ) {
        self.line(id).limiter.refund(grant, now, latest);
        self.settle(id, now);
    }

    /// As `Limiter::collect`, from all lines; in order within each.
    pub(crate) fn collect(&mut self, lane: u64) -> Vec<Grant> {
        let mine: Vec<_> = self.granted.range((lane, 0)..=(lane, u64::MAX)).collect();
        let mine: Vec<u64> = mine.into_iter().map(|&(_, id)| id).collect();
        let mut grants = Vec::new();
        for id in mine {
            self.granted.remove(&(lane, id));
            grants.append(&mut self.line(id).limiter.collect(lane));
            self.touched.push(id);
        }
        for grant in &grants {
            self.tickets.remove(&grant.ticket);
        }
        grants
    }

    /// The lanes with grants to collect, each once.
    pub(crate) fn lanes(&self) -> Vec<u64> {
        let mut lanes: Vec<u64> = self.granted.iter().map(|&(lane, _)| lane).collect();
        lanes.dedup();
        lanes
    }

    /// When the first of all lines is due.
    pub(crate) fn due(&self) -> Option<u64> {
        self.due.first().map(|&(due, _)| due)
    }

    /// (granted tokens, waiting callers, nanoseconds waited).
    pub(crate) fn counts(&self) -> (u64, usize, u128) {
        let mut sum = (self.granted_tokens, 0, self.waited_ns);
        for line in self.open.values() {
            let counts = line.limiter.counts();
            sum.0 = sum.0.wrapping_add(counts.granted);
            sum.1 += counts.waiting;
            sum.2 += counts.waited_ns;
        }
        sum
    }

    /// Close a line that is over, if there is one.
    pub(crate) fn close(&mut self) -> Option<Over> {
        while let Some(id) = self.touched.pop() {
            let Some(line) = self.open.get(&id) else {
                continue;
            };
            if !line.limiter.is_idle() {
                continue;
            }
            let counts = line.limiter.counts();
            let over = Over {
                id,
                hash: line.hash,
                full_at: line.limiter.bucket().full_at(),
            };
            self.granted_tokens = self.granted_tokens.wrapping_add(counts.granted);
            self.waited_ns += counts.waited_ns;
            self.open.remove(&id);
            return Some(over);
        }
        None
    }

    /// Whether no line is open and nothing is left of those that were.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
            && self.tickets.is_empty()
            && self.due.is_empty()
            && self.granted.is_empty()
    }

    fn line(&mut self, id: u64) -> &mut KeyLine {
        let line = self.open.get_mut(&id);
        line.expect("a key's word, a ticket and `due` name lines that are open")
    }

    /// Note anew when the line is due and who has grants in it.
    fn settle(&mut self, id: u64, now: u64) {
        let line = self.line(id);
        // At least 1 ns on: a line served at `now` has got all there was.
        let wait = line.limiter.head_due_ns(now);
        let due = wait.map(|ns| now.saturating_add(ns.max(1)));
        let before = std::mem::replace(&mut line.due, due);
        let lanes = line.limiter.lanes();
        // A lane whose grant was given back has none to collect any more.
        for lane in std::mem::replace(&mut line.lanes, lanes.clone()) {
            self.granted.remove(&(lane, id));
        }
        if let Some(before) = before {
            self.due.remove(&(before, id));
        }
        if let Some(due) = due {
            self.due.insert((due, id));
        }
        self.granted
            .extend(lanes.into_iter().map(|lane| (lane, id)));
        self.touched.push(id);
    }
}
