//! The line of those who wait for a limit: first come, first served, over all
//! threads and loops.
//!
//! The line knows tickets, not futures: whoever serves it hands grants to the
//! *lane* (one event loop) each ticket came from. A ticket is in exactly one
//! place at any time (waiting, granted, or collected by its lane), so it is
//! given back at most once and never forgotten.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

/// Tickets are unique in the process, so that many lines can share lanes.
static TICKETS: AtomicU64 = AtomicU64::new(1);

/// One who waits.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    ticket: u64,
    lane: u64,
    /// What is asked; 0 once the waiter has left.
    tokens: u64,
    joined_ns: u64,
}

/// A ticket whose turn has come, until its lane collects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grant {
    /// As given by `join`.
    pub ticket: u64,
    /// As given to `join`.
    pub lane: u64,
    /// As given to `join`.
    pub tokens: u64,
    /// The clock reading by which the tokens were taken.
    pub taken_ns: u64,
}

/// What a leaving ticket was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It still waited, as the first or not: it holds nothing.
    Waiting {
        /// Nobody stood before it.
        first: bool,
    },
    /// It had been granted: what it took must be given back.
    Granted(Grant),
    /// It was collected before, or has left already.
    Unknown,
}

/// See the module's text. Callers keep it behind a lock.
#[derive(Debug, Default)]
pub struct Line {
    waiters: VecDeque<Waiter>,
    /// How many of `waiters` have left.
    gone: usize,
    /// Sum of what the others ask.
    asked: u128,
    granted: Vec<Grant>,
    waited_ns: u128,
}

