//! The writer thread, and what it shares with those who log.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::thread::{self as std_thread, Thread};
use std::time::{Duration, Instant};

use super::Config;
use super::doorbell::Doorbell;
use super::drain::{Tally, Target};
use super::report::{self, Notice};
use super::stats::Counters;
use super::storage::Housed;
use crate::sync::{Condvar, Mutex};

/// Rounds of gathering that find nothing before the writer sleeps until woken:
/// while records flow, no producer pays for a wake-up.
const LINGER: u32 = 32;
const FIRST_RETRY: Duration = Duration::from_millis(20);
const LAST_RETRY: Duration = Duration::from_secs(1);

/// Those who wait for the writer to get on.
#[derive(Default)]
struct Waiting {
    wakers: Vec<(u64, Waker)>,
}

/// What producers, waiters and the writer share.
pub(super) struct Shared {
    pub(super) housed: Housed,
    pub(super) counters: Arc<Counters>,
    bell: Doorbell,
    thread: OnceLock<Thread>,
    waiting: Mutex<Waiting>,
    progress: Condvar,
    /// Somebody waits: don't gather.
    urgent: AtomicBool,
    reopen: AtomicBool,
    closing: AtomicBool,
    finished: AtomicBool,
}

impl Shared {
    pub(super) fn new(housed: Housed, counters: Arc<Counters>) -> Self {
        Self {
            housed,
            counters,
            bell: Doorbell::new(),
            thread: OnceLock::new(),
            waiting: Mutex::default(),
            progress: Condvar::default(),
            urgent: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            finished: AtomicBool::new(false),
        }
    }

    /// After a record went in.
    #[inline]
    pub(super) fn ring_bell(&self) {
        if self.bell.ring() {
            self.unpark();
        } else if self.housed.ring.used() > self.housed.ring.capacity() / 2
            && !self.urgent.swap(true, Ordering::AcqRel)
        {
            // Filling up faster than the writer gathers.
            self.unpark();
        }
    }

    fn unpark(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }

    /// Makes the writer look at once, whatever it is waiting for.
    pub(super) fn hurry(&self) {
        self.urgent.store(true, Ordering::Release);
        self.bell.ring();
        self.unpark();
    }

    pub(super) fn ask_reopen(&self) {
        self.reopen.store(true, Ordering::Release);
        self.hurry();
    }

    pub(super) fn ask_close(&self) {
        // Sealed first: once the writer sees `closing`, an empty ring stays so.
        self.housed.ring.seal();
        self.closing.store(true, Ordering::Release);
        self.hurry();
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished.load(Ordering::Acquire)
    }

    /// Waits until `done`, at most `timeout`; returns whether it is.
    pub(super) fn wait(&self, timeout: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let waiting = self.waiting.lock();
        let _guard = self
            .progress
            .wait_timeout_while(waiting, timeout, |_| !done(self));
        done(self)
    }

    /// Wakes `waker` once all before `position` is written; true if it is.
    /// `u64::MAX` stands for the end of the writer.
    pub(super) fn wake_at(&self, position: u64, waker: &Waker) -> bool {
        let mut waiting = self.waiting.lock();
        if self.is_reached(position) {
            return true;
        }
        waiting.wakers.push((position, waker.clone()));
        false
    }

    pub(super) fn is_reached(&self, position: u64) -> bool {
        if position == u64::MAX {
            self.is_finished()
        } else {
            self.housed.ring.tail() >= position
        }
    }

    /// Tells those who wait that the writer got on.
    fn announce(&self) {
        let mut due = Vec::new();
        {
            let mut waiting = self.waiting.lock();
            let (ready, rest) = std::mem::take(&mut waiting.wakers)
                .into_iter()
                .partition(|(position, _)| self.is_reached(*position));
            due.extend(ready);
            waiting.wakers = rest;
            self.progress.notify_all();
        }
        for (_, waker) in due as Vec<(u64, Waker)> {
            waker.wake();
        }
    }
}

/// See the module.
pub(super) struct Writer {
    shared: Arc<Shared>,
    target: Target,
    gather: Duration,
    observer: super::Observer,
    outage: Option<Outage>,
    /// The last rotation failed, which is told once.
    rotation_fails: bool,
    idle_rounds: u32,
}

