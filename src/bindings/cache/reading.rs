//! What `cache.get(key)` returns: an awaitable that has its answer at once.
//!
//! It looks the key up when it is awaited, as a coroutine would, and every time
//! it is. Half the cost of such an `await` under `CPython` 3.12 to 3.14 is the
//! `StopIteration` that carries the value out, so a used awaitable is laid by for
//! the next `get` together with its `StopIteration`, if nobody else holds on to
//! that. From 3.15 on, and on 3.11, `am_send` hands the value out without one.
//!
//! There is no `tp_clear`: like a tuple it holds what it was made with, so that any
//! cycle goes through something else that can be cleared.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicPtr, Ordering};

use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

use super::PyCache;
use super::hot::GetNowait;
use crate::bindings::hot;

/// Without the GIL another thread may be reading what would be used again, and
/// freed memory must wait for it: then nothing is. Such a build's objects begin
/// with more than a count and a type.
const REUSES: bool = size_of::<ffi::PyObject>() == 2 * size_of::<usize>();

#[repr(C)]
struct Reading {
    head: ffi::PyObject,
    cache: *mut ffi::PyObject,
    /// Key and default: the arguments of `get_nowait`.
    asked: [*mut ffi::PyObject; 2],
    /// The `StopIteration` of the last time, without a value between two uses.
    end: *mut ffi::PyObject,
}

static TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(null_mut());
/// One that was used, with no owner: a place for all threads, since mostly one
/// is awaited before the next is made.
static SPARE: AtomicPtr<Reading> = AtomicPtr::new(null_mut());

/// An awaitable of `cache.get(key, default)`.
#[inline]
pub(super) fn new<'py>(
    cache: Borrowed<'_, 'py, PyCache>,
    key: Borrowed<'_, 'py, PyAny>,
    default: Option<Borrowed<'_, 'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let kind = TYPE.load(Ordering::Relaxed);
    let spare = SPARE.swap(null_mut(), Ordering::Acquire);
    // SAFETY: attached, as the handles show, which keep their objects alive.
    // The spare one belongs to nobody but us since the swap. It is memory of
    // `kind`, untracked and with a count of 0, which `PyObject_Init` makes an
    // object again. `PyType_GenericAlloc` gives nulls in all fields.
    unsafe {
        let (object, tracked) = if spare.is_null() {
            (ffi::PyType_GenericAlloc(kind, 0), true)
        } else {
            (ffi::PyObject_Init(spare.cast(), kind), false)
        };
        let made = Bound::from_owned_ptr_or_err(cache.py(), object)?;
        let reading = object.cast::<Reading>();
        let default = default.map_or_else(|| ffi::Py_None(), Borrowed::as_ptr);
        (*reading).cache = ffi::Py_NewRef(cache.as_ptr());
        (*reading).asked = [ffi::Py_NewRef(key.as_ptr()), ffi::Py_NewRef(default)];
        if !tracked {
            ffi::PyObject_GC_Track(object.cast());
        }
        Ok(made)
    }
}

/// The value, as a new reference, or null with an error set.
#[inline]
unsafe fn value(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    let reading = slf.cast::<Reading>();
    // SAFETY: `slf` is one of ours, alive during its own method, and it holds the
    // cache and the two arguments as long as it lives.
    unsafe {
        let asked = (&raw const (*reading).asked).cast();
        hot::enter::<GetNowait>((*reading).cache, asked, 2, null_mut())
    }
}

/// `__await__` and `__iter__`.
unsafe extern "C" fn itself(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython passes a live object.
    unsafe { ffi::Py_NewRef(slf) }
}

