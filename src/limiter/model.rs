//! Limiters that are served late and by several lanes, step by step against a
//! reference of a few lines in plain nanoseconds.
//!
//! All times are multiples of a twentieth of a token, and each step is 101 ns
//! later: so nothing is due at the very moment of a step, and the reference and
//! the bucket, whose tokens take about a nanosecond longer, must decide alike.

use super::*;
use crate::keyed::{Ask, KeyedBuckets, Seek, Taken, Unsure};
use proptest::{prelude::*, sample::Index};
use std::collections::VecDeque;

const STEP_NS: u64 = 101;
const ROUNDING_NS: u64 = 1000;
const KEYS: usize = 3;

/// What a limiter and many by key have in common.
trait Served {
    fn try_take(&self, key: usize, tokens: u64, now: u64) -> bool;
    fn join(&self, key: usize, ask: &Ask) -> Joined;
    fn wait_ns(&self, key: usize, tokens: u64, now: u64) -> u64;
    fn leave(&self, ticket: u64, now: u64);
    fn drop_lane(&self, lane: u64, now: u64);
    fn refund(&self, key: usize, grant: &Grant, now: u64);
    fn serve(&self, now: u64) -> Vec<u64>;
    fn collect(&self, lane: u64) -> Vec<Grant>;
    fn counts(&self) -> Counts;
}

impl Served for Limiter {
    fn try_take(&self, _: usize, tokens: u64, now: u64) -> bool {
        self.try_take(tokens, now).is_ok()
    }
    fn join(&self, _: usize, ask: &Ask) -> Joined {
        self.join(ask.lane, ask.tokens, ask.now, ask.max_wait)
    }
    fn wait_ns(&self, _: usize, tokens: u64, now: u64) -> u64 {
        self.wait_ns(tokens, now)
    }
    fn leave(&self, ticket: u64, now: u64) {
        self.leave(ticket, now, || now);
    }
    fn drop_lane(&self, lane: u64, now: u64) {
        self.drop_lane(lane, now, || now);
    }
    fn refund(&self, _: usize, grant: &Grant, now: u64) {
        self.refund(grant, now, || now);
    }
    fn serve(&self, now: u64) -> Vec<u64> {
        self.serve(now)
    }
    fn collect(&self, lane: u64) -> Vec<Grant> {
        self.collect(lane)
    }
    fn counts(&self) -> Counts {
        self.counts()
    }
}

struct Same(usize);

impl Seek<usize> for Same {
    fn same(&mut self, other: &usize) -> Option<bool> {
        Some(self.0 == *other)
    }
    fn make(&mut self) -> usize {
        self.0
    }
}

/// All keys have one hash.
fn sure<T>(done: Result<T, Unsure>) -> T {
    done.expect("`Same` always can tell")
}

impl Served for KeyedBuckets<usize> {
    fn try_take(&self, key: usize, tokens: u64, now: u64) -> bool {
        let taken = self.try_take(0, &mut Same(key), (tokens, now), &mut Vec::new());
        sure(taken) == Taken::Granted
    }
    fn join(&self, key: usize, ask: &Ask) -> Joined {
        let joined = self.join(0, &mut Same(key), ask, &mut Vec::new());
        sure(joined).expect("room for all keys")
    }
    fn wait_ns(&self, key: usize, tokens: u64, now: u64) -> u64 {
        sure(self.wait_ns(0, &mut Same(key), (tokens, now)))
    }
    fn leave(&self, ticket: u64, now: u64) {
        self.leave(ticket, now, || now);
    }
    fn drop_lane(&self, lane: u64, now: u64) {
        self.drop_lane(lane, now, || now);
    }
    fn refund(&self, key: usize, grant: &Grant, now: u64) {
        sure(self.refund(0, &mut Same(key), grant, now, || now));
    }
    fn serve(&self, now: u64) -> Vec<u64> {
        self.serve(now)
    }
    fn collect(&self, lane: u64) -> Vec<Grant> {
        self.collect(lane)
    }
    fn counts(&self) -> Counts {
        self.counts()
    }
}

#[derive(Debug, Clone, Copy)]
struct Terms {
    burst: u64,
    token_ns: u64,
    forgiven_ns: u64,
}

