//! The attribute names that the bindings look up, interned when the module loads.
//!
//! `pyo3::intern!` and `PyOnceLock` make on first use and let go of the GIL in
//! between: a fork at that instant leaves a half-made value in the child, which
//! would wait for it for ever. So a name has its place here, and whatever else
//! is made once is made in its module's `register`; `clippy.toml` forbids `intern!`.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

/// One field per name; dunder and leading underscore left out.
pub(crate) struct Names {
    pub(crate) main_process: Py<PyString>,
    pub(crate) args: Py<PyString>,
    pub(crate) asyncio: Py<PyString>,
    pub(crate) by_record: Py<PyString>,
    pub(crate) converter: Py<PyString>,
    pub(crate) created: Py<PyString>,
    pub(crate) current_process: Py<PyString>,
    pub(crate) current_task: Py<PyString>,
    pub(crate) datefmt: Py<PyString>,
    pub(crate) default_msec_format: Py<PyString>,
    pub(crate) default_time_format: Py<PyString>,
    pub(crate) defaults: Py<PyString>,
    pub(crate) dict: Py<PyString>,
    pub(crate) emit: Py<PyString>,
    pub(crate) exc_info: Py<PyString>,
    pub(crate) exc_text: Py<PyString>,
    pub(crate) filename: Py<PyString>,
    pub(crate) filter: Py<PyString>,
    pub(crate) filters: Py<PyString>,
    pub(crate) fmt: Py<PyString>,
    pub(crate) formatter: Py<PyString>,
    pub(crate) func_name: Py<PyString>,
    pub(crate) get_name: Py<PyString>,
    pub(crate) get_running_loop: Py<PyString>,
    pub(crate) level: Py<PyString>,
    pub(crate) levelname: Py<PyString>,
    pub(crate) levelno: Py<PyString>,
    pub(crate) lineno: Py<PyString>,
    pub(crate) module: Py<PyString>,
    pub(crate) msecs: Py<PyString>,
    pub(crate) msg: Py<PyString>,
    pub(crate) multiprocessing: Py<PyString>,
    pub(crate) name: Py<PyString>,
    pub(crate) own_name: Py<PyString>,
    pub(crate) pathname: Py<PyString>,
    pub(crate) process: Py<PyString>,
    pub(crate) process_name: Py<PyString>,
    pub(crate) relative_created: Py<PyString>,
    pub(crate) rescue: Py<PyString>,
    pub(crate) stack_info: Py<PyString>,
    pub(crate) style: Py<PyString>,
    pub(crate) task_name: Py<PyString>,
    pub(crate) tell_dropped: Py<PyString>,
    pub(crate) tend: Py<PyString>,
    pub(crate) thread: Py<PyString>,
    pub(crate) thread_name: Py<PyString>,
    pub(crate) wait: Py<PyString>,
}

impl Names {
    fn new(py: Python<'_>) -> Self {
        let name = |text: &str| PyString::intern(py, text).unbind();
        Self {
            main_process: name("MainProcess"),
            args: name("args"),
            asyncio: name("asyncio"),
            by_record: name("_by_record"),
            converter: name("converter"),
            created: name("created"),
            current_process: name("current_process"),
            current_task: name("current_task"),
            datefmt: name("datefmt"),
            default_msec_format: name("default_msec_format"),
            default_time_format: name("default_time_format"),
            defaults: name("_defaults"),
            dict: name("__dict__"),
            emit: name("emit"),
            exc_info: name("exc_info"),
            exc_text: name("exc_text"),
            filename: name("filename"),
            filter: name("filter"),
            filters: name("filters"),
            fmt: name("_fmt"),
            formatter: name("formatter"),
            func_name: name("funcName"),
            get_name: name("get_name"),
            get_running_loop: name("_get_running_loop"),
            level: name("level"),
            levelname: name("levelname"),
            levelno: name("levelno"),
            lineno: name("lineno"),
            module: name("module"),
            msecs: name("msecs"),
            msg: name("msg"),
            multiprocessing: name("multiprocessing"),
            name: name("name"),
            own_name: name("_name"),
            pathname: name("pathname"),
            process: name("process"),
            process_name: name("processName"),
            relative_created: name("relativeCreated"),
            rescue: name("_rescue"),
            stack_info: name("stack_info"),
            style: name("_style"),
            task_name: name("taskName"),
            tell_dropped: name("_tell_dropped"),
            tend: name("_tend"),
            thread: name("thread"),
            thread_name: name("threadName"),
            wait: name("_wait"),
        }
    }
}

/// The names; made by `register`, so that this never waits.
#[inline]
pub(crate) fn names(py: Python<'_>) -> &'static Names {
    static NAMES: PyOnceLock<Names> = PyOnceLock::new();
    NAMES.get_or_init(py, || Names::new(py))
}

pub(crate) fn register(m: &Bound<'_, PyModule>) {
    names(m.py());
}
