//! The border: the only module that names `PyO3`.
//!
//! One file per core type. A binding converts, delegates and maps errors; one
//! that decides policy is core code misplaced.

pub(crate) mod alarm;
pub(crate) mod args;
mod backstop;
pub(crate) mod bucket;
mod cache;
pub(crate) mod clock;
pub(crate) mod errors;
pub(crate) mod family;
mod hot;
pub(crate) mod keyed;
pub(crate) mod log;
mod log_direct;
mod log_format;
mod log_json;
mod log_options;
mod log_record;
pub(crate) mod metrics;
mod names;
pub(crate) mod permits;
pub(crate) mod probe;
pub(crate) mod ready;
pub(crate) mod watchdog;
pub(crate) mod worker;

use pyo3::prelude::*;

/// The compiled half of mtaio; private, imported by the Python modules only.
#[pymodule(gil_used = false)]
fn _rust(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    // First: what every other one may look up.
    names::register(m);
    errors::register(m);
    args::register(m)?;
    alarm::register(m)?;
    backstop::register(m)?;
    bucket::register(m)?;
    cache::register(m)?;
    keyed::register(m)?;
    log::register(m)?;
    log_direct::register(m)?;
    log_record::register(m)?;
    metrics::register(m)?;
    permits::register(m)?;
    family::register(m)?;
    probe::register(m)?;
    ready::register(m)?;
    watchdog::register(m)?;
    worker::register(m)?;
    Ok(())
}
