//! `DirectLogger`: a message's way into the ring without a `LogRecord`.
//!
//! Taken where nobody could tell the difference: handlers of ours that override
//! nothing and filter nothing, with a stock formatter that asks for no more
//! than time, name, level and message; no `extra`, no exception, no stack.
//! Everything else goes through `_by_record`, in Python.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::PyTraverseError;
use pyo3::gc::PyVisit;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::log::LogHandler;
use super::log_format::Fields;
use super::names::names;
use super::ready::{PyReady, ready};

/// What decides where a message goes; replaced as a whole.
#[derive(Default)]
struct Route {
    level: i64,
    /// `None`: some handler is not ours, or a context is bound.
    handlers: Option<Vec<Py<LogHandler>>>,
}

/// The native half of `AsyncLogger`. Not used by itself.
#[pyclass(subclass, frozen, weakref, module = "mtaio._rust")]
pub(crate) struct DirectLogger {
    name: Py<PyString>,
    route: RwLock<Arc<Route>>,
}

#[pymethods]
impl DirectLogger {
    #[new]
    #[pyo3(signature = (name, *_args, **_options))]
    fn new(
        name: &Bound<'_, PyAny>,
        _args: &Bound<'_, PyTuple>,
        _options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let checked = super::args::text("name", name)?;
        Ok(Self {
            name: PyString::new(name.py(), &checked).unbind(),
            route: RwLock::default(),
        })
    }

    /// Sets the least level and, if all may be reached directly, the handlers.
    fn _route(&self, level: i64, handlers: Option<Vec<Py<LogHandler>>>) {
        self.replace(Route { level, handlers });
    }

    /// Log at DEBUG. Never waits; the awaitable it returns is done.
    #[pyo3(signature = (message, *args, **options))]
    fn debug(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyReady>> {
        say(slf, 10, message, args, options)
    }

    /// Log at INFO. Never waits; the awaitable it returns is done.
    #[pyo3(signature = (message, *args, **options))]
    fn info(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyReady>> {
        say(slf, 20, message, args, options)
    }

    /// Log at WARNING. Never waits; the awaitable it returns is done.
    #[pyo3(signature = (message, *args, **options))]
    fn warning(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyReady>> {
        say(slf, 30, message, args, options)
    }

    /// Log at ERROR. Never waits; the awaitable it returns is done.
    #[pyo3(signature = (message, *args, **options))]
    fn error(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyReady>> {
        say(slf, 40, message, args, options)
    }

    /// Log at CRITICAL. Never waits; the awaitable it returns is done.
    #[pyo3(signature = (message, *args, **options))]
    fn critical(
        slf: &Bound<'_, Self>,
        message: &Bound<'_, PyAny>,
        args: &Bound<'_, PyTuple>,
        options: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Py<PyReady>> {
        say(slf, 50, message, args, options)
    }

    #[allow(clippy::needless_pass_by_value)] // PyO3's signature
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Ok(route) = self.route.try_read() {
            for handler in route.handlers.iter().flatten() {
                visit.call(handler)?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        self.replace(Route::default());
    }
}

impl DirectLogger {
    fn replace(&self, route: Route) {
        let mut slot = self.route.write().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *slot, Arc::new(route));
        // Outside the lock: dropping a handler runs Python.
        drop(slot);
        drop(before);
    }
}

fn say(
    slf: &Bound<'_, DirectLogger>,
    level: i64,
    message: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    options: Option<&Bound<'_, PyDict>>,
) -> PyResult<Py<PyReady>> {
    let py = slf.py();
    let logger = slf.get();
    // A writer never holds the lock for longer than a swap.
    let route = Arc::clone(&logger.route.read().unwrap_or_else(PoisonError::into_inner));
    if level < route.level {
        return ready(py);
    }
    let mut direct = false;
    if let (Some(handlers), None) = (&route.handlers, options) {
        let created = SystemTime::now().duration_since(UNIX_EPOCH);
        let fields = Fields {
            name: logger.name.bind(py).to_str()?,
            level,
            message,
            args,
            created: created.unwrap_or_default().as_secs_f64(),
        };
        direct = match handlers.as_slice() {
            [handler] => LogHandler::emit_fields(handler.bind(py), &fields)?,
            // A message is merged once; several handlers share a record.
            _ => false,
        };
    }
    if !direct {
        slf.call_method1(
            names(py).by_record.bind(py),
            (level, message, args, options),
        )?;
    }
    ready(py)
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("READY", ready(m.py())?)?;
    m.add_class::<DirectLogger>()
}
