//! How late event loops and how long the collector's pauses are, without locks.
//!
//! A watched loop beats: a timer fires every few milliseconds and notes how
//! late it was. The sampler thread reads the notes, and sees a block that is
//! still under way because the beat it waits for is overdue.

use std::sync::Arc;

use super::snapshot::LoopFigures;
use crate::sync::{AtomicU64, Ordering};

/// Beats kept: 80 seconds of them at 20 ms. A longer interval loses its oldest.
#[cfg(not(feature = "loom"))]
const KEPT: u64 = 4096;
#[cfg(feature = "loom")]
const KEPT: u64 = 2;

/// The beats of one loop: written by its thread, read by the sampler's.
#[derive(Debug)]
pub struct LoopLag {
    name: Arc<str>,
    /// When the next beat is due; 0 while not beating.
    due_ns: AtomicU64,
    /// Beats ever noted.
    noted: AtomicU64,
    /// Lateness in nanoseconds, of the last `KEPT` beats.
    late_ns: Box<[AtomicU64]>,
}

impl LoopLag {
    /// A loop that has not begun to beat.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: Arc::from(name),
            due_ns: AtomicU64::new(0),
            noted: AtomicU64::new(0),
            late_ns: (0..KEPT).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// The beat happens now and the next is due at `next_ns`. Called by the
    /// loop's own thread only.
    pub fn beat(&self, now_ns: u64, next_ns: u64) {
        // Relaxed: only this thread writes `due_ns` and `noted`.
        let due = self.due_ns.load(Ordering::Relaxed);
        if due != 0 {
            let beat = self.noted.load(Ordering::Relaxed);
            self.slot(beat)
                .store(now_ns.saturating_sub(due), Ordering::Relaxed);
            // Release: who reads this count sees the slot written before it.
            self.noted.store(beat + 1, Ordering::Release);
        }
        self.due_ns.store(next_ns.max(1), Ordering::Release);
    }

    /// The loop beats no more; it is not late.
    pub fn rest(&self) {
        self.due_ns.store(0, Ordering::Release);
    }

    fn slot(&self, beat: u64) -> &AtomicU64 {
        &self.late_ns[(beat % KEPT) as usize]
    }

    /// Lateness of the beats after the first `seen`, and of one overdue.
    fn since(&self, seen: &mut u64, now_ns: u64) -> Vec<u64> {
        let noted = self.noted.load(Ordering::Acquire);
        let first = (*seen).max(noted.saturating_sub(KEPT));
        *seen = noted;
        let mut late: Vec<u64> = (first..noted)
            .map(|beat| self.slot(beat).load(Ordering::Relaxed))
            .collect();
        let due = self.due_ns.load(Ordering::Acquire);
        if due != 0 && now_ns > due {
            late.push(now_ns - due);
        }
        late
    }
}

/// One loop as the sampler reads it.
#[derive(Debug)]
pub(super) struct Watched {
    lag: Arc<LoopLag>,
    seen: u64,
}

impl Watched {
    pub(super) fn new(lag: Arc<LoopLag>) -> Self {
        Self { lag, seen: 0 }
    }

    pub(super) fn is(&self, lag: &Arc<LoopLag>) -> bool {
        Arc::ptr_eq(&self.lag, lag)
    }

    /// The interval's lateness, kept in `all` too.
    pub(super) fn collect(&mut self, now_ns: u64, all: &mut Vec<u64>) -> LoopFigures {
        let mut late = self.lag.since(&mut self.seen, now_ns);
        all.extend(&late);
        figures(Arc::clone(&self.lag.name), &mut late)
    }
}

/// Percentiles by nearest rank.
pub(super) fn figures(name: Arc<str>, late_ns: &mut [u64]) -> LoopFigures {
    late_ns.sort_unstable();
    let rank = |percent: usize| {
        let rank = (late_ns.len() * percent).div_ceil(100);
        let nanos = rank.checked_sub(1).map_or(0, |index| late_ns[index]);
        nanos as f64 / 1e9
    };
    LoopFigures {
        name,
        ticks: late_ns.len() as u64,
        lag_p50_seconds: rank(50),
        lag_p99_seconds: rank(99),
        lag_max_seconds: rank(100),
    }
}

