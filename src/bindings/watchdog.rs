//! `Heart`, `Hearts`, `StallReport`, `WatchdogThread`.

use std::sync::Arc;

use pyo3::prelude::*;

use super::args;
use super::clock::monotonic_ns;
use super::probe::{PyLivenessGuard, PyMetricsSource};
use crate::probe::{
    Capture, Desk, Heart, Hearts, Identity, Report, StackSignal, Task, Watchdog, Watching,
};
use crate::sync::Mutex;

fn nanoseconds(seconds: f64) -> u64 {
    // Saturates: 584 years is as good as never.
    (seconds * 1e9) as u64
}

/// The heartbeat of one event loop.
#[pyclass(frozen, name = "Heart", module = "mtaio._rust")]
pub(crate) struct PyHeart(Arc<Heart>);

#[pymethods]
impl PyHeart {
    #[new]
    #[pyo3(signature = (key, name, *, thread_ident, native_id, period))]
    fn new(
        key: u64,
        name: &Bound<'_, PyAny>,
        thread_ident: u64,
        native_id: u64,
        period: f64,
    ) -> PyResult<Self> {
        let who = Identity {
            key,
            name: args::text("name", name)?,
            thread_ident,
            native_id,
        };
        Ok(Self(Arc::new(Heart::new(who, nanoseconds(period)))))
    }

    /// The loop runs.
    fn beat(&self) {
        self.0.beat(monotonic_ns());
    }

    /// Seconds the loop is late at this moment.
    #[getter]
    fn lag(&self) -> f64 {
        self.0.lag_ns(monotonic_ns()) as f64 / 1e9
    }

    /// How often it stalled.
    #[getter]
    fn stalls(&self) -> u64 {
        self.0.stalls()
    }

    /// Whether it is stalled at this moment.
    #[getter]
    fn stalled(&self) -> bool {
        self.0.is_stalled()
    }
}

/// The hearts of one watchdog.
#[pyclass(frozen, name = "Hearts", module = "mtaio._rust")]
pub(crate) struct PyHearts(Arc<Hearts>);

#[pymethods]
impl PyHearts {
    #[new]
    fn new(fail_after: Option<f64>) -> Self {
        Self(Arc::new(Hearts::new(fail_after.map(nanoseconds))))
    }

    /// Watches one more.
    fn add(&self, heart: &PyHeart) {
        self.0.add(&heart.0);
    }

    /// Watches it no longer.
    fn remove(&self, heart: &PyHeart) {
        self.0.remove(&heart.0);
    }

    /// Their metrics.
    fn source(&self) -> PyMetricsSource {
        PyMetricsSource(Arc::clone(&self.0) as _)
    }

    /// What fails `/livez` after `fail_after`.
    fn guard(&self) -> PyLivenessGuard {
        PyLivenessGuard(Arc::clone(&self.0) as _)
    }

    /// Call in a forked child before anything else.
    fn after_fork_in_child(&self) {
        self.0.after_fork_in_child();
    }
}

/// The begin or the end of one stall of one event loop.
///
/// Attributes:
///     loop: The loop's name.
///     ended: False at the begin, True at the end.
///     lasted: Seconds so far, or in all when `ended`.
///     stack: Where the loop's thread was, as text; None at the end, and where
///         no stack could be taken.
///     `interpreter_held`: The stack was taken without the interpreter, which
///         something held; innermost call first, in `faulthandler`'s format.
#[pyclass(frozen, name = "StallReport", module = "mtaio._rust")]
pub(crate) struct PyStallReport(Report);

