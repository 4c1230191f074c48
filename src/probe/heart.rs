//! The heartbeat of one event loop, and what is told from it.
//!
//! The loop stores the time of each beat; the watchdog compares. A stall is
//! known by the beat it began with, so one beat can begin one stall only:
//!
//! | `reported`         | meaning                                            |
//! |--------------------|----------------------------------------------------|
//! | 0                  | no stall                                           |
//! | equal to `beat`    | the stall that began with this beat goes on        |
//! | another beat       | the loop ran again; the end is still to be told    |

use std::sync::Arc;

use super::board::{LivenessGuard, MetricsSource};
use super::family::{Family, Kind};
use super::thread::Shared;
use crate::sync::{AtomicU64, Ordering};

const NONE: u64 = 0;

/// Who beats: fixed when the loop is registered.
#[derive(Debug)]
pub struct Identity {
    /// Tells hearts apart; the binding's business.
    pub key: u64,
    /// For reports and labels.
    pub name: String,
    /// As in the thread dumps of Python: `threading.get_ident()`.
    pub thread_ident: u64,
    /// The kernel's: `threading.get_native_id()`.
    pub native_id: u64,
}

/// What `Heart::judge` found new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finding {
    /// No beat for `age_ns`: to be confirmed, or dismissed, by its `beat`.
    Suspect { beat: u64, age_ns: u64 },
    /// A confirmed stall ended after so long.
    Ended { lasted_ns: u64 },
}

/// One loop's heart. `beat` on the loop's thread, the rest anywhere.
#[derive(Debug)]
pub struct Heart {
    /// Whose it is.
    pub who: Identity,
    period_ns: u64,
    /// Time of the last beat; `NONE` before the first and while paused.
    beat: AtomicU64,
    /// The beat that the present stall began with, or `NONE`.
    reported: AtomicU64,
    /// When the loop first beat after `reported` was set.
    resumed: AtomicU64,
    /// How late the last beat was.
    lag_ns: AtomicU64,
    stalls: AtomicU64,
    stalled_ns: AtomicU64,
}

impl Heart {
    /// A heart that means to beat every `period_ns`; silent until it does.
    #[must_use]
    pub fn new(who: Identity, period_ns: u64) -> Self {
        Self {
            who,
            period_ns,
            beat: AtomicU64::new(NONE),
            reported: AtomicU64::new(NONE),
            resumed: AtomicU64::new(NONE),
            lag_ns: AtomicU64::new(0),
            stalls: AtomicU64::new(0),
            stalled_ns: AtomicU64::new(0),
        }
    }

    /// The loop runs.
    #[inline]
    pub fn beat(&self, now_ns: u64) {
        let now = now_ns.max(1); // 0 means silence
        // AcqRel on `beat` orders it against `reported` in `judge`: whoever
        // sees the new beat also sees `resumed` of the stall before.
        let last = self.beat.load(Ordering::Acquire);
        if last != NONE {
            if self.reported.load(Ordering::Acquire) == last {
                self.resumed.store(now, Ordering::Relaxed);
            }
            let late = now.saturating_sub(last).saturating_sub(self.period_ns);
            self.lag_ns.store(late, Ordering::Relaxed);
        }
        self.beat.store(now, Ordering::Release);
    }