unsafe extern "C" fn send_slot(
    slf: *mut ffi::PyObject,
    _sent: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> ffi::PySendResult {
    // SAFETY: CPython passes one of ours and a place for the result.
    unsafe {
        *result = value(slf);
        if (*result).is_null() {
            return ffi::PySendResult::PYGEN_ERROR;
        }
    }
    ffi::PySendResult::PYGEN_RETURN
}

/// Ends the iteration with the value: null, and a `StopIteration` that has it.
unsafe extern "C" fn next(slf: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython passes one of ours; each reference made here is given to
    // the exception or dropped.
    unsafe {
        let value = value(slf);
        if value.is_null() {
            return value;
        }
        let end = end_of(slf.cast());
        if end.is_null() {
            ffi::Py_DECREF(value);
            return end;
        }
        let place = &raw mut (*end.cast::<ffi::PyStopIterationObject>()).value;
        let old = place.replace(value);
        raise(end);
        ffi::Py_XDECREF(old);
    }
    null_mut()
}

/// `send(value)`: what a coroutine does that returns the value.
unsafe extern "C" fn send(
    slf: *mut ffi::PyObject,
    _sent: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as `next`.
    unsafe { next(slf) }
}

/// A new reference to a `StopIteration` that nobody else holds, or null.
unsafe fn end_of(reading: *mut Reading) -> *mut ffi::PyObject {
    // SAFETY: under the GIL nobody changes `end` between these steps; without it
    // (`REUSES`) it is always null.
    unsafe {
        let kept = (*reading).end;
        if !kept.is_null() && is_fresh(kept) {
            return ffi::Py_NewRef(kept);
        }
        let made = ffi::PyObject_CallNoArgs(ffi::PyExc_StopIteration);
        if REUSES && !made.is_null() {
            let place = &raw mut (*reading).end;
            ffi::Py_XDECREF(place.replace(ffi::Py_NewRef(made)));
        }
        made
    }
}

/// Whether a kept `StopIteration` is as it was made: not held by anybody who
/// caught it, and not marked by a way it took.
unsafe fn is_fresh(kept: *mut ffi::PyObject) -> bool {
    let error = kept.cast::<ffi::PyBaseExceptionObject>();
    // SAFETY: `kept` was made by `end_of`: an exact `StopIteration`.
    unsafe {
        ffi::Py_REFCNT(kept) == 1
            && (*error).dict.is_null()
            && (*error).notes.is_null()
            && (*error).traceback.is_null()
            && (*error).context.is_null()
            && (*error).cause.is_null()
    }
}

/// Sets `error`, whose reference it takes.
unsafe fn raise(error: *mut ffi::PyObject) {
    // What `PyErr_SetRaisedException` does, which 3.11 lacks.
    #[allow(deprecated)]
    // SAFETY: a live exception; both references are given away.
    unsafe {
        let kind = ffi::Py_NewRef(ffi::Py_TYPE(error).cast());
        ffi::PyErr_Restore(kind, error, null_mut());
    }
}

/// `throw(type, value=None, traceback=None)`: raises what is thrown in.
unsafe extern "C" fn throw(
    _slf: *mut ffi::PyObject,
    arguments: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: CPython passes `count` live arguments.
    unsafe {
        if !(1..=3).contains(&count) {
            let text = c"throw() takes from 1 to 3 arguments";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
            return null_mut();
        }
        let mut thrown = *arguments;
        if count > 1 && *arguments.add(1) != ffi::Py_None() {
            thrown = *arguments.add(1);
        }
        if ffi::PyExceptionInstance_Check(thrown) != 0 {
            ffi::PyErr_SetObject(ffi::Py_TYPE(thrown).cast(), thrown);
        } else if ffi::PyExceptionClass_Check(thrown) != 0 {
            ffi::PyErr_SetNone(thrown);
        } else {
            let text = c"exceptions must be classes or instances deriving from BaseException";
            ffi::PyErr_SetString(ffi::PyExc_TypeError, text.as_ptr());
        }
    }
    null_mut()
}

/// `close()`: nothing to close.
unsafe extern "C" fn close(
    _slf: *mut ffi::PyObject,
    _unused: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: None is always there.
    unsafe { ffi::Py_NewRef(ffi::Py_None()) }
}

unsafe extern "C" fn traverse(
    slf: *mut ffi::PyObject,
    visit: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    let reading = slf.cast::<Reading>();
    // SAFETY: the collector passes one of ours, and `visit` takes live objects.
    unsafe {
        let held = [
            ffi::Py_TYPE(slf).cast(),
            (*reading).cache,
            (*reading).asked[0],
            (*reading).asked[1],
            (*reading).end,
        ];
        for object in held.into_iter().filter(|object| !object.is_null()) {
            let stop = visit(object, argument);
            if stop != 0 {
                return stop;
            }
        }
    }
    0
}

unsafe extern "C" fn dealloc(slf: *mut ffi::PyObject) {
    let reading = slf.cast::<Reading>();
    // SAFETY: nobody refers to `slf` any more. It is out of the collector's sight
    // before what it holds is let go of, which may run any code, this too: a long
    // chain of them, each the default of the next, goes as deep into the stack as
    // one of coroutines. The type is let go of last: each object holds it.
    unsafe {
        ffi::PyObject_GC_UnTrack(slf.cast());
        let kind = ffi::Py_TYPE(slf);
        for place in [
            &raw mut (*reading).cache,
            &raw mut (*reading).asked[0],
            &raw mut (*reading).asked[1],
        ] {
            ffi::Py_XDECREF(place.replace(null_mut()));
        }
        if !lay_by(reading) {
            ffi::Py_XDECREF((*reading).end);
            ffi::PyObject_GC_Del(slf.cast());
        }
        ffi::Py_DECREF(kind.cast());
    }
}

/// Keeps a dead one for the next `get` if it is worth it and there is room.
unsafe fn lay_by(reading: *mut Reading) -> bool {
    // SAFETY: `reading` is one of ours that nobody refers to.
    unsafe {
        let end = (*reading).end;
        if end.is_null() || !is_fresh(end) {
            return false;
        }
        // The value must not live on in here.
        let place = &raw mut (*end.cast::<ffi::PyStopIterationObject>()).value;
        ffi::Py_XDECREF(place.replace(null_mut()));
    }
    let (empty, order) = (null_mut(), Ordering::Release);
    SPARE
        .compare_exchange(empty, reading, order, Ordering::Relaxed)
        .is_ok()
}

fn method(
    name: &'static std::ffi::CStr,
    function: ffi::PyMethodDefPointer,
    flags: c_int,
) -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: name.as_ptr(),
        ml_meth: function,
        ml_flags: flags,
        ml_doc: std::ptr::null(),
    }
}