impl Terms {
    fn quota(&self) -> Quota {
        let rate = 1e9 / self.token_ns as f64;
        Quota::new(rate, self.burst).expect("in range").forgiving()
    }
}

/// One who has been granted.
#[derive(Debug, Clone)]
struct Held {
    grant: Grant,
    joined: u64,
    served: u64,
}

/// One bucket and its line.
#[derive(Debug, Clone)]
struct Reference {
    terms: Terms,
    full: u64,
    /// Of those who wait, `taken_ns` is when they came.
    line: VecDeque<Grant>,
    granted: Vec<Held>,
}

impl Reference {
    fn take(&mut self, tokens: u64, reading: u64) -> bool {
        let full = self.full.max(reading) + tokens * self.terms.token_ns;
        let fits = full <= reading + self.terms.burst * self.terms.token_ns;
        if fits {
            self.full = full;
        }
        fits
    }

    fn serve(&mut self, now: u64) {
        while let Some(head) = self.line.front().copied() {
            let joined = head.taken_ns;
            let earliest = (now - self.terms.forgiven_ns).max(joined);
            let taken_ns = self.full.max(earliest).min(now);
            if !self.take(head.tokens, taken_ns) {
                return;
            }
            self.line.pop_front();
            let (grant, served) = (Grant { taken_ns, ..head }, now);
            self.granted.push(Held {
                grant,
                joined,
                served,
            });
        }
    }

    /// How long one who came now would wait, were all served in time from now on.
    fn wait(&self, tokens: u64, now: u64) -> u64 {
        let (mut trial, mut then) = (self.clone(), now);
        let ask = Grant {
            ticket: u64::MAX,
            lane: 0,
            tokens,
            taken_ns: now,
        };
        trial.line.push_back(ask);
        loop {
            trial.serve(then);
            let Some(head) = trial.line.front() else {
                return then - now;
            };
            let missing = self.terms.burst - head.tokens;
            then = trial.full - missing * self.terms.token_ns;
        }
    }

    fn give_back(&mut self, grant: &Grant, now: u64) {
        let cost = grant.tokens * self.terms.token_ns;
        self.full -= cost.saturating_sub(now - grant.taken_ns);
    }

    /// All for which `which` holds go. Whether there were any.
    fn remove(&mut self, now: u64, which: impl Fn(&Grant) -> bool) -> bool {
        let (gone, kept) = self.granted.drain(..).partition(|held| which(&held.grant));
        let gone: Vec<Held> = gone;
        self.granted = kept;
        for held in &gone {
            self.give_back(&held.grant, now);
        }
        let waiting = self.line.len();
        self.line.retain(|waiter| !which(waiter));
        !gone.is_empty() || self.line.len() < waiting
    }
}

#[derive(Debug, Clone)]
enum What {
    /// Tokens (less than the burst by so many).
    Try(u64),
    /// The same, and the longest wait.
    Join(u64, Option<u64>),
    /// The oldest or another of those who wait or are granted.
    Leave(Index),
    Serve,
    Collect,
    /// One of the collected.
    Refund(Index),
    DropLane,
}

#[derive(Debug, Clone)]
struct Step {
    ahead: u64,
    key: usize,
    lane: u64,
    what: What,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let tokens = prop_oneof![3 => Just(0), 2 => 0..4_u64];
    let longest = proptest::option::weighted(0.4, 0..60_u64);
    let what = prop_oneof![
        2 => tokens.clone().prop_map(What::Try),
        8 => (tokens, longest).prop_map(|(less, longest)| What::Join(less, longest)),
        2 => any::<Index>().prop_map(What::Leave),
        6 => Just(What::Serve),
        2 => Just(What::Collect),
        1 => any::<Index>().prop_map(What::Refund),
        1 => Just(What::DropLane),
    ];
    let ahead = prop_oneof![3 => Just(0), 6 => 0..25_u64, 1 => 0..200_u64];
    let step = (ahead, 0..KEYS, 1..4_u64, what);
    let step = step.prop_map(|(ahead, key, lane, what)| Step {
        ahead,
        key,
        lane,
        what,
    });
    prop::collection::vec(step, 1..80)
}

fn terms() -> impl Strategy<Value = Terms> {
    let ms = 1_000_000;
    let token = prop_oneof![
        Just((2 * ms, ms)),
        Just((10 * ms, ms)),
        Just((ms / 2, ms / 4)),
    ];
    (1..4_u64, token).prop_map(|(burst, (token_ns, forgiven_ns))| Terms {
        burst,
        token_ns,
        forgiven_ns,
    })
}

