//! Core errors to Python exceptions; the only such map.
//!
//! Each core module has one small error enum; a `From` here gives the
//! exception of `mtaio.exceptions` (or `ValueError`/`TypeError`/`OSError`) it
//! becomes.

#![allow(missing_docs)] // `import_exception!` writes undocumented types

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::probe::{BindError, FamilyError};

pyo3::import_exception!(mtaio.exceptions, CacheKeyError);
pyo3::import_exception!(mtaio.exceptions, HandlerError);
pyo3::import_exception!(mtaio.exceptions, ProbeError);
pyo3::import_exception!(mtaio.exceptions, RateLimitError);
pyo3::import_exception!(mtaio.exceptions, ResourceError);
pyo3::import_exception!(mtaio.exceptions, ResourceLimitError);

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
