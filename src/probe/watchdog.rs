//! The watchdog's thread: finds stalls, gets the stack, reports.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::desk::{Capture, Desk, Report};
use super::dump::StackSignal;
use super::heart::{Finding, Heart, Hearts};
use super::thread::spawn_quiet;

/// How long Python gets to begin on a stack itself: many times its switch interval
/// (5 ms), so that running out of it means that the interpreter is held.
const PATIENCE: Duration = Duration::from_millis(250);
/// How long it gets to end: source lines are read from files, amid other threads.
const LONGEST_CAPTURE: Duration = Duration::from_secs(2);

/// What a watchdog is given.
pub struct Watching {
    /// Monotonic nanoseconds, on any thread.
    pub clock: fn() -> u64,
    /// The loops.
    pub hearts: Arc<Hearts>,
    /// Where Python comes for captures and reports.
    pub desk: Arc<Desk>,
    /// Takes a stack when Python can't; `None` where that isn't possible.
    pub signal: Option<StackSignal>,
    /// Without a beat for this long, a loop is stalled.
    pub stall_after_ns: u64,
}

/// A running watchdog thread.
pub struct Watchdog {
    stopping: Arc<AtomicBool>,
    desk: Arc<Desk>,
    thread: JoinHandle<()>,
}

impl Watchdog {
    /// Starts the thread.
    pub fn start(watching: Watching) -> std::io::Result<Self> {
        let stopping = Arc::new(AtomicBool::new(false));
        let desk = Arc::clone(&watching.desk);
        let flag = Arc::clone(&stopping);
        let thread = spawn_quiet("mtaio-watchdog", move || watching.run(&flag))?;
        Ok(Self {
            stopping,
            desk,
            thread,
        })
    }

    /// Ends the thread and closes the desk; waits for a dump at most. Reports
    /// made before, the ends of open stalls too, can still be read from the desk.
    pub fn stop(self) {
        self.stopping.store(true, Ordering::Release);
        self.desk.call_off();
        self.thread.thread().unpark();
        // A panic of the thread has been printed by its hook.
        let _ = self.thread.join();
        self.desk.close();
    }

    /// In a forked child, where the thread does not exist.
    pub fn forget(self) {
        std::mem::forget(self);
    }
}

impl Watching {
    fn run(mut self, stopping: &AtomicBool) {
        // Often enough that a report is at most an eighth late.
        let turn = Duration::from_nanos((self.stall_after_ns / 8).clamp(1_000_000, 250_000_000));
        let mut floor = 0;
        let mut stalled = Vec::new();
        let mut last = (self.clock)();
        while !stopping.load(Ordering::Acquire) {
            let now = (self.clock)();
            if now.saturating_sub(last) > self.stall_after_ns {
                // This thread itself did not run: the process was stopped or
                // starved, and what its loops missed says nothing about them.
                floor = now;
            }
            let hearts = self.hearts.list();
            for heart in hearts.iter() {
                self.look(heart, floor, &mut stalled);
            }
            self.end_all(&mut stalled, |heart| {
                hearts.iter().any(|h| Arc::ptr_eq(h, heart))
            });
            last = (self.clock)();
            let until = Instant::now() + turn;
            while Instant::now() < until && !stopping.load(Ordering::Acquire) {
                std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
            }
        }
        self.end_all(&mut stalled, |_| false);
    }

    /// Tells the end of stalls whose loops are watched no longer.
    fn end_all(&self, stalled: &mut Vec<Arc<Heart>>, watched: impl Fn(&Arc<Heart>) -> bool) {
        stalled.retain(|heart| {
            let keep = watched(heart);
            if !keep {
                self.tell_end(heart, heart.leave((self.clock)()));
            }
            keep && heart.is_stalled()
        });
    }

    fn tell_end(&self, heart: &Arc<Heart>, lasted_ns: Option<u64>) {
        if let Some(lasted_ns) = lasted_ns {
            self.desk.report(Report {
                heart: Arc::clone(heart),
                stack: None,
                interpreter_held: false,
                lasted_ns,
                ended: true,
            });
        }
    }

    fn look(&mut self, heart: &Arc<Heart>, floor: u64, stalled: &mut Vec<Arc<Heart>>) {
        match heart.judge((self.clock)(), floor, self.stall_after_ns) {
            None => {}
            Some(Finding::Ended { lasted_ns }) => self.tell_end(heart, Some(lasted_ns)),
            Some(Finding::Suspect { beat, age_ns }) => {
                self.suspect(heart, beat, age_ns);
                if heart.is_stalled() {
                    stalled.push(Arc::clone(heart));
                }
            }
        }
    }

    fn suspect(&mut self, heart: &Arc<Heart>, beat: u64, age_ns: u64) {
        let (stack, held) = match self.desk.capture(heart, PATIENCE, LONGEST_CAPTURE) {
            Some(Capture::NotRunning) => return heart.pause(beat),
            Some(Capture::CalledOff) => return,
            Some(Capture::Stack(stack)) => (Some(stack), false),
            Some(Capture::Elsewhere) => (self.signalled(heart), false),
            None => (self.signalled(heart), true),
        };
        heart.confirm(beat);
        if held {
            shout(heart, age_ns, stack.as_deref());
        }
        self.desk.report(Report {
            heart: Arc::clone(heart),
            stack,
            interpreter_held: held,
            lasted_ns: age_ns,
            ended: false,
        });
    }

    fn signalled(&mut self, heart: &Heart) -> Option<String> {
        self.signal.as_mut().and_then(|s| s.stack(&heart.who))
    }
}

/// While the interpreter is held no Python logger can speak, and the process
/// may be killed before one can: so this goes to standard error at once.
fn shout(heart: &Heart, age_ns: u64, stack: Option<&str>) {
    let text = format!(
        "mtaio.watchdog: event loop {:?} has not run for {:.2} s and the interpreter is held\n{}",
        heart.who.name,
        age_ns as f64 / 1e9,
        stack.unwrap_or("no stack could be taken\n"),
    );
    // Nobody is left to tell when standard error itself can't be written.
    let _ = std::io::stderr().write_all(text.as_bytes());
}
