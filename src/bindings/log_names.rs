//! The attribute names that logging looks up, interned when the module loads.
//!
//! `pyo3::intern!` interns on first use and lets go of the GIL in between: a
//! fork at that instant leaves a half-made name in the child, which would wait
//! for it for ever. Whatever a record meets is therefore made beforehand.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

/// One field per name; dunder and leading underscore left out.
pub(super) struct Names {
    pub(super) main_process: Py<PyString>,
    pub(super) args: Py<PyString>,
    pub(super) asyncio: Py<PyString>,
    pub(super) by_record: Py<PyString>,
    pub(super) converter: Py<PyString>,
    pub(super) created: Py<PyString>,
    pub(super) current_process: Py<PyString>,
    pub(super) current_task: Py<PyString>,
    pub(super) datefmt: Py<PyString>,
    pub(super) default_msec_format: Py<PyString>,
    pub(super) default_time_format: Py<PyString>,
    pub(super) defaults: Py<PyString>,
    pub(super) dict: Py<PyString>,
    pub(super) emit: Py<PyString>,
    pub(super) exc_info: Py<PyString>,
    pub(super) exc_text: Py<PyString>,
    pub(super) filename: Py<PyString>,
    pub(super) filter: Py<PyString>,
    pub(super) filters: Py<PyString>,
    pub(super) fmt: Py<PyString>,
    pub(super) formatter: Py<PyString>,
    pub(super) func_name: Py<PyString>,
    pub(super) get_name: Py<PyString>,
    pub(super) get_running_loop: Py<PyString>,
    pub(super) level: Py<PyString>,
    pub(super) levelname: Py<PyString>,
    pub(super) levelno: Py<PyString>,
    pub(super) lineno: Py<PyString>,
    pub(super) module: Py<PyString>,
    pub(super) msecs: Py<PyString>,
    pub(super) msg: Py<PyString>,
    pub(super) multiprocessing: Py<PyString>,
    pub(super) name: Py<PyString>,
    pub(super) own_name: Py<PyString>,
    pub(super) pathname: Py<PyString>,
    pub(super) process: Py<PyString>,
    pub(super) process_name: Py<PyString>,
    pub(super) relative_created: Py<PyString>,
    pub(super) rescue: Py<PyString>,
    pub(super) stack_info: Py<PyString>,
    pub(super) style: Py<PyString>,
    pub(super) task_name: Py<PyString>,
    pub(super) tell_dropped: Py<PyString>,
    pub(super) thread: Py<PyString>,
    pub(super) thread_name: Py<PyString>,
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
            thread: name("thread"),
            thread_name: name("threadName"),
        }
    }
}

/// The names; made by `register`, so that this never waits.
#[inline]
pub(super) fn names(py: Python<'_>) -> &'static Names {
    static NAMES: PyOnceLock<Names> = PyOnceLock::new();
    NAMES.get_or_init(py, || Names::new(py))
}