#[pymethods]
impl PyStallReport {
    #[getter]
    fn r#loop(&self) -> &str {
        &self.0.heart.who.name
    }

    #[getter]
    fn ended(&self) -> bool {
        self.0.ended
    }

    #[getter]
    fn lasted(&self) -> f64 {
        self.0.lasted_ns as f64 / 1e9
    }

    #[getter]
    fn stack(&self) -> Option<&str> {
        self.0.stack.as_deref()
    }

    #[getter]
    fn interpreter_held(&self) -> bool {
        self.0.interpreter_held
    }

    fn __repr__(&self) -> String {
        let (name, lasted) = (self.r#loop(), self.lasted());
        let ended = if self.0.ended { "ended" } else { "begun" };
        format!("StallReport({name:?}, {ended}, {lasted:.3} s)")
    }
}

/// What the desk hands out: a capture to make, or a report to tell.
#[derive(IntoPyObject)]
enum PyTask {
    Capture(u64, u64),
    Report(Py<PyStallReport>),
}

/// The watchdog's thread, and the desk where Python serves it.
#[pyclass(frozen, name = "WatchdogThread", module = "mtaio._rust")]
pub(crate) struct PyWatchdogThread {
    desk: Arc<Desk>,
    thread: Mutex<Option<Watchdog>>,
}

#[pymethods]
impl PyWatchdogThread {
    /// `signal` is `(number, file, on the stalled thread)`.
    #[new]
    #[pyo3(signature = (hearts, *, stall_after, signal, all_threads))]
    fn new(
        hearts: &PyHearts,
        stall_after: f64,
        signal: Option<(i32, i32, bool)>,
        all_threads: bool,
    ) -> PyResult<Self> {
        let desk = Arc::new(Desk::default());
        let thread = Watchdog::start(Watching {
            clock: monotonic_ns,
            hearts: Arc::clone(&hearts.0),
            desk: Arc::clone(&desk),
            signal: signal.map(|(signal, file, on_stalled_thread)| StackSignal {
                signal,
                file,
                on_stalled_thread,
                all_threads,
            }),
            stall_after_ns: nanoseconds(stall_after).max(1),
        })?;
        Ok(Self {
            desk,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Waits for a task: `(ticket, key of the heart)` to capture, a `StallReport`
    /// to tell, or None at the end.
    fn next(&self, py: Python<'_>) -> PyResult<Option<PyTask>> {
        match py.detach(|| self.desk.next()) {
            None => Ok(None),
            Some(Task::Capture(ticket, heart)) => {
                // Attached again: the interpreter isn't held, however long the
                // stack takes now.
                self.desk.claim(ticket);
                Ok(Some(PyTask::Capture(ticket, heart.who.key)))
            }
            Some(Task::Report(report)) => {
                Ok(Some(PyTask::Report(Py::new(py, PyStallReport(report))?)))
            }
        }
    }

    /// The stack for `ticket`; empty leaves it to the signal, None says that
    /// the loop isn't running.
    fn answer(&self, ticket: u64, stack: Option<String>) {
        let capture = match stack {
            None => Capture::NotRunning,
            Some(stack) if stack.is_empty() => Capture::Elsewhere,
            Some(stack) => Capture::Stack(stack),
        };
        self.desk.answer(ticket, capture);
    }

    /// Reports that were dropped because nobody came for them.
    #[getter]
    fn dropped(&self) -> u64 {
        self.desk.dropped()
    }

    /// Ends the thread, then `next`.
    fn stop(&self, py: Python<'_>) {
        let thread = self.thread.lock().take();
        py.detach(|| thread.map(Watchdog::stop));
    }

    /// In a forked child: lets go of what only the parent has.
    fn forget(&self) {
        if let Some(thread) = self.thread.lock().take() {
            thread.forget();
        }
    }
}

/// A real-time signal that nobody handles, or None where there is none.
#[pyfunction]
fn free_signal() -> Option<i32> {
    crate::probe::free_signal()
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyHeart>()?;
    m.add_class::<PyHearts>()?;
    m.add_class::<PyStallReport>()?;
    m.add_class::<PyWatchdogThread>()?;
    m.add_function(wrap_pyfunction!(free_signal, m)?)
}
