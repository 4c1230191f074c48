//! The sampler thread, the ring of what it took, and the newest for everyone.
//!
//! The thread runs no Python and needs no lock of the interpreter. Three locks,
//! never held together: `work` while sampling (a hung disk may hold it), and the
//! short ones of `watched` and of the ring.
//!
//! What the probe thread reads has no lock, since a probe server outlives a fork and
//! its monitor does not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::lag::{GcFigures, GcPauses, LoopLag, Watched, figures};
use super::sampler::{Sampler, Settings};
use super::snapshot::{LoopFigures, Section, Snapshot, Value};
use crate::probe::{self, spawn_quiet};
use crate::sync::{Condvar, Mutex};

/// A wait is cut in pieces, since the system's wait may go by another clock
/// than the one passed in (one that stands still while the machine sleeps).
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The newest figures, readable from any native thread at any time, for no more
/// than a copy of a pointer.
#[derive(Debug)]
pub struct Latest {
    /// Older than this, a snapshot says nothing about now.
    keeps_ns: u64,
    snapshot: probe::Shared<Option<Arc<Snapshot>>>,
    gauges: probe::Shared<Vec<(String, f64)>>,
}

impl Latest {
    fn new(interval_ns: u64) -> Self {
        const SHORTEST_NS: u64 = 5_000_000_000;
        Self {
            keeps_ns: interval_ns.saturating_mul(3).max(SHORTEST_NS),
            snapshot: probe::Shared::new(None),
            gauges: probe::Shared::new(Vec::new()),
        }
    }

    pub(super) fn is_stale(&self, snapshot: &Snapshot, now_ns: u64) -> bool {
        now_ns.saturating_sub(snapshot.at_ns) > self.keeps_ns
    }

    /// The newest snapshot, if one was taken yet.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Snapshot>> {
        Option::clone(&self.snapshot.get())
    }

    /// The user's own gauges as they were last read.
    #[must_use]
    pub fn gauges(&self) -> Arc<Vec<(String, f64)>> {
        self.gauges.get()
    }

    /// Replaces the gauges, all at once.
    pub fn set_gauges(&self, gauges: Vec<(String, f64)>) {
        self.gauges.set(gauges);
    }
}

/// The clocks of the sampler thread; the core has none of its own.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    /// Monotonic nanoseconds.
    pub monotonic_ns: fn() -> u64,
    /// Seconds since 1970.
    pub unix_seconds: fn() -> f64,
}

/// Both times of one sample.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Monotonic nanoseconds.
    pub at_ns: u64,
    /// Seconds since 1970.
    pub timestamp: f64,
}

impl Clocks {
    fn now(self) -> Moment {
        Moment {
            at_ns: (self.monotonic_ns)(),
            timestamp: (self.unix_seconds)(),
        }
    }
}

/// Samples on request, and by a thread of its own while started.
#[derive(Debug)]
pub struct Service {
    /// The process that made it; in a forked child nothing here may be locked.
    pid: u32,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    interval_ns: u64,
    history_size: usize,
    ready_ns: u64,
    work: Mutex<Sampler>,
    watched: Mutex<Observed>,
    history: Mutex<VecDeque<Arc<Snapshot>>>,
    latest: Arc<Latest>,
    gate: Mutex<Gate>,
    turn: Condvar,
}

/// What the thread waits at.
#[derive(Debug, Default)]
struct Gate {
    stopping: bool,
    finished: bool,
    due_ns: u64,
}

/// What is watched inside the process, and what the last interval showed.
#[derive(Debug, Default)]
struct Observed {
    loops: Vec<Watched>,
    gc: Option<Arc<GcPauses>>,
    gc_before: GcFigures,
    last: Interval,
}

/// Lag and pauses of one interval.
#[derive(Clone, Debug, Default)]
struct Interval {
    each: Vec<LoopFigures>,
    all: Option<LoopFigures>,
    gc: Option<GcFigures>,
}

impl Service {
    /// Takes the first look, which the first sample is compared with.
    #[must_use]
    pub fn new(settings: &Settings, now_ns: u64) -> Self {
        let sampler = Sampler::new(settings, now_ns);
        Self {
            pid: std::process::id(),
            shared: Arc::new(Shared {
                interval_ns: settings.interval_ns,
                history_size: settings.history_size,
                ready_ns: sampler.ready_ns(),
                work: Mutex::new(sampler),
                watched: Mutex::default(),
                history: Mutex::default(),
                latest: Arc::new(Latest::new(settings.interval_ns)),
                gate: Mutex::default(),
                turn: Condvar::default(),
            }),
            thread: Mutex::new(None),
        }
    }

