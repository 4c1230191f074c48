//! Core errors to Python exceptions; the only such map.
//!
//! Each core module has one small error enum; a `From` here gives the
//! exception of `mtaio.exceptions` (or `ValueError`/`TypeError`/`OSError`) it
//! becomes.

#![allow(missing_docs)] // `import_exception!` writes undocumented types

pyo3::import_exception!(mtaio.exceptions, CacheKeyError);