/// Pauses of the garbage collector, noted by its own callbacks.
#[derive(Debug, Default)]
pub struct GcPauses {
    began_ns: AtomicU64,
    count: AtomicU64,
    total_ns: AtomicU64,
    longest_ns: AtomicU64,
}

/// Pauses up to a moment, and the longest since the last such look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct GcFigures {
    pub(super) count: u64,
    pub(super) total_ns: u64,
    pub(super) longest_ns: u64,
}

impl GcPauses {
    /// A collection begins. The interpreter runs one at a time.
    pub fn begin(&self, now_ns: u64) {
        self.began_ns.store(now_ns.max(1), Ordering::Relaxed);
    }

    /// It ends; one whose beginning was not seen is not counted.
    pub fn end(&self, now_ns: u64) {
        let began = self.began_ns.swap(0, Ordering::Relaxed);
        if began == 0 {
            return;
        }
        let pause = now_ns.saturating_sub(began);
        // Relaxed: each figure stands alone.
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total_ns.fetch_add(pause, Ordering::Relaxed);
        self.longest_ns.fetch_max(pause, Ordering::Relaxed);
    }

    pub(super) fn collect(&self) -> GcFigures {
        GcFigures {
            count: self.count.load(Ordering::Relaxed),
            total_ns: self.total_ns.load(Ordering::Relaxed),
            longest_ns: self.longest_ns.swap(0, Ordering::Relaxed),
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
#[allow(clippy::float_cmp)] // exact: whole milliseconds
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn percentiles_are_of_the_beats_since_the_last_look() {
        let lag = Arc::new(LoopLag::new("main"));
        let mut watched = Watched::new(Arc::clone(&lag));
        let mut now = MS;
        lag.beat(now, now + 20 * MS);
        for late in 1..=100 {
            now += (20 + late) * MS;
            lag.beat(now, now + 20 * MS);
        }

        let figures = watched.collect(now, &mut Vec::new());

        assert_eq!(figures.ticks, 100);
        assert_eq!(figures.lag_p50_seconds, 0.050);
        assert_eq!(figures.lag_p99_seconds, 0.099);
        assert_eq!(figures.lag_max_seconds, 0.100);
        assert_eq!(watched.collect(now, &mut Vec::new()).ticks, 0);
    }

    #[test]
    fn a_block_still_under_way_is_seen() {
        let lag = Arc::new(LoopLag::new("main"));
        let mut watched = Watched::new(Arc::clone(&lag));
        lag.beat(MS, 21 * MS);

        assert_eq!(
            watched.collect(1021 * MS, &mut Vec::new()).lag_max_seconds,
            1.0
        );
        lag.rest();
        assert_eq!(
            watched.collect(2021 * MS, &mut Vec::new()).lag_max_seconds,
            0.0
        );
    }

    #[test]
    fn more_beats_than_are_kept_lose_the_oldest() {
        let lag = LoopLag::new("main");
        lag.beat(1, 1);
        for beat in 0..KEPT + 5 {
            lag.beat(1 + beat, 1);
        }

        assert_eq!(lag.since(&mut 0, 1).len() as u64, KEPT);
    }

    #[test]
    fn a_pause_needs_its_beginning() {
        let pauses = GcPauses::default();
        pauses.end(50);
        for (began, ended) in [(100, 130), (200, 210)] {
            pauses.begin(began);
            pauses.end(ended);
        }

        let first = pauses.collect();

        assert_eq!((first.count, first.total_ns, first.longest_ns), (2, 40, 30));
        assert_eq!(pauses.collect().longest_ns, 0);
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use loom::thread;

    #[test]
    fn loom_each_beat_is_read_once_and_whole() {
        loom::model(|| {
            let lag = Arc::new(LoopLag::new("main"));
            lag.beat(1, 10);
            let writer = {
                let lag = Arc::clone(&lag);
                thread::spawn(move || {
                    lag.beat(11, 20);
                    lag.beat(22, 30);
                })
            };
            let mut seen = 0;
            let mut read = lag.since(&mut seen, 0);
            writer.join().unwrap();
            read.extend(lag.since(&mut seen, 0));

            assert_eq!(read, [1, 2]);
        });
    }
}