struct Run<S> {
    served: S,
    terms: Terms,
    now: u64,
    lines: Vec<Reference>,
    /// By key, what was granted, collected and not given back.
    kept: Vec<Vec<Held>>,
}

impl<S: Served> Run<S> {
    fn new(terms: Terms, keys: usize, make: impl FnOnce(Quota, u64) -> S) -> Self {
        let now = 1_000_000_000;
        let reference = Reference {
            terms,
            full: now,
            line: VecDeque::new(),
            granted: Vec::new(),
        };
        Self {
            served: make(terms.quota(), now),
            terms,
            now,
            lines: vec![reference; keys],
            kept: vec![Vec::new(); keys],
        }
    }

    fn all(&mut self, steps: &[Step]) {
        for step in steps {
            self.step(step);
        }
        self.assert_conforms();
    }

    fn grid(&self, steps: u64) -> u64 {
        steps * (self.terms.token_ns / 20)
    }

    fn step(&mut self, step: &Step) {
        self.now += self.grid(step.ahead) + STEP_NS;
        let key = step.key % self.lines.len();
        let asked = |less: u64| self.terms.burst - less.min(self.terms.burst - 1);
        match &step.what {
            What::Try(less) => self.try_take(key, asked(*less)),
            What::Join(less, longest) => self.join(key, step.lane, asked(*less), *longest),
            What::Leave(index) => self.leave(key, *index),
            What::Serve => self.serve(),
            What::Collect => self.collect(step.lane),
            What::Refund(index) => self.refund(key, *index),
            What::DropLane => self.drop_lane(step.lane),
        }
        self.compare(key);
    }

    fn keep(&mut self, key: usize, tokens: u64) {
        let (joined, served) = (self.now, self.now);
        let grant = Grant {
            ticket: 0,
            lane: 0,
            tokens,
            taken_ns: self.now,
        };
        self.kept[key].push(Held {
            grant,
            joined,
            served,
        });
    }

    fn try_take(&mut self, key: usize, tokens: u64) {
        let line = &mut self.lines[key];
        let taken = line.line.is_empty() && line.take(tokens, self.now);
        assert_eq!(self.served.try_take(key, tokens, self.now), taken);
        if taken {
            self.keep(key, tokens);
        }
    }

    fn join(&mut self, key: usize, lane: u64, tokens: u64, longest: Option<u64>) {
        let now = self.now;
        let max_wait = longest.map(|steps| self.grid(steps) + self.grid(1) / 2);
        let ask = Ask {
            lane,
            tokens,
            now,
            max_wait,
        };
        let joined = self.served.join(key, &ask);
        let of_key = &mut self.lines[key];
        if of_key.line.is_empty() && of_key.take(tokens, now) {
            assert_eq!(joined, Joined::Granted);
            return self.keep(key, tokens);
        }
        let wait = of_key.wait(tokens, now);
        match joined {
            Joined::TooLong(told) => {
                assert!(max_wait.is_some_and(|most| wait > most));
                assert!(told.abs_diff(wait) < ROUNDING_NS, "{told} for {wait}");
            }
            Joined::Waiting(ticket) => {
                assert!(max_wait.is_none_or(|most| wait <= most), "{wait}");
                let taken_ns = now;
                of_key.line.push_back(Grant {
                    ticket,
                    lane,
                    tokens,
                    taken_ns,
                });
            }
            Joined::Granted => panic!("overtook, or more than conforms"),
        }
    }

    fn leave(&mut self, key: usize, index: Index) {
        let line = &mut self.lines[key];
        let granted = line.granted.iter().map(|held| held.grant.ticket);
        let tickets: Vec<u64> = granted.chain(line.line.iter().map(|w| w.ticket)).collect();
        if !tickets.is_empty() {
            let ticket = *index.get(&tickets);
            line.remove(self.now, |grant| grant.ticket == ticket);
            line.serve(self.now);
            self.served.leave(ticket, self.now);
        }
    }

