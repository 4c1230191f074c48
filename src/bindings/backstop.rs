//! The end of a process that nothing else can end.

use std::time::Duration;

use pyo3::prelude::*;

use super::args::non_negative;
use crate::backstop;

/// End the process by `_exit` after `seconds`, whatever the interpreter does.
///
/// For good: it can't be taken back. Nothing is flushed or called.
///
/// Raises `OSError` when the thread for it can't be started.
#[pyfunction]
#[pyo3(signature = (seconds, code, /))]
fn exit_after(seconds: &Bound<'_, PyAny>, code: i32) -> PyResult<()> {
    let seconds = non_negative("seconds", seconds)?;
    // Past what a duration holds it would be the end of time anyway.
    let delay = Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX);
    Ok(backstop::exit_after(delay, code)?)
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(exit_after, m)?)
}
