//! Short cuts: hot methods as C functions of our own, in the place of `PyO3`'s.
//!
//! `PyO3`'s wrapper costs more than taking a token (`benches/instructions.py`):
//! it sorts arguments by name, keeps count of attached threads, and locks a pool
//! of late drops. A short cut takes the usual case alone, in which nothing runs
//! Python code or raises. All else goes on to the method that `PyO3` made, so
//! that arguments are checked and errors made in one place.
#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::types::PyInt;
use pyo3::{Borrowed, PyClass, ffi};

/// `METH_FASTCALL | METH_KEYWORDS`, as `PyO3` makes methods with arguments.
pub(crate) type Function = ffi::PyCFunctionFastWithKeywords;

/// Where the function is kept that `PyO3` made.
pub(crate) type Made = OnceLock<Function>;

/// A method's usual case.
pub(crate) trait Shortcut {
    /// Whose method it is.
    type Class: PyClass<Frozen = True> + Sync;
    /// The method.
    const NAME: &'static str;

    /// The answer to these positional arguments. None where this is not the
    /// usual case: then nothing was done, and nothing counted.
    ///
    /// Must drop no `Py` where it answers: the thread does not count as attached
    /// for `PyO3`, which would put the drop off until its own method runs.
    fn usual<'py>(
        slf: Borrowed<'_, 'py, Self::Class>,
        arguments: &[Borrowed<'_, 'py, PyAny>],
    ) -> Option<Bound<'py, PyAny>>;

    /// A static of its own.
    fn made() -> &'static Made;
}

/// An exact `int` from 0 to `i64::MAX`; None for anything else.
#[inline]
pub(crate) fn whole(given: &Bound<'_, PyAny>) -> Option<u64> {
    given.cast_exact::<PyInt>().ok()?;
    let mut overflow = 0;
    // SAFETY: attached, and an exact int runs no code and raises nothing here.
    let value = unsafe { ffi::PyLong_AsLongLongAndOverflow(given.as_ptr(), &raw mut overflow) };
    u64::try_from(value).ok()
}

/// What the method returns, as a new reference; null with an error set. Called by
/// the interpreter, or by what works for one of its objects; see `Shortcut`.
///
/// # Safety
///
/// The thread is attached, `slf` is an `S::Class`, and `arguments` are what the
/// interpreter passes such a method: `count` objects, then one for each of `names`.
pub(crate) unsafe extern "C" fn enter<S: Shortcut>(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // A panic must not reach C. The method of `PyO3` then does its work anew,
    // and makes an exception of what panics again.
    // SAFETY: the caller's promises are the same.
    let usual = move || unsafe { answer::<S>(slf, arguments, count) };
    if names.is_null()
        && let Ok(Some(answer)) = catch_unwind(AssertUnwindSafe(usual))
    {
        return answer;
    }
    // SAFETY: the caller's promises are the same.
    unsafe { forward::<S>(slf, arguments, count, names) }
}

/// The method of `PyO3`. Apart, so that the usual case saves no registers for it.
///
/// # Safety
///
/// As `enter`.
#[cold]
unsafe fn forward<S: Shortcut>(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let made = S::made().get().expect("kept by `install`");
    // SAFETY: the arguments are those given to us, for this very method.
    unsafe { made(slf, arguments, count, names) }
}

/// # Safety
///
/// As `enter`, without names.
#[inline]
unsafe fn answer<S: Shortcut>(
    slf: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> Option<*mut ffi::PyObject> {
    // SAFETY: the thread is attached and `slf` of the class, as CPython's method
    // descriptor checks. All arguments outlive the call, and a `Borrowed` is a
    // pointer to an object (`repr(transparent)`).
    unsafe {
        let py = Python::assume_attached();
        let slf = Borrowed::from_ptr(py, slf).cast_unchecked::<S::Class>();
        let given: &[Borrowed<'_, '_, PyAny>] = match count {
            0 => &[], // The pointer may be null.
            _ => std::slice::from_raw_parts(arguments.cast(), count as usize),
        };
        S::usual(slf, given).map(Bound::into_ptr)
    }
}

/// Put the short cut in its place. Called once, when the module is made.
pub(crate) fn install<S: Shortcut>(py: Python<'_>) -> PyResult<()> {
    const FLAGS: i32 = ffi::METH_FASTCALL | ffi::METH_KEYWORDS;
    let class = py.get_type::<S::Class>();
    let method = class.getattr(S::NAME)?;
    // SAFETY: attached. The type is compared exactly before the object is read
    // as one, and a descriptor's definition lives as long as its class: for ever.
    let definition = unsafe {
        let exact = ffi::Py_TYPE(method.as_ptr()) == &raw mut ffi::PyMethodDescr_Type;
        let descriptor = method.as_ptr().cast::<ffi::PyMethodDescrObject>();
        exact.then(|| (*descriptor).d_method.read())
    };
    let definition = definition
        .filter(|definition| definition.ml_flags == FLAGS)
        .ok_or_else(|| PyTypeError::new_err(format!("{} is no fast method", S::NAME)))?;
    // SAFETY: the flags tell which of the union it is.
    S::made().get_or_init(|| unsafe { definition.ml_meth.PyCFunctionFastWithKeywords });
    // Its name, signature and docstring stay.
    let definition = Box::leak(Box::new(ffi::PyMethodDef {
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunctionFastWithKeywords: enter::<S>,
        },
        ..definition
    }));
    // SAFETY: `class` is a type, and the definition is never freed.
    let descriptor = unsafe {
        let made = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
        Bound::from_owned_ptr_or_err(py, made)?
    };
    class.setattr(S::NAME, descriptor)
}

/// An object whose `await` needs no wrapper.
pub(crate) trait Awaited: PyClass<Frozen = True> + Sync {
    /// The iterator that `__await__` returns.
    fn iterator(&self) -> &Py<PyAny>;
}

/// `__await__`, called by the interpreter.
unsafe extern "C" fn iterate<T: Awaited>(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython calls a type's slot with the thread attached and a live
    // object of the type; `iterator` only borrows.
    unsafe {
        let py = Python::assume_attached();
        let this = Borrowed::from_ptr(py, slf).cast_unchecked::<T>();
        ffi::Py_NewRef(this.get().iterator().as_ptr())
    }
}

/// Have `await` ask `iterate`. Called once, when the module is made.
pub(crate) fn install_await<T: Awaited>(py: Python<'_>) {
    let class = py.get_type::<T>().as_type_ptr();
    // SAFETY: `PyO3` made the type, on the heap and with this slot filled; no
    // other thread has seen it yet.
    unsafe {
        let slots = (*class).tp_as_async;
        debug_assert!(!slots.is_null(), "T has `__await__`");
        (*slots).am_await = Some(iterate::<T>);
    }
}
