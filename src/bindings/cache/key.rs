//! Python objects as keys: what may be asked of them under a lock.
//!
//! `unsafe` is here alone: the checks below are a pointer comparison or a type
//! flag, for which `PyO3` has no safe call that is as cheap.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;

use crate::cache::Probe;

/// The types whose equality runs no Python code: `str`, `bytes` and `int`
/// themselves. A subclass may define `__eq__`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plain {
    Str,
    Bytes,
    Int,
}

impl Plain {
    #[inline]
    fn of(object: *mut ffi::PyObject) -> Option<Self> {
        // SAFETY: the callers hold a reference to `object`; each call compares
        // its type pointer, which never changes for objects of these types.
        unsafe {
            if ffi::PyUnicode_CheckExact(object) != 0 {
                Some(Self::Str)
            } else if ffi::PyLong_CheckExact(object) != 0 {
                Some(Self::Int)
            } else if ffi::PyBytes_CheckExact(object) != 0 {
                Some(Self::Bytes)
            } else {
                None
            }
        }
    }
}

/// A key that is looked for.
pub(super) struct PyProbe<'a, 'py> {
    key: &'a Bound<'py, PyAny>,
}

impl<'a, 'py> PyProbe<'a, 'py> {
    pub(super) fn new(key: &'a Bound<'py, PyAny>) -> Self {
        Self { key }
    }
}

impl Probe<Py<PyAny>> for PyProbe<'_, '_> {
    type Error = PyErr;

    #[inline]
    fn is(&self, held: &Py<PyAny>) -> bool {
        self.key.as_ptr() == held.as_ptr()
    }

    fn same(one: &Py<PyAny>, other: &Py<PyAny>) -> bool {
        one.as_ptr() == other.as_ptr()
    }

    #[inline]
    fn plainly_equals(&self, held: &Py<PyAny>) -> Option<bool> {
        let kind = Plain::of(self.key.as_ptr())?;
        if kind != Plain::of(held.as_ptr())? {
            return Some(false);
        }
        // SAFETY: both are objects of the same exact built-in type, alive while
        // `self` and the shard hold them, and this thread is attached. Their
        // comparison runs no Python code; it cannot fail but for a broken
        // interpreter, and then "different" is a miss, not a wrong answer.
        let equal =
            unsafe { ffi::PyObject_RichCompareBool(self.key.as_ptr(), held.as_ptr(), ffi::Py_EQ) };
        Some(equal == 1)
    }

    fn share(&self, held: &Py<PyAny>) -> Py<PyAny> {
        held.clone_ref(self.key.py())
    }

    fn ask(&self, held: &Py<PyAny>) -> PyResult<bool> {
        // The order of a dict: the held key's `__eq__` goes first.
        held.bind(self.key.py()).eq(self.key)
    }
}

/// The hash of a key whose hashing and equality run no Python code, else `None`.
#[inline]
pub(super) fn plain_hash(key: &Bound<'_, PyAny>) -> Option<u64> {
    Plain::of(key.as_ptr())?;
    // SAFETY: a live object of a type whose hash can't fail, and this thread is
    // attached.
    Some(unsafe { ffi::PyObject_Hash(key.as_ptr()) } as u64)
}

/// Whether the collector must visit `object`: its type takes part in collection.
#[inline]
pub(super) fn is_collected(object: &Bound<'_, PyAny>) -> bool {
    // SAFETY: `object` is a live reference, and a type's flags are set before
    // its first object is made.
    unsafe { ffi::PyType_HasFeature(ffi::Py_TYPE(object.as_ptr()), ffi::Py_TPFLAGS_HAVE_GC) != 0 }
}