    /// Silence until the next beat, unless there was one since `beat`: the loop
    /// is not running, which is no stall.
    pub(super) fn pause(&self, beat: u64) {
        // Losing the race means that the loop runs: then nothing is to be done.
        let _ = self
            .beat
            .compare_exchange(beat, NONE, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Looks for news; called by the watchdog's thread only. `floor` is a time
    /// before which nothing counts, because this process itself did not run.
    pub(super) fn judge(&self, now_ns: u64, floor: u64, stall_after_ns: u64) -> Option<Finding> {
        let beat = self.beat.load(Ordering::Acquire);
        let reported = self.reported.load(Ordering::Relaxed);
        if reported != NONE {
            return (beat != reported).then(|| Finding::Ended {
                lasted_ns: self.end(reported, beat, now_ns),
            });
        }
        if beat == NONE || now_ns.saturating_sub(beat.max(floor)) < stall_after_ns {
            return None;
        }
        let age_ns = now_ns.saturating_sub(beat);
        Some(Finding::Suspect { beat, age_ns })
    }

    /// The suspected stall is one; its end will be found once.
    pub(super) fn confirm(&self, beat: u64) {
        self.stalls.fetch_add(1, Ordering::Relaxed);
        self.resumed.store(NONE, Ordering::Relaxed);
        self.reported.store(beat, Ordering::Release);
    }

    /// Ends the stall that goes on, if any, and returns how long it lasted: the
    /// loop is watched no longer.
    pub(super) fn leave(&self, now_ns: u64) -> Option<u64> {
        let reported = self.reported.load(Ordering::Relaxed);
        let beat = self.beat.load(Ordering::Acquire);
        (reported != NONE).then(|| self.end(reported, beat, now_ns))
    }

    fn end(&self, reported: u64, beat: u64, now_ns: u64) -> u64 {
        let resumed = self.resumed.load(Ordering::Relaxed);
        // The beat that resumed may have come before `reported` was set: the
        // latest one is at most a watchdog's turn later.
        let until = [resumed, beat]
            .into_iter()
            .find(|t| *t > reported)
            .unwrap_or(now_ns);
        let lasted_ns = until.saturating_sub(reported);
        self.stalled_ns.fetch_add(lasted_ns, Ordering::Relaxed);
        self.reported.store(NONE, Ordering::Relaxed);
        lasted_ns
    }

    /// Nanoseconds since the last beat; `None` while paused.
    #[must_use]
    pub fn age_ns(&self, now_ns: u64) -> Option<u64> {
        match self.beat.load(Ordering::Acquire) {
            NONE => None,
            beat => Some(now_ns.saturating_sub(beat)),
        }
    }

    /// How late the loop is: the last beat's lateness, or that of the one due.
    #[must_use]
    pub fn lag_ns(&self, now_ns: u64) -> u64 {
        let due = self.age_ns(now_ns).unwrap_or(0);
        let last = self.lag_ns.load(Ordering::Relaxed);
        last.max(due.saturating_sub(self.period_ns))
    }

    /// How many stalls were confirmed.
    #[must_use]
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Whether a confirmed stall goes on.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        self.reported.load(Ordering::Acquire) != NONE
    }

    fn stalled_seconds(&self) -> f64 {
        seconds(self.stalled_ns.load(Ordering::Relaxed))
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

/// The hearts of one watchdog; native metrics and a guard of `/livez`.
pub struct Hearts {
    all: Shared<Vec<Arc<Heart>>>,
    fail_after_ns: Option<u64>,
}

impl Hearts {
    /// `fail_after_ns` without a beat fails liveness; `None` never does.
    #[must_use]
    pub fn new(fail_after_ns: Option<u64>) -> Self {
        Self {
            all: Shared::new(Vec::new()),
            fail_after_ns,
        }
    }

    /// Watches one more.
    pub fn add(&self, heart: &Arc<Heart>) {
        self.change(|hearts| hearts.push(Arc::clone(heart)));
    }

    /// Watches it no longer.
    pub fn remove(&self, heart: &Arc<Heart>) {
        self.change(|hearts| hearts.retain(|known| !Arc::ptr_eq(known, heart)));
    }

    /// Those watched at this moment.
    #[must_use]
    pub fn list(&self) -> Arc<Vec<Arc<Heart>>> {
        self.all.get()
    }

    fn change(&self, edit: impl Fn(&mut Vec<Arc<Heart>>)) {
        self.all.update(|hearts| {
            let mut next = hearts.clone();
            edit(&mut next);
            next
        });
    }

    /// Call in a forked child before anything else.
    pub fn after_fork_in_child(&self) {
        self.all.reset_in_child();
    }
}

impl LivenessGuard for Hearts {
    fn reasons(&self, now_ns: u64, out: &mut Vec<String>) {
        let Some(limit) = self.fail_after_ns else {
            return;
        };
        for heart in self.list().iter() {
            if let Some(age) = heart.age_ns(now_ns).filter(|age| *age >= limit) {
                let name = &heart.who.name;
                out.push(format!(
                    "event loop {name:?} has not run for {:.1} s",
                    seconds(age)
                ));
            }
        }
    }
}

/// A metric of a heart: its name, kind, unit, help, and how it is read.
type Column = (
    &'static str,
    Kind,
    &'static str,
    &'static str,
    fn(&Heart, u64) -> f64,
);

const COLUMNS: [Column; 4] = [
    (
        "mtaio_watchdog_lag_seconds",
        Kind::Gauge,
        "seconds",
        "How late the event loop's heartbeat is.",
        |heart, now_ns| seconds(heart.lag_ns(now_ns)),
    ),
    (
        "mtaio_watchdog_stalled",
        Kind::Gauge,
        "",
        "1 while the event loop is stalled, else 0.",
        |heart, _| f64::from(u8::from(heart.is_stalled())),
    ),
    (
        "mtaio_watchdog_stalls",
        Kind::Counter,
        "",
        "Stalls of the event loop so far.",
        |heart, _| heart.stalls() as f64,
    ),
    (
        "mtaio_watchdog_stalled_seconds",
        Kind::Counter,
        "seconds",
        "Time the event loop was stalled, in stalls that ended.",
        |heart, _| heart.stalled_seconds(),
    ),
];

impl MetricsSource for Hearts {
    fn collect(&self, now_ns: u64, out: &mut Vec<Family>) {
        let hearts = self.list();
        for (name, kind, unit, help, read) in COLUMNS {
            let mut family = Family::new(kind, name, help, unit).expect("our own names are valid");
            for heart in hearts.iter() {
                let labels = [("loop", heart.who.name.as_str())];
                // Two loops of one name: the first stands for both.
                let value = super::family::Value::Number(read(heart, now_ns));
                let _ = family.push(&labels, value);
            }
            out.push(family);
        }
    }
}

#[cfg(test)]
pub(super) fn heart(name: &str) -> Heart {
    let who = Identity {
        key: 0,
        name: name.to_owned(),
        thread_ident: 1,
        native_id: 1,
    };
    Heart::new(who, 10)
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn a_stall_is_found_once_and_its_end_once() {
        let heart = heart("main");
        heart.beat(100);

        assert_eq!(heart.judge(149, 0, 50), None);
        let suspect = Finding::Suspect {
            beat: 100,
            age_ns: 50,
        };
        assert_eq!(heart.judge(150, 0, 50), Some(suspect));
        heart.confirm(100);
        assert_eq!(heart.judge(900, 0, 50), None);
        heart.beat(1000);
        heart.beat(1010);
        assert_eq!(
            heart.judge(1020, 0, 50),
            Some(Finding::Ended { lasted_ns: 900 })
        );
        assert_eq!(heart.judge(1021, 0, 50), None);
        assert_eq!((heart.stalls(), heart.is_stalled()), (1, false));
    }

    #[test]
    fn a_stall_whose_loop_is_let_go_ends_there() {
        let heart = heart("main");
        heart.beat(100);
        heart.confirm(100);

        assert_eq!(heart.leave(400), Some(300));
        assert_eq!(heart.leave(500), None);
    }

    #[test]
    fn a_loop_that_does_not_run_is_no_stall() {
        let heart = heart("main");
        assert_eq!(heart.judge(u64::MAX, 0, 50), None);
        heart.beat(100);
        heart.pause(100);

        assert_eq!(heart.judge(u64::MAX, 0, 50), None);
        assert_eq!(heart.age_ns(500), None);
        heart.beat(600);
        assert_eq!(heart.lag_ns(600), 0);
        assert!(heart.judge(650, 0, 50).is_some());
    }

    #[test]
    fn a_beat_after_the_suspicion_outlives_a_pause() {
        let heart = heart("main");
        heart.beat(100);
        heart.beat(200);

        heart.pause(100);

        assert_eq!(heart.age_ns(250), Some(50));
    }

    #[test]
    fn time_in_which_the_process_itself_slept_does_not_count() {
        let heart = heart("main");
        heart.beat(100);

        assert_eq!(heart.judge(1000, 990, 50), None);
        assert!(heart.judge(1040, 990, 50).is_some());
    }

    #[test]
    fn lag_is_how_late_the_last_or_the_next_beat_is() {
        let heart = heart("main");
        heart.beat(100);
        heart.beat(115);

        assert_eq!(heart.lag_ns(116), 5);
        assert_eq!(heart.lag_ns(200), 75);
    }

    #[test]
    fn liveness_fails_at_its_limit_and_names_the_loop() {
        let hearts = Hearts::new(Some(2_000_000_000));
        let heart = Arc::new(heart("main"));
        hearts.add(&heart);
        heart.beat(1);
        let reasons = |now| {
            let mut out = Vec::new();
            hearts.reasons(now, &mut out);
            out
        };

        assert!(reasons(2_000_000_000).is_empty());
        let said = reasons(3_500_000_001);
        assert_eq!(said, ["event loop \"main\" has not run for 3.5 s"]);
        heart.beat(3_500_000_002);
        assert!(reasons(3_500_000_003).is_empty());
    }

    #[test]
    fn every_heart_has_its_series() {
        let hearts = Hearts::new(None);
        hearts.add(&Arc::new(heart("a")));
        hearts.add(&Arc::new(heart("b")));
        let mut families = Vec::new();

        hearts.collect(0, &mut families);

        assert_eq!(families.len(), COLUMNS.len());
        assert!(families.iter().all(|f| f.series().len() == 2));
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;

    #[test]
    fn loom_every_confirmed_stall_ends_exactly_once() {
        loom::model(|| {
            let heart = loom::sync::Arc::new(heart("main"));
            heart.beat(1);
            let beating = loom::sync::Arc::clone(&heart);
            let looping = loom::thread::spawn(move || {
                beating.beat(100);
                beating.beat(200);
            });
            let (mut begun, mut ended) = (0, 0);
            let mut look = |now| match heart.judge(now, 0, 50) {
                Some(Finding::Suspect { beat, .. }) => {
                    heart.confirm(beat);
                    begun += 1;
                }
                Some(Finding::Ended { lasted_ns }) => {
                    assert!(lasted_ns >= 50);
                    ended += 1;
                }
                None => {}
            };
            look(60);
            look(160);
            looping.join().unwrap();
            look(201); // the end of what was begun, if anything was
            look(202);
            assert_eq!(begun, ended);
            assert!(!heart.is_stalled());
        });
    }
}
