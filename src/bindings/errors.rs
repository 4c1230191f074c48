//! Core errors to Python exceptions; the only such map.
//!
//! Each core module has one small error enum; a `From` here gives the
//! exception of `mtaio.exceptions` (or `ValueError`/`TypeError`/`OSError`) it
//! becomes.

#![allow(missing_docs)] // `import_exception!` writes undocumented types

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::type_object::PyTypeInfo;

use crate::probe::{BindError, FamilyError};

pyo3::import_exception!(mtaio.exceptions, CacheKeyError);
pyo3::import_exception!(mtaio.exceptions, HandlerError);
pyo3::import_exception!(mtaio.exceptions, ProbeError);
pyo3::import_exception!(mtaio.exceptions, RateLimitError);
pyo3::import_exception!(mtaio.exceptions, ResourceError);
pyo3::import_exception!(mtaio.exceptions, ResourceLimitError);

/// Imports the exceptions now: a fork during the first use of one would harm
/// the child (see `names`).
pub(crate) fn register(m: &Bound<'_, PyModule>) {
    let py = m.py();
    CacheKeyError::type_object(py);
    HandlerError::type_object(py);
    ProbeError::type_object(py);
    RateLimitError::type_object(py);
    ResourceError::type_object(py);
    ResourceLimitError::type_object(py);
}

impl From<FamilyError> for PyErr {
    fn from(error: FamilyError) -> Self {
        PyValueError::new_err(error.to_string())
    }
}

impl From<BindError> for PyErr {
    fn from(error: BindError) -> Self {
        // A name that can't be resolved has no number; 0 stands for none.
        let number = error.source.raw_os_error().unwrap_or(0);
        ProbeError::new_err((number, error.to_string()))
    }
}
