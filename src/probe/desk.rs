//! The desk between the watchdog's thread and whoever can run Python.
//!
//! The watchdog leaves a task and waits for a stack, but only so long: if the
//! interpreter is held, nobody comes to the desk, and the watchdog goes another
//! way. A ticket makes a late answer harmless.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::heart::Heart;
use crate::sync::{Condvar, Mutex};

/// Reports that wait for a reader that is busy; then the oldest are dropped.
const MOST_WAITING: usize = 256;

/// What to do for the watchdog.
#[derive(Clone, Debug)]
pub enum Task {
    /// Take the stack of this loop's thread; answer under this ticket.
    Capture(u64, Arc<Heart>),
    /// Tell those concerned.
    Report(Report),
}

/// What came of a capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capture {
    /// The stack, as text.
    Stack(String),
    /// Python runs but leaves the stack to the signal.
    Elsewhere,
    /// Nobody is to be asked any more.
    CalledOff,
    /// The loop isn't running, so it isn't stalled.
    NotRunning,
}

/// The begin or the end of a stall.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of which loop.
    pub heart: Arc<Heart>,
    /// The stack at the begin, if one could be taken.
    pub stack: Option<String>,
    /// Whether the stack was taken without the interpreter.
    pub interpreter_held: bool,
    /// So far, or in all when `ended`.
    pub lasted_ns: u64,
    /// Whether the loop runs again.
    pub ended: bool,
}

#[derive(Default)]
struct Inside {
    tasks: VecDeque<Task>,
    /// The ticket last handed out, and its answer once there is one.
    ticket: u64,
    claimed: bool,
    answer: Option<Capture>,
    dropped: u64,
    called_off: bool,
    closed: bool,
}

/// See the module. Made anew at each start, so a fork never finds it held.
#[derive(Default)]
pub struct Desk {
    inside: Mutex<Inside>,
    task_left: Condvar,
    answer_left: Condvar,
}

impl Desk {
    /// The next task; waits for one. `None` once the desk is closed.
    #[must_use]
    pub fn next(&self) -> Option<Task> {
        let nothing_yet = |i: &mut Inside| i.tasks.is_empty() && !i.closed;
        let mut inside = self.task_left.wait_while(self.inside.lock(), nothing_yet);
        inside.tasks.pop_front()
    }

    /// Says that Python runs and has begun on a capture.
    pub fn claim(&self, ticket: u64) {
        let mut inside = self.inside.lock();
        if inside.ticket == ticket {
            inside.claimed = true;
            self.answer_left.notify_one();
        }
    }

    /// Answers a capture. Without effect when its ticket is no longer waited for.
    pub fn answer(&self, ticket: u64, capture: Capture) {
        let mut inside = self.inside.lock();
        if inside.ticket == ticket {
            inside.answer = Some(capture);
            self.answer_left.notify_one();
        }
    }

    /// Calls off captures, now and from now on: the watchdog is about to end.
    pub(super) fn call_off(&self) {
        self.inside.lock().called_off = true;
        self.answer_left.notify_all();
    }

    /// Ends `next` once what waits is taken.
    pub(super) fn close(&self) {
        self.inside.lock().closed = true;
        self.task_left.notify_all();
    }

    /// How many reports nobody came for.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.inside.lock().dropped
    }

    /// Asks for the stack of `heart`; waits `to_begin` for somebody to claim it
    /// and then `to_end` for the answer.
    pub(super) fn capture(
        &self,
        heart: &Arc<Heart>,
        to_begin: Duration,
        to_end: Duration,
    ) -> Option<Capture> {
        let mut inside = self.inside.lock();
        inside.ticket += 1;
        inside.claimed = false;
        inside.answer = None;
        let task = Task::Capture(inside.ticket, Arc::clone(heart));
        inside.tasks.push_back(task);
        self.task_left.notify_one();
        let unclaimed = |i: &mut Inside| !i.claimed && i.answer.is_none() && !i.called_off;
        inside = self
            .answer_left
            .wait_timeout_while(inside, to_begin, unclaimed);
        if inside.claimed {
            let unanswered = |i: &mut Inside| i.answer.is_none() && !i.called_off;
            inside = self
                .answer_left
                .wait_timeout_while(inside, to_end, unanswered);
        }
        // From here on an answer under this ticket is too late.
        inside.ticket += 1;
        inside
            .tasks
            .retain(|task| !matches!(task, Task::Capture(..)));
        if inside.called_off {
            return Some(Capture::CalledOff);
        }
        inside.answer.take()
    }

    /// Waits for the reader's next word, `longest` at most, while `unsettled`.
    pub(super) fn report(&self, report: Report) {
        let mut inside = self.inside.lock();
        if inside.tasks.len() == MOST_WAITING {
            inside.tasks.pop_front();
            inside.dropped += 1;
        }
        inside.tasks.push_back(Task::Report(report));
        self.task_left.notify_one();
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::super::heart::heart;
    use super::*;

    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn an_answer_that_comes_too_late_is_not_taken_for_the_next() {
        let desk = Desk::default();
        let heart = Arc::new(heart("main"));

        assert_eq!(desk.capture(&heart, Duration::ZERO, Duration::ZERO), None);
        desk.answer(1, Capture::Stack("late".to_owned()));

        assert_eq!(desk.capture(&heart, Duration::ZERO, Duration::ZERO), None);
    }

    #[test]
    fn a_capture_called_off_is_not_taken_for_a_held_interpreter() {
        let desk = Desk::default();
        desk.call_off();

        let got = desk.capture(&Arc::new(heart("main")), LONG, LONG);

        assert_eq!(got, Some(Capture::CalledOff));
    }

    #[test]
    fn a_capture_is_answered_from_another_thread() {
        let desk = Arc::new(Desk::default());
        let reader = Arc::clone(&desk);
        let thread = std::thread::spawn(move || {
            while let Some(task) = reader.next() {
                if let Task::Capture(ticket, _) = task {
                    reader.claim(ticket);
                    reader.answer(ticket, Capture::Stack("here".to_owned()));
                }
            }
        });

        let got = desk.capture(&Arc::new(heart("main")), LONG, LONG);

        assert_eq!(got, Some(Capture::Stack("here".to_owned())));
        desk.close();
        thread.join().unwrap();
    }

    #[test]
    fn reports_are_bounded_and_the_lost_ones_counted() {
        let desk = Desk::default();
        for n in 0..300 {
            desk.report(Report {
                heart: Arc::new(heart("main")),
                stack: None,
                interpreter_held: false,
                lasted_ns: n,
                ended: false,
            });
        }
        desk.close();

        let first = desk.next();

        assert!(matches!(first, Some(Task::Report(r)) if r.lasted_ns == 44));
        assert_eq!(desk.dropped(), 44);
    }
}