fn slot(slot: c_int, pfunc: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
}

/// Makes the type; to be called once, when the module is made.
pub(super) fn prepare(py: Python<'_>) -> PyResult<()> {
    let methods = Box::leak(Box::new([
        method(
            c"send",
            ffi::PyMethodDefPointer { PyCFunction: send },
            ffi::METH_O,
        ),
        method(
            c"throw",
            ffi::PyMethodDefPointer {
                PyCFunctionFast: throw,
            },
            ffi::METH_FASTCALL,
        ),
        method(
            c"close",
            ffi::PyMethodDefPointer { PyCFunction: close },
            ffi::METH_NOARGS,
        ),
        ffi::PyMethodDef::zeroed(),
    ]));
    let mut slots = [
        slot(ffi::Py_am_await, itself as *mut c_void),
        slot(ffi::Py_am_send, send_slot as *mut c_void),
        slot(ffi::Py_tp_iter, itself as *mut c_void),
        slot(ffi::Py_tp_iternext, next as *mut c_void),
        slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(0, null_mut()),
    ];
    let flags = ffi::Py_TPFLAGS_DEFAULT
        | ffi::Py_TPFLAGS_HAVE_GC
        | ffi::Py_TPFLAGS_IMMUTABLETYPE
        | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let mut spec = ffi::PyType_Spec {
        name: c"mtaio._rust.Reading".as_ptr(),
        basicsize: c_int::try_from(size_of::<Reading>()).expect("it is a few words"),
        itemsize: 0,
        flags: flags as _,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: every slot has the function type CPython expects there, the method
    // table is never freed, and the rest is copied.
    let kind = unsafe {
        let made = ffi::PyType_FromSpec(&raw mut spec);
        Bound::from_owned_ptr_or_err(py, made)?
    };
    TYPE.store(kind.into_ptr().cast(), Ordering::Release);
    Ok(())
}
