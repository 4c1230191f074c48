//! `LogHandler`: the native half of the handlers in `mtaio.logging`.
//!
//! Python's class inherits from this and from `logging.Handler`, in this
//! order, so a record reaches `handle` below by one method call.

use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};

use super::errors::HandlerError;
use super::log_format::{self, Fields, Plans};
use super::log_json::{self, JsonFormat};
use super::log_options::{Options, duration};
use super::names::names;
use super::worker;
use crate::log::format::escape_controls;
use crate::log::{Log, Notice, Progress, Refused, Stats};
use crate::sync::Mutex;

/// The callback, where the collector and the writer thread both reach it.
type Callback = Arc<Mutex<Option<Py<PyAny>>>>;

/// What a record meets when the ring is full.
struct Overflow {
    /// How long to wait for room; zero drops at once.
    wait: Duration,
    /// Wait on the thread of a running event loop too.
    on_loop: bool,
}

struct Opened {
    log: Log,
    overflow: Overflow,
    /// Make control characters visible, so that a line is a line.
    escape: bool,
}

thread_local! {
    /// Where a line is put together: one allocation per thread, not per line.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}
/// A longer line's buffer is given back.
const LONGEST_KEPT: usize = 64 << 10;

/// The native half of a log handler. Not used by itself.
#[pyclass(subclass, frozen, weakref, module = "mtaio._rust")]
pub(crate) struct LogHandler {
    opened: OnceLock<Opened>,
    on_error: Callback,
    /// No method that decides the line or its fate is overridden.
    native: AtomicBool,
    plans: Plans,
}

/// Passes a notice to `on_error`, on the worker: user code must not hold up
/// the writer. An error the callback raises goes to `sys.unraisablehook`.
fn tell(callback: &Callback, notice: &Notice) {
    if matches!(notice, Notice::OutageEnded(_)) {
        return;
    }
    let callback = Arc::clone(callback);
    let words = notice.to_string();
    worker::call_later(move |py| {
        let function = {
            let held = callback.lock();
            held.as_ref().map(|function| function.clone_ref(py))
        };
        if let Some(function) = function
            && let Err(error) = function.call1(py, (HandlerError::new_err(words).into_value(py),))
        {
            error.write_unraisable(py, Some(function.bind(py)));
        }
    });
}

/// `io::Error` as the `OSError` that `open` would raise, naming the file.
fn os_error(error: &io::Error, path: &std::path::Path) -> PyErr {
    match error.raw_os_error() {
        Some(code) => PyOSError::new_err((code, strerror(error), path.as_os_str().to_owned())),
        None => PyOSError::new_err(format!("{}: {error}", path.display())),
    }
}

/// The system's words without the " (os error 2)" that Rust appends.
fn strerror(error: &io::Error) -> String {
    let words = error.to_string();
    match words.find(" (os error") {
        Some(end) => words[..end].to_owned(),
        None => words,
    }
}

impl LogHandler {
    fn opened(&self) -> PyResult<&Opened> {
        self.opened
            .get()
            .ok_or_else(|| PyRuntimeError::new_err("the handler's __init__ has not run"))
    }

    /// Puts a line into the ring, waiting for room as the overflow policy says.
    fn put(&self, py: Python<'_>, line: &[u8]) -> PyResult<bool> {
        let Opened {
            log,
            overflow,
            escape,
        } = self.opened()?;
        let mut escaped = Vec::new();
        let line = if *escape {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            escape_controls(text, &mut escaped);
            escaped.push(b'\n');
            &escaped
        } else {
            line
        };
        let mut deadline = None;
        loop {
            let current = log
                .life()
                .map_err(|error| HandlerError::new_err(error.to_string()))?;
            match current.push(line) {
                Ok(()) => return Ok(true),
                // Closed since `life` looked: the next look begins a new life.
                Err(Refused::Closed) => {}
                Err(Refused::Full) => {
                    if deadline.is_none() && !overflow.may_wait(py)? {
                        log.count_dropped();
                        return Ok(false);
                    }
                    let end = *deadline.get_or_insert_with(|| Instant::now() + overflow.wait);
                    let rest = end.saturating_duration_since(Instant::now());
                    if rest.is_zero() {
                        log.count_dropped();
                        return Ok(false);
                    }
                    worker::detached(py, || current.wait_for_room(line, rest));
                }
            }
        }
    }
}

impl LogHandler {
    /// Formats and accepts `record`; false if it is Python's to do.
    fn emit_natively(slf: &Bound<'_, Self>, record: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = slf.py();
        let formatter = log_format::formatter_of(slf)?;
        let put = |line: &mut Vec<u8>| match formatter.cast::<JsonFormat>() {
            Ok(json) => JsonFormat::put(json, record, line),
            Err(_) => slf.get().plans.put(&formatter, record, line),
        };
        match Self::accept_made(slf, put) {
            // Formatted once, failed once: Python writes what can be said.
            Err(error) => slf
                .call_method1(names(py).rescue.bind(py), (record, error.into_value(py)))
                .map(|_| true),
            done => done,
        }
    }

    /// The same for a message without record; false if it needs one.
    pub(super) fn emit_fields(slf: &Bound<'_, Self>, fields: &Fields<'_, '_>) -> PyResult<bool> {
        let py = slf.py();
        if !slf.get().native.load(Relaxed) || !has_no_filters(slf)? {
            return Ok(false);
        }
        let least: i64 = slf.getattr(names(py).level.bind(py))?.extract()?;
        if fields.level < least {
            return Ok(true);
        }
        let formatter = log_format::formatter_of(slf)?;
        let put = |line: &mut Vec<u8>| slf.get().plans.put_fields(&formatter, fields, line);
        match Self::accept_made(slf, put) {
            // What fails here fails again by record, where it is dealt with; an
            // interrupt would not.
            Err(error) if error.is_instance_of::<PyException>(py) => Ok(false),
            outcome => outcome,
        }
    }

    /// Accepts the line that `put` makes, if it makes one.
    fn accept_made(
        slf: &Bound<'_, Self>,
        put: impl FnOnce(&mut Vec<u8>) -> PyResult<bool>,
    ) -> PyResult<bool> {
        // Taken, not borrowed: a message's `__str__` may log.
        let mut line = LINE.take();
        line.clear();
        let outcome = put(&mut line).and_then(|made| {
            if made {
                line.push(b'\n');
                Self::accept(slf, &line)
            } else {
                Ok(false)
            }
        });
        if line.capacity() <= LONGEST_KEPT {
            LINE.set(line);
        }
        outcome
    }

    fn accept(slf: &Bound<'_, Self>, line: &[u8]) -> PyResult<bool> {
        let py = slf.py();
        match slf.get().put(py, line) {
            Ok(true) => {
                let dropped = slf.get().opened()?.log.take_unreported();
                if dropped > 0 {
                    slf.call_method1(names(py).tell_dropped.bind(py), (dropped,))?;
                }
                Ok(true)
            }
            Ok(false) => Ok(true),
            // `emit` meets the same error and hands it to `handleError`.
            Err(_) => Ok(false),
        }
    }
}

impl Overflow {
    fn may_wait(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(!self.wait.is_zero() && (self.on_loop || !on_loop_thread(py)?))
    }
}

fn on_loop_thread(py: Python<'_>) -> PyResult<bool> {
    let running = py.import("asyncio")?.call_method0("_get_running_loop")?;
    Ok(!running.is_none())
}

#[pymethods]
impl LogHandler {
    #[new]
    #[pyo3(signature = (*_args, **_options))]
    fn new(_args: &Bound<'_, PyTuple>, _options: Option<&Bound<'_, PyDict>>) -> Self {
        Self {
            opened: OnceLock::new(),
            on_error: Callback::default(),
            native: AtomicBool::new(false),
            plans: Plans::default(),
        }
    }

    /// Opens the log by options that Python has checked.
    fn _open(
        &self,
        py: Python<'_>,
        options: &Bound<'_, PyDict>,
        on_error: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let options = Options::of(options)?;
        *self.on_error.lock() = on_error;
        let callback = Arc::clone(&self.on_error);
        let config = options.config(Arc::new(move |notice| tell(&callback, &notice)))?;
        let opened = worker::detached(py, || Log::open(config));
        let log = opened.map_err(|error| os_error(&error, &options.path))?;
        let overflow = Overflow {
            wait: duration(options.wait),
            on_loop: options.block_on_loop,
        };
        let opened = Opened {
            log,
            overflow,
            escape: options.escape,
        };
        self.opened
            .set(opened)
            .map_err(|_| PyRuntimeError::new_err("the handler is open already"))
    }

    /// Filter, then emit. Takes no lock: a full ring must not make others wait.
    fn handle<'py>(
        slf: &Bound<'py, Self>,
        record: Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let mut record = record;
        let native = slf.get().native.load(Relaxed);
        // One that is not native may have a `filter` of its own.
        if !native || !has_no_filters(slf)? {
            let passed = slf.call_method1(names(py).filter.bind(py), (&record,))?;
            if !passed.is_truthy()? {
                return Ok(passed);
            }
            // Since 3.12 a filter may put another record in its place.
            if log_format::is_record(&passed)? {
                record = passed;
            }
        }
        if !native || !Self::emit_natively(slf, &record)? {
            slf.call_method1(names(py).emit.bind(py), (&record,))?;
        }
        Ok(record)
    }

    /// Whether `handle` may do without `filter`, `emit`, `format` and `terminator`.
    fn _set_native(&self, native: bool) {
        self.native.store(native, Relaxed);
    }

    /// Accepts one encoded line, its end included; false if it was dropped.
    fn _put(&self, py: Python<'_>, line: &[u8]) -> PyResult<bool> {
        self.put(py, line)
    }

    /// Drops not yet told in the log; from now on they count as told.
    fn _take_unreported(&self) -> PyResult<u64> {
        Ok(self.opened()?.log.take_unreported())
    }

    /// Gives `_take_unreported` back.
    fn _return_unreported(&self, count: u64) -> PyResult<()> {
        self.opened()?.log.return_unreported(count);
        Ok(())
    }

    /// Begins to write all accepted so far. `None` if there is nothing to do.
    fn _flush(&self) -> Option<LogProgress> {
        // Never opened when the constructor failed: `logging` knows it still.
        let life = self.opened.get()?.log.last_life();
        life.map(|life| LogProgress(life.flush()))
    }

    /// Begins to close. `None` if there is nothing to do.
    fn _close(&self) -> Option<LogProgress> {
        let life = self.opened.get()?.log.last_life();
        life.map(|life| LogProgress(life.close()))
    }

    /// Makes the writer open the file by its name before the next batch.
    fn reopen(&self) {
        // As `_flush`.
        if let Some(life) = self.opened.get().and_then(|opened| opened.log.last_life()) {
            life.reopen();
        }
    }

    /// The counters, as a dict.
    fn _stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        stats_dict(py, &self.opened()?.log.stats())
    }

    #[allow(clippy::needless_pass_by_value)] // PyO3's signature
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(callback) = self.on_error.try_lock()
            && let Some(callback) = callback.as_ref()
        {
            visit.call(callback)?;
        }
        self.plans.visit(|formatter| visit.call(formatter))
    }

    fn __clear__(&self) {
        self.plans.clear();
        let dropped = self.on_error.lock().take();
        drop(dropped);
    }
}