impl Line {
    /// Whether nobody waits (some may be granted and not collected).
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiters.is_empty()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiters.len() - self.gone
    }

    /// Sum of the tokens asked by all who wait.
    #[must_use]
    pub fn asked(&self) -> u128 {
        self.asked
    }

    /// Sum of the waits of all who were granted.
    #[must_use]
    pub fn waited_ns(&self) -> u128 {
        self.waited_ns
    }

    /// Whether some are granted and not collected.
    #[must_use]
    pub fn has_grants(&self) -> bool {
        !self.granted.is_empty()
    }

    /// Whether another lane has grants to collect.
    #[must_use]
    pub fn has_grants_beside(&self, lane: u64) -> bool {
        self.granted.iter().any(|grant| grant.lane != lane)
    }

    /// Tokens that the first in line asks.
    #[must_use]
    pub fn head(&self) -> Option<u64> {
        self.waiters
            .iter()
            .map(|w| w.tokens)
            .find(|tokens| *tokens > 0)
    }

    /// Stand at the end, on behalf of `lane`. Returns the ticket.
    pub fn join(&mut self, lane: u64, tokens: u64, now: u64) -> u64 {
        debug_assert!(tokens > 0, "0 marks a waiter that has left");
        // Relaxed: unique is all it must be. Within a line, whose lock is held,
        // numbers also rise.
        let ticket = TICKETS.fetch_add(1, Ordering::Relaxed);
        self.asked += u128::from(tokens);
        self.waiters.push_back(Waiter {
            ticket,
            lane,
            tokens,
            joined_ns: now,
        });
        ticket
    }

    /// Leave the line, from wherever the ticket is.
    pub fn leave(&mut self, ticket: u64) -> Left {
        let index = self.waiters.partition_point(|w| w.ticket < ticket);
        if let Some(waiter) = self.waiters.get_mut(index)
            && waiter.ticket == ticket
        {
            if waiter.tokens == 0 {
                return Left::Unknown;
            }
            self.asked -= u128::from(waiter.tokens);
            waiter.tokens = 0;
            self.gone += 1;
            self.sweep();
            return Left::Waiting { first: index == 0 };
        }
        match self.granted.iter().position(|g| g.ticket == ticket) {
            Some(at) => Left::Granted(self.granted.remove(at)),
            None => Left::Unknown,
        }
    }

    /// Make all of `lane` leave. Returns the grants that must be given back.
    pub fn drop_lane(&mut self, lane: u64) -> Vec<Grant> {
        for waiter in &mut self.waiters {
            if waiter.lane == lane && waiter.tokens > 0 {
                self.asked -= u128::from(waiter.tokens);
                waiter.tokens = 0;
                self.gone += 1;
            }
        }
        self.sweep();
        self.collect(lane)
    }

    /// Grant from the head for as long as `take(tokens, joined_ns)` agrees and tells
    /// the reading by which it took. Returns how many; `lanes` tells whom to wake.
    pub fn grant(&mut self, now: u64, mut take: impl FnMut(u64, u64) -> Option<u64>) -> usize {
        let before = self.granted.len();
        while let Some(head) = self.waiters.front().copied() {
            if head.tokens > 0 {
                let Some(taken) = take(head.tokens, head.joined_ns) else {
                    break;
                };
                self.pass(&head, now, taken);
            } else {
                self.gone -= 1;
            }
            self.waiters.pop_front();
        }
        self.granted.len() - before
    }

    fn pass(&mut self, waiter: &Waiter, now: u64, taken_ns: u64) {
        self.asked -= u128::from(waiter.tokens);
        self.waited_ns += u128::from(now.saturating_sub(waiter.joined_ns));
        self.granted.push(Grant {
            ticket: waiter.ticket,
            lane: waiter.lane,
            tokens: waiter.tokens,
            taken_ns,
        });
    }

    /// The lanes that have grants to collect, each once.
    #[must_use]
    pub fn lanes(&self) -> Vec<u64> {
        let mut lanes: Vec<u64> = self.granted.iter().map(|g| g.lane).collect();
        lanes.dedup();
        lanes.sort_unstable();
        lanes.dedup();
        lanes
    }

    /// Hand over the grants of `lane`, in order.
    pub fn collect(&mut self, lane: u64) -> Vec<Grant> {
        let (mine, others) = self.granted.drain(..).partition(|g| g.lane == lane);
        self.granted = others;
        mine
    }

    /// What must be granted until the first waiter of `lane` is served, itself
    /// included, and whether someone of another lane stands before it.
    ///
    /// Looks at `DEPTH` waiters at most: past that the sum so far is an early
    /// guess, and the lane looks again then.
    #[must_use]
    pub fn ahead_of(&self, lane: u64) -> Option<Ahead> {
        const DEPTH: usize = 64;
        let mut ahead = Ahead {
            tokens: 0,
            head: 0,
            foreign: false,
        };
        for waiter in self.waiters.iter().filter(|w| w.tokens > 0).take(DEPTH) {
            ahead.tokens += u128::from(waiter.tokens);
            ahead.head = if ahead.head == 0 {
                waiter.tokens
            } else {
                ahead.head
            };
            if waiter.lane == lane {
                return Some(ahead);
            }
            ahead.foreign = true;
        }
        ahead.foreign.then_some(ahead)
    }

    /// Forget those who left: at both ends at once, in the middle once they are
    /// the most, so that a long wait at the head doesn't gather them.
    fn sweep(&mut self) {
        while self.waiters.back().is_some_and(|w| w.tokens == 0) {
            self.waiters.pop_back();
            self.gone -= 1;
        }
        while self.waiters.front().is_some_and(|w| w.tokens == 0) {
            self.waiters.pop_front();
            self.gone -= 1;
        }
        if self.gone > self.waiters.len() / 2 {
            self.waiters.retain(|w| w.tokens > 0);
            self.gone = 0;
        }
    }
}

/// What stands before a lane's first waiter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Tokens to be granted, the lane's own first waiter included.
    pub tokens: u128,
    /// Tokens that the head of the line asks.
    pub head: u64,
    /// Someone of another lane stands before.
    pub foreign: bool,
}