    fn serve(&mut self) {
        self.lines.iter_mut().for_each(|line| line.serve(self.now));
        let held = self.lines.iter().flat_map(|line| &line.granted);
        let mut lanes: Vec<u64> = held.map(|held| held.grant.lane).collect();
        lanes.sort_unstable();
        lanes.dedup();
        assert_eq!(self.served.serve(self.now), lanes);
    }

    fn collect(&mut self, lane: u64) {
        let mut grants = VecDeque::from(self.served.collect(lane));
        grants.make_contiguous().sort_by_key(|grant| grant.ticket);
        let mut due: Vec<(usize, Held)> = Vec::new();
        for (key, line) in self.lines.iter_mut().enumerate() {
            let mine = line.granted.extract_if(.., |held| held.grant.lane == lane);
            due.extend(mine.map(|held| (key, held)));
        }
        due.sort_by_key(|(_, held)| held.grant.ticket);
        for (key, mut held) in due {
            let grant = grants.pop_front().expect("the reference granted it");
            assert!(grant.taken_ns.abs_diff(held.grant.taken_ns) < ROUNDING_NS);
            assert!((held.joined..=held.served).contains(&grant.taken_ns));
            held.grant.taken_ns = grant.taken_ns;
            assert_eq!(grant, held.grant);
            self.kept[key].push(held);
        }
        assert!(grants.is_empty(), "{grants:?}");
    }

    fn refund(&mut self, key: usize, index: Index) {
        let kept = &mut self.kept[key];
        if !kept.is_empty() {
            let grant = kept.remove(index.index(kept.len())).grant;
            self.lines[key].give_back(&grant, self.now);
            self.lines[key].serve(self.now);
            self.served.refund(key, &grant, self.now);
        }
    }

    fn drop_lane(&mut self, lane: u64) {
        let only = self.lines.len() == 1;
        for line in &mut self.lines {
            // Those of other keys are looked after by the next that serves.
            if line.remove(self.now, |grant| grant.lane == lane) || only {
                line.serve(self.now);
            }
        }
        self.served.drop_lane(lane, self.now);
    }

    fn compare(&self, key: usize) {
        let tokens = |held: &Held| held.grant.tokens;
        let granted = self.lines.iter().flat_map(|line| &line.granted);
        let sum: u64 = granted.chain(self.kept.iter().flatten()).map(tokens).sum();
        let waiting = self.lines.iter().map(|line| line.line.len()).sum();
        let counts = self.served.counts();
        assert_eq!((counts.granted, counts.waiting), (sum, waiting));
        let wait = self.served.wait_ns(key, self.terms.burst, self.now);
        let exact = self.lines[key].wait(self.terms.burst, self.now);
        assert!(wait.abs_diff(exact) < ROUNDING_NS, "{wait} for {exact}");
    }

    /// By falling due exactly, by waking up within half a token.
    fn assert_conforms(&mut self) {
        for lane in 1..4 {
            self.collect(lane);
        }
        for kept in &self.kept {
            let due: Vec<_> = kept
                .iter()
                .map(|h| (h.grant.taken_ns, h.grant.tokens))
                .collect();
            let woken: Vec<_> = kept.iter().map(|h| (h.served, h.grant.tokens)).collect();
            self.assert_windows(&due, 0);
            self.assert_windows(&woken, self.terms.forgiven_ns);
        }
        assert!(2 * self.terms.forgiven_ns <= self.terms.token_ns);
    }

    fn assert_windows(&self, grants: &[(u64, u64)], more_ns: u64) {
        for &(first, _) in grants {
            for &(last, _) in grants.iter().filter(|grant| grant.0 >= first) {
                let within = grants
                    .iter()
                    .filter(|grant| (first..=last).contains(&grant.0));
                let sum: u64 = within.map(|grant| grant.1).sum();
                let most = self.terms.burst * self.terms.token_ns + (last - first) + more_ns;
                assert!(sum * self.terms.token_ns <= most, "{grants:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn one_line_served_late_does_as_the_reference(terms in terms(), steps in steps()) {
        let mut run = Run::new(terms, 1, Limiter::new);
        run.all(&steps);
    }

    #[test]
    fn the_lines_of_keys_served_late_do_as_one_each(terms in terms(), steps in steps()) {
        let make = |quota, now| KeyedBuckets::new(quota, 100, now);
        let mut run = Run::new(terms, KEYS, make);
        run.all(&steps);
    }
}