/// Writing has failed since.
struct Outage {
    retry: Duration,
    /// Records written when it began.
    records: u64,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, target: Target, config: &Config) -> Self {
        Self {
            shared,
            target,
            gather: config.gather,
            observer: Arc::clone(&config.observer),
            outage: None,
            rotation_fails: false,
            idle_rounds: 0,
        }
    }

    /// Runs until the log is closed and its ring empty.
    pub(super) fn run(mut self) {
        // Set before anyone else can hold `shared`: nobody rings unheard.
        let _ = self.shared.thread.set(std_thread::current());
        self.target.compress_backups();
        loop {
            self.shared.bell.answer();
            self.shared.urgent.store(false, Ordering::Release);
            let closing = self.shared.is_closing();
            if self.shared.reopen.swap(false, Ordering::AcqRel) {
                self.target.file.close();
            }
            let wrote = self.turn();
            self.shared.announce();
            if closing && self.shared.housed.ring.used() == 0 {
                break;
            }
            self.pause(wrote);
        }
        self.target.finish();
        self.shared.housed.retire();
        // The log keeps this life as long as itself, for whoever still looks.
        self.shared.housed.ring.release();
        self.shared.finished.store(true, Ordering::Release);
        self.shared.announce();
    }

    /// Writes all that waits; returns the records, or `None` in an outage.
    fn turn(&mut self) -> Option<u64> {
        let mut records = 0;
        let end = self.shared.housed.ring.head();
        // Nothing to write and nothing owed to dead processes: no system call.
        while self.shared.housed.ring.tail() < end || self.target.owes() {
            let mut tally = Tally::default();
            let outcome = self.target.drain(&self.shared.housed, &mut tally);
            // Counted before it is announced: who was waiting may ask for it.
            self.shared.counters.add(&tally);
            self.tell_faults(&mut tally);
            self.shared.announce();
            records += tally.records;
            if let Err(error) = outcome {
                self.begin_outage(&error);
                return None;
            }
            self.end_outage();
            if tally.records + tally.corrupt_bytes == 0 {
                break;
            }
        }
        Some(records)
    }

    fn pause(&mut self, wrote: Option<u64>) {
        let shared = Arc::clone(&self.shared);
        let Some(records) = wrote else {
            self.sit_out();
            return;
        };
        self.idle_rounds = if records > 0 { 0 } else { self.idle_rounds + 1 };
        if shared.urgent.load(Ordering::Acquire) {
            return;
        }
        if self.idle_rounds < LINGER {
            std_thread::park_timeout(self.gather);
        } else if shared.bell.sleep() {
            while shared.bell.is_asleep() {
                std_thread::park();
            }
            self.idle_rounds = 0;
            if !shared.urgent.load(Ordering::Acquire) {
                std_thread::park_timeout(self.gather);
            }
        }
    }

    /// Waits before the next attempt; a full ring's producers don't hasten it.
    fn sit_out(&mut self) {
        let outage = self.outage.as_mut().expect("`turn` failed");
        let end = Instant::now() + outage.retry;
        outage.retry = (outage.retry * 2).min(LAST_RETRY);
        let closing = self.shared.is_closing();
        while let Some(rest) = end.checked_duration_since(Instant::now()) {
            let news =
                self.shared.reopen.load(Ordering::Acquire) || self.shared.is_closing() != closing;
            if news || rest.is_zero() {
                return;
            }
            std_thread::park_timeout(rest);
        }
    }

    fn tell_faults(&mut self, tally: &mut Tally) {
        if let Some(error) = tally.rotation_fault.take() {
            let words = error.to_string();
            self.shared.counters.failed_rotation(&words);
            if !std::mem::replace(&mut self.rotation_fails, true) {
                self.tell(Notice::RotationFailed(words));
            }
        } else if tally.rotations > 0 {
            self.rotation_fails = false;
        }
        for home in std::mem::take(&mut tally.foreign) {
            self.tell(Notice::RingForeign(home.display().to_string()));
        }
        if tally.corrupt_bytes > 0 {
            self.tell(Notice::RingCorrupt(tally.corrupt_bytes));
        }
    }

    fn begin_outage(&mut self, error: &io::Error) {
        let words = format!("{}: {error}", self.target.file.path().display());
        self.shared.counters.failed_write(&words);
        // The next attempt opens the file anew: the folder may be another.
        self.target.file.close();
        if self.outage.is_none() {
            self.outage = Some(Outage {
                retry: FIRST_RETRY,
                records: self.shared.counters.snapshot().written,
            });
            self.tell(Notice::OutageBegan(words));
        }
    }

    fn end_outage(&mut self) {
        if let Some(outage) = self.outage.take() {
            let records = self.shared.counters.snapshot().written - outage.records;
            self.tell(Notice::OutageEnded(records));
        }
    }

    fn tell(&self, notice: Notice) {
        let path = self.target.file.path().display();
        report::to_stderr(&format!("mtaio.logging: {path}: {notice}\n"));
        (self.observer)(notice);
    }
}