    /// When a first sample can be a true one.
    #[must_use]
    pub fn ready_ns(&self) -> u64 {
        self.shared.ready_ns
    }

    /// When the thread takes its next sample.
    #[must_use]
    pub fn due_ns(&self) -> u64 {
        self.shared.gate.lock().due_ns
    }

    /// The holder of the newest snapshot, for threads that outlive a call.
    #[must_use]
    pub fn latest(&self) -> Arc<Latest> {
        Arc::clone(&self.shared.latest)
    }

    /// Takes a sample now, as the thread does, into the history.
    pub fn tick(&self, now: Moment) -> Arc<Snapshot> {
        self.shared.tick(now)
    }

    /// Takes a sample now, for the asker; the history is of the thread alone.
    pub fn fresh(&self, now: Moment) -> Arc<Snapshot> {
        let interval = self.shared.watched.lock().last.clone();
        self.shared.sample(now, interval)
    }

    /// Snapshots of the history after `sequence`, oldest first.
    #[must_use]
    pub fn since(&self, sequence: u64) -> Vec<Arc<Snapshot>> {
        let history = self.shared.history.lock();
        let first = history.partition_point(|snapshot| snapshot.sequence <= sequence);
        history.range(first..).cloned().collect()
    }

    /// Watches a loop's beats until told to forget it.
    pub fn watch_loop(&self, lag: Arc<LoopLag>) {
        self.shared.watched.lock().loops.push(Watched::new(lag));
    }

    /// Watches that loop no more.
    pub fn forget_loop(&self, lag: &Arc<LoopLag>) {
        let mut watched = self.shared.watched.lock();
        watched.loops.retain(|known| !known.is(lag));
    }

    /// Watches the collector, or (`None`) no more.
    pub fn watch_gc(&self, pauses: Option<Arc<GcPauses>>) {
        let mut watched = self.shared.watched.lock();
        watched.gc_before = pauses.as_ref().map(|gc| gc.collect()).unwrap_or_default();
        watched.gc = pauses;
    }

    /// In a forked child: closes the parent's descriptors. The thread that held
    /// them is not here to do it. Nothing else may be called there.
    pub fn abandon(&self) {
        let latest = &self.shared.latest;
        latest.snapshot.reset_in_child();
        latest.gauges.reset_in_child();
        // If the fork caught the thread at work they stay open, a dozen.
        if let Some(mut work) = self.shared.work.try_lock() {
            work.close();
        }
    }

    /// Starts the thread; `false` if it runs already.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn start(&self, clocks: Clocks) -> std::io::Result<bool> {
        let mut thread = self.thread.lock();
        let mut gate = self.shared.gate.lock();
        if thread.is_some() && !gate.finished {
            // One that was told to stop but hangs in a read stays on instead.
            return Ok(std::mem::take(&mut gate.stopping));
        }
        let now = (clocks.monotonic_ns)();
        *gate = Gate {
            // The first sample comes as soon as it can be true.
            due_ns: self.shared.ready_ns.max(now),
            ..Gate::default()
        };
        drop(gate);
        let shared = Arc::clone(&self.shared);
        let run = move || shared.run(clocks);
        *thread = Some(spawn_quiet("mtaio-metrics", run)?);
        Ok(true)
    }

    /// Ends the thread; `false` if it did not end in time, which happens only
    /// while the kernel holds one of its reads. Then call again.
    pub fn stop(&self, within: Duration) -> bool {
        let mut thread = self.thread.lock();
        if thread.is_none() {
            return true;
        }
        let mut gate = self.shared.gate.lock();
        gate.stopping = true;
        self.shared.turn.notify_all();
        let late = |gate: &mut Gate| !gate.finished;
        let turn = &self.shared.turn;
        let gate = turn.wait_timeout_while(gate, within, late);
        let finished = gate.finished;
        drop(gate);
        if finished && let Some(thread) = thread.take() {
            // The thread's last act was to say so; it can't have panicked since.
            let _ = thread.join();
        }
        finished
    }
}