fn has_no_filters(handler: &Bound<'_, LogHandler>) -> PyResult<bool> {
    let filters = handler.getattr(names(handler.py()).filters.bind(handler.py()))?;
    Ok(filters
        .cast_exact::<PyList>()
        .is_ok_and(PyListMethods::is_empty))
}

fn stats_dict<'py>(py: Python<'py>, stats: &Stats) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("accepted", stats.accepted)?;
    dict.set_item("written", stats.written)?;
    dict.set_item("written_bytes", stats.written_bytes)?;
    dict.set_item("dropped", stats.dropped)?;
    dict.set_item("recovered", stats.recovered)?;
    dict.set_item("corrupt_bytes", stats.corrupt_bytes)?;
    dict.set_item("failed_writes", stats.failed_writes)?;
    dict.set_item("rotations", stats.rotations)?;
    dict.set_item("failed_rotations", stats.failed_rotations)?;
    dict.set_item("ring_used", stats.ring_used)?;
    dict.set_item("ring_bytes", stats.ring_bytes)?;
    dict.set_item("durable", stats.durable)?;
    dict.set_item("last_error", stats.last_error.as_deref())?;
    Ok(dict)
}

/// How far the writer has got towards a flush or a close.
#[pyclass(frozen, module = "mtaio._rust")]
pub(crate) struct LogProgress(Progress);

#[pymethods]
impl LogProgress {
    /// True once it got there.
    #[getter]
    fn done(&self) -> bool {
        self.0.is_ready()
    }

    /// Waits on this thread, at most `timeout` seconds; true if it got there.
    fn wait(&self, py: Python<'_>, timeout: f64) -> bool {
        worker::detached(py, || self.0.wait(duration(timeout)))
    }

    /// A future of the running loop that is done when it got there.
    fn future<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        worker::future_into_py(py, self.0.clone())
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    // All that a record meets, before any fork can meet it half made.
    log_format::warm(m.py())?;
    log_json::warm(m.py())?;
    m.add_class::<LogHandler>()?;
    m.add_class::<JsonFormat>()?;
    m.add_class::<LogProgress>()
}
