//! Core errors to Python exceptions; the only such map.
//!
//! Each core module has one small error enum; a `From` here gives the
//! exception of `mtaio.exceptions` (or `ValueError`/`TypeError`/`OSError`) it
//! becomes.

#![allow(missing_docs)] // `import_exception!` writes undocumented types

pyo3::import_exception!(mtaio.exceptions, CacheKeyError);
pyo3::import_exception!(mtaio.exceptions, HandlerError);
pyo3::import_exception!(mtaio.exceptions, ProbeError);
pyo3::import_exception!(mtaio.exceptions, RateLimitError);
pyo3::import_exception!(mtaio.exceptions, ResourceError);
pyo3::import_exception!(mtaio.exceptions, ResourceLimitError);