impl Drop for Service {
    /// Tells the thread to go, and doesn't wait: it owns all it uses.
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            // A forked child: the thread is not here, its locks may be.
            return;
        }
        self.shared.gate.lock().stopping = true;
        self.shared.turn.notify_all();
    }
}

impl Shared {
    fn run(&self, clocks: Clocks) {
        let _farewell = Farewell(self);
        while self.wait_turn(clocks) {
            self.tick(clocks.now());
        }
    }

    /// Waits until the next sample is due; `false` to end.
    fn wait_turn(&self, clocks: Clocks) -> bool {
        let mut gate = self.gate.lock();
        loop {
            if gate.stopping {
                // At once, so that a start that comes now makes a new thread.
                gate.finished = true;
                self.turn.notify_all();
                return false;
            }
            let now = (clocks.monotonic_ns)();
            if now >= gate.due_ns {
                // Missed turns are skipped, not made up for: after a pause of
                // the machine there is one sample, not a hundred.
                let missed = (now - gate.due_ns) / self.interval_ns;
                let step = (missed + 1).saturating_mul(self.interval_ns);
                gate.due_ns = gate.due_ns.saturating_add(step);
                return true;
            }
            let left = Duration::from_nanos(gate.due_ns - now);
            let longest = left.min(LONGEST_WAIT);
            let turn = &self.turn;
            gate = turn.wait_timeout_while(gate, longest, |gate| !gate.stopping);
        }
    }

    fn tick(&self, now: Moment) -> Arc<Snapshot> {
        let interval = self.watched.lock().collect(now.at_ns);
        let snapshot = self.sample(now, interval);
        let mut history = self.history.lock();
        let oldest = (history.len() >= self.history_size).then(|| history.pop_front());
        history.push_back(Arc::clone(&snapshot));
        drop(history);
        drop(oldest);
        snapshot
    }

    fn sample(&self, now: Moment, interval: Interval) -> Arc<Snapshot> {
        let mut work = self.work.lock();
        let mut snapshot = work.sample(now.at_ns, interval.sections());
        snapshot.timestamp = now.timestamp;
        snapshot.loops = interval.each.into();
        let snapshot = Arc::new(snapshot);
        // Inside the lock, so that the newest is never replaced by an older.
        self.latest.snapshot.set(Some(Arc::clone(&snapshot)));
        snapshot
    }
}

/// Ends a thread whose sample panicked, or `stop` would wait for nothing.
struct Farewell<'a>(&'a Shared);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.gate.lock().finished = true;
            self.0.turn.notify_all();
        }
    }
}

impl Observed {
    fn collect(&mut self, now_ns: u64) -> Interval {
        let mut all = Vec::new();
        let each = self
            .loops
            .iter_mut()
            .map(|watched| watched.collect(now_ns, &mut all));
        let each: Vec<LoopFigures> = each.collect();
        let gc = self.gc.as_ref().map(|gc| {
            let now = gc.collect();
            let before = std::mem::replace(&mut self.gc_before, now);
            GcFigures {
                count: now.count - before.count,
                total_ns: now.total_ns - before.total_ns,
                longest_ns: now.longest_ns,
            }
        });
        let all = (!each.is_empty()).then(|| figures("all".into(), &mut all));
        self.last = Interval { each, all, gc };
        self.last.clone()
    }
}

impl Interval {
    fn sections(&self) -> Vec<(&'static str, Section)> {
        let lag = |pick: fn(&LoopFigures) -> f64| Value::from(self.all.as_ref().map(pick));
        let ticks = self.all.as_ref().map(|all| all.ticks);
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        vec![
            (
                "process",
                vec![
                    ("gc_pauses", self.gc.map(|gc| gc.count).into()),
                    (
                        "gc_pause_seconds",
                        self.gc.map(|gc| seconds(gc.total_ns)).into(),
                    ),
                    (
                        "gc_pause_max_seconds",
                        self.gc.map(|gc| seconds(gc.longest_ns)).into(),
                    ),
                ],
            ),
            (
                "loop",
                vec![
                    ("lag_p50_seconds", lag(|all| all.lag_p50_seconds)),
                    ("lag_p99_seconds", lag(|all| all.lag_p99_seconds)),
                    ("lag_max_seconds", lag(|all| all.lag_max_seconds)),
                    ("ticks", ticks.into()),
                ],
            ),
        ]
    }
}
