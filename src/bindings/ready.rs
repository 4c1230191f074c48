//! An awaitable that has already finished.

// Python's calling convention, not Rust's, decides what the methods take.
#![allow(clippy::needless_pass_by_value, clippy::unused_self)]

use super::hot;
use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;

/// A finished awaitable: `await` gives None at once.
///
/// One object is shared by all who need it; it never changes. It is also its own
/// iterator (asyncio's wrappers on 3.11 iterate) and has the methods of a
/// coroutine, so that `create_task` takes it.
#[pyclass(frozen, name = "Ready", module = "mtaio._rust")]
pub(crate) struct PyReady {
    /// An iterator of the interpreter's own that is at its end: `await` asks it
    /// without coming back through the binding, a fifth of the whole `await`.
    end: Py<PyAny>,
}

#[pymethods]
impl PyReady {
    fn __await__(&self, py: Python<'_>) -> Py<PyAny> {
        self.end.clone_ref(py)
    }

    fn __iter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    fn __next__(&self) -> Option<()> {
        None
    }

    /// Finish, as a coroutine that returns None does.
    fn send(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = value;
        Err(PyStopIteration::new_err(()))
    }

    /// Raise what is thrown in.
    #[pyo3(signature = (r#type, value = None, traceback = None))]
    fn throw(
        &self,
        r#type: &Bound<'_, PyAny>,
        value: Option<&Bound<'_, PyAny>>,
        traceback: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let _ = traceback;
        let raised = match value {
            Some(value) => value.clone(),
            None if r#type.is_instance_of::<pyo3::types::PyType>() => r#type.call0()?,
            None => r#type.clone(),
        };
        Err(PyErr::from_value(raised))
    }

    /// Nothing to close.
    fn close(&self) {}
}

impl hot::Awaited for PyReady {
    #[inline]
    fn iterator(&self) -> &Py<PyAny> {
        &self.end
    }
}

static READY: PyOnceLock<Py<PyReady>> = PyOnceLock::new();

/// The shared object, where the module was made: then it is there.
#[inline]
pub(crate) fn shared(py: Python<'_>) -> Option<Bound<'_, PyAny>> {
    let ready = READY.get(py)?;
    Some(ready.bind(py).clone().into_any())
}

/// The shared object.
pub(crate) fn ready(py: Python<'_>) -> PyResult<Py<PyReady>> {
    READY
        .get_or_try_init(py, || {
            let mut end = PyTuple::empty(py).try_iter()?;
            // Past its end it holds nothing and can only say so again.
            while end.next().is_some() {}
            let end = end.into_any().unbind();
            Py::new(py, PyReady { end })
        })
        .map(|shared| shared.clone_ref(py))
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyReady>()?;
    hot::install_await::<PyReady>(m.py());
    ready(m.py()).map(|_| ())
}
