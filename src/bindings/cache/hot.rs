//! `get_nowait` and `get` as C functions of our own, in the place of `PyO3`'s.
//!
//! `PyO3`'s wrapper costs more than the lookup it wraps (`benches/cache.py
//! calls`): it parses arguments, keeps count of attached threads and drains a
//! pool of late drops. The functions here take the usual case alone: positional
//! arguments, a key that is exactly `str`, `bytes` or `int`, the monotonic clock,
//! and an entry that is live or absent. Nothing in it runs Python code, fails or
//! drops an object, so nothing of that wrapper is needed. All else goes to the
//! method `PyO3` made, which is kept for it.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

use super::PyCache;
use super::key::{PyProbe, plain_hash};
use super::reading;
use crate::bindings::clock::{Clock, monotonic_ns};
use crate::cache::Read;

/// The methods `PyO3` made, for all that is not the usual case.
static GET_NOWAIT: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
static GET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

const GET_NOWAIT_DOC: &CStr = c"get_nowait($self, key, default=None)
--

Return the live value of `key`, else `default`. Never waits.

Any thread may call.

Raises:
    TypeError: `key` is not hashable.
";
const GET_DOC: &CStr = c"get($self, key, default=None)
--

Return the live value of `key`, else `default`. Never waits.

To be awaited; looked up when it is awaited.

Raises:
    TypeError: `key` is not hashable.
";

/// The live value of `key` or `default`, as a new reference; null with an error
/// set.
///
/// # Safety
///
/// The thread is attached; `cache` is a `PyCache`, and all are live objects.
#[inline]
pub(super) unsafe fn read(
    cache: *mut ffi::PyObject,
    key: *mut ffi::PyObject,
    default: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // A panic would end the process at the border to C; so it is met again by
    // the method of `PyO3`, which makes an exception of it.
    // SAFETY: the caller's promises are the same.
    let found = catch_unwind(AssertUnwindSafe(|| unsafe { usual(cache, key, default) }));
    if let Ok(Some(value)) = found {
        return value;
    }
    // SAFETY: three live objects, as the caller promised.
    unsafe { call(&GET_NOWAIT, &[cache, key, default], std::ptr::null_mut()) }
}

/// The answer in the usual case; else `None`, and nothing was done or counted.
///
/// # Safety
///
/// As `read`.
#[inline]
unsafe fn usual(
    cache: *mut ffi::PyObject,
    key: *mut ffi::PyObject,
    default: *mut ffi::PyObject,
) -> Option<*mut ffi::PyObject> {
    // SAFETY: the thread is attached, and the objects outlive this call. The
    // token never leads to a drop: handles are borrowed or given away.
    let (cache, key) = unsafe {
        let py = Python::assume_attached();
        let cache = Borrowed::from_ptr(py, cache).cast_unchecked::<PyCache>();
        (cache, Borrowed::from_ptr(py, key))
    };
    let cache = cache.get();
    if !matches!(cache.clock, Clock::Monotonic) {
        return None;
    }
    let hash = plain_hash(&key)?;
    // SAFETY: the shard holds the value while it is read; the caller gets a
    // reference of its own.
    let read = |value: &Py<PyAny>| unsafe { ffi::Py_NewRef(value.as_ptr()) };
    let found = cache
        .core
        .get_at_once(hash, &PyProbe::new(&key), monotonic_ns, read)?;
    Some(match found {
        Read::Hit(value) => value,
        // SAFETY: `default` is a live object.
        _ => unsafe { ffi::Py_NewRef(default) },
    })
}

/// Calls a method that `PyO3` made.
///
/// # Safety
///
/// The thread is attached. `arguments` are live objects, `self` first, those
/// named by the tuple `names` (or null) last.
unsafe fn call(
    method: &PyOnceLock<Py<PyAny>>,
    arguments: &[*mut ffi::PyObject],
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `names` is null or a tuple; both functions only read.
    unsafe {
        let py = Python::assume_attached();
        let method = method.get(py).expect("kept when the module was made");
        let given = arguments.len() - count_of(names);
        ffi::PyObject_Vectorcall(method.as_ptr(), arguments.as_ptr(), given, names)
    }
}

/// How many names there are in a tuple of them, or null.
unsafe fn count_of(names: *mut ffi::PyObject) -> usize {
    if names.is_null() {
        return 0;
    }
    // SAFETY: CPython passes a tuple.
    unsafe { ffi::PyTuple_GET_SIZE(names) as usize }
}

/// As `call`, with the arguments of a C function.
///
/// # Safety
///
/// The arguments are those `CPython` gave a function of `METH_FASTCALL |
/// METH_KEYWORDS`.
#[cold]
unsafe fn forward(
    method: &PyOnceLock<Py<PyAny>>,
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes `count` positional arguments, then one for each
    // name; with none of either the pointer may be null.
    unsafe {
        let mut all = vec![slf];
        let given = count as usize + count_of(names);
        all.extend((0..given).map(|at| *arguments.add(at)));
        call(method, &all, names)
    }
}

/// `key` and `default` where they are given by position, else `None`.
///
/// # Safety
///
/// As `forward`.
#[inline]
unsafe fn key_and_default(
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> Option<(*mut ffi::PyObject, *mut ffi::PyObject)> {
    if !names.is_null() {
        return None;
    }
    // SAFETY: CPython passes `count` arguments.
    unsafe {
        match count {
            1 => Some((*arguments, ffi::Py_None())),
            2 => Some((*arguments, *arguments.add(1))),
            _ => None,
        }
    }
}

unsafe extern "C" fn get_nowait(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the method descriptor has checked that `slf` is a `PyCache`, and
    // CPython calls with the thread attached and all arguments alive.
    unsafe {
        match key_and_default(arguments, count, names) {
            Some((key, default)) => read(slf, key, default),
            None => forward(&GET_NOWAIT, slf, arguments, count, names),
        }
    }
}

unsafe extern "C" fn get(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as in `get_nowait`.
    unsafe {
        match key_and_default(arguments, count, names) {
            Some((key, default)) => reading::new(slf, key, default),
            None => forward(&GET, slf, arguments, count, names),
        }
    }
}

/// Puts `function` in the place of the method of that name, which `kept` keeps.
fn replace(
    class: &Bound<'_, PyType>,
    name: &'static CStr,
    function: ffi::PyCFunctionFastWithKeywords,
    doc: &'static CStr,
    kept: &PyOnceLock<Py<PyAny>>,
) -> PyResult<()> {
    let py = class.py();
    let attribute = name.to_string_lossy();
    let attribute = attribute.as_ref();
    kept.get_or_try_init(py, || class.getattr(attribute).map(Bound::unbind))?;
    // Descriptors refer to their definition as long as the type lives: for ever.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: function,
        },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
        ml_doc: doc.as_ptr(),
    }));
    // SAFETY: `class` is a type object, and the definition is never freed.
    let descriptor = unsafe {
        let made = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
        Bound::from_owned_ptr_or_err(py, made)?
    };
    class.setattr(attribute, descriptor)
}

/// To be called once, when the module is made.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    reading::prepare(py)?;
    let class = py.get_type::<PyCache>();
    replace(
        &class,
        c"get_nowait",
        get_nowait,
        GET_NOWAIT_DOC,
        &GET_NOWAIT,
    )?;
    replace(&class, c"get", get, GET_DOC, &GET)
}
