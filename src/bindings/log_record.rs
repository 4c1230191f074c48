//! `make_record`: `logging.LogRecord` without its constructor's Python.
//!
//! Makes exactly a `LogRecord` with the attributes that the constructor would
//! set, from the same sources. What rarely changes is looked up once: the
//! module's `log…` switches at import, a thread's object when it logs first, a
//! file's name when it is first seen.

use std::cell::OnceCell;
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyList, PyMapping, PyString, PyTuple, PyType};

use super::names::names;

/// Files whose names are kept; beyond, all are forgotten.
const MOST_FILES: usize = 4096;

thread_local! {
    /// This thread's identity and its `threading.Thread`.
    static THREAD: OnceCell<(Py<PyAny>, Py<PyAny>)> = const { OnceCell::new() };
}

#[allow(clippy::struct_excessive_bools)] // the switches of `logging`
struct Switches {
    threads: bool,
    processes: bool,
    process_names: bool,
    /// Since 3.12.
    tasks: bool,
}

/// What all records of the process share.
struct Factory {
    class: Py<PyType>,
    /// `object.__new__`.
    blank: Py<PyAny>,
    /// The attributes in the constructor's order, all None.
    template: Py<PyDict>,
    level_names: Py<PyDict>,
    modules: Py<PyDict>,
    files: Py<PyDict>,
    /// When `logging` was loaded, in seconds since the epoch.
    start: f64,
    switches: Switches,
}

/// A `LogRecord` as `logging.LogRecord(...)` makes it, for
/// `logging.setLogRecordFactory`. The switches `logging.logThreads` and so on
/// are read when mtaio is imported.
#[pyfunction]
#[pyo3(signature = (name, level, pathname, lineno, msg, args, exc_info, func = None, sinfo = None, **_rest))]
#[allow(clippy::too_many_arguments)] // `logging` fixes them
fn make_record<'py>(
    py: Python<'py>,
    name: &Bound<'py, PyAny>,
    level: &Bound<'py, PyAny>,
    pathname: &Bound<'py, PyAny>,
    lineno: &Bound<'py, PyAny>,
    msg: &Bound<'py, PyAny>,
    args: &Bound<'py, PyAny>,
    exc_info: &Bound<'py, PyAny>,
    func: Option<&Bound<'py, PyAny>>,
    sinfo: Option<&Bound<'py, PyAny>>,
    _rest: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyAny>> {
    let factory = Factory::get(py)?;
    let record = factory.template.bind(py).copy()?;
    let none = py.None().into_bound(py);
    record.set_item(names(py).name.bind(py), name)?;
    record.set_item(names(py).msg.bind(py), msg)?;
    record.set_item(names(py).args.bind(py), only_mapping(args)?)?;
    record.set_item(names(py).levelname.bind(py), factory.level_name(level)?)?;
    record.set_item(names(py).levelno.bind(py), level)?;
    record.set_item(names(py).pathname.bind(py), pathname)?;
    factory.set_file(&record, pathname)?;
    record.set_item(names(py).exc_info.bind(py), exc_info)?;
    record.set_item(names(py).stack_info.bind(py), sinfo.unwrap_or(&none))?;
    record.set_item(names(py).lineno.bind(py), lineno)?;
    record.set_item(names(py).func_name.bind(py), func.unwrap_or(&none))?;
    factory.set_time(&record)?;
    factory.set_thread(&record)?;
    factory.set_process(&record)?;
    // One dict put in place costs half of what twenty attributes do.
    let made = factory.blank.bind(py).call1((factory.class.bind(py),))?;
    made.setattr(names(py).dict.bind(py), record)?;
    Ok(made)
}

/// A mapping that is the only argument stands for itself.
fn only_mapping<'py>(args: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if let Ok(tuple) = args.cast_exact::<PyTuple>()
        && tuple.len() == 1
    {
        let only = tuple.get_item(0)?;
        // Asking an abstract class is dear, and most arguments are these.
        let plain = only.is_exact_instance_of::<PyString>()
            || only.is_exact_instance_of::<PyInt>()
            || only.is_exact_instance_of::<PyFloat>();
        if !plain && only.cast::<PyMapping>().is_ok() && only.is_truthy()? {
            return Ok(only);
        }
    }
    Ok(args.clone())
}

impl Factory {
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        static FACTORY: PyOnceLock<Factory> = PyOnceLock::new();
        FACTORY.get_or_try_init(py, || Self::new(py))
    }

    fn new(py: Python<'_>) -> PyResult<Self> {
        let logging = py.import("logging")?;
        let switch = |name: &str| -> PyResult<bool> {
            match logging.getattr_opt(name)? {
                Some(switch) => switch.is_truthy(),
                None => Ok(false),
            }
        };
        let first = logging.call_method1("LogRecord", ("", 0, "", 0, "", (), py.None()))?;
        let template = first.getattr("__dict__")?.cast_into::<PyDict>()?.copy()?;
        for name in template.keys() {
            template.set_item(name, py.None())?;
        }
        // Has the abstract class looked up that `only_mapping` asks.
        let _ = PyList::empty(py).cast::<PyMapping>();
        let start: f64 = logging.getattr("_startTime")?.extract()?;
        Ok(Self {
            class: logging.getattr("LogRecord")?.cast_into()?.unbind(),
            template: template.unbind(),
            blank: py.get_type::<PyAny>().getattr("__new__")?.unbind(),
            level_names: logging.getattr("_levelToName")?.cast_into()?.unbind(),
            modules: py.import("sys")?.getattr("modules")?.cast_into()?.unbind(),
            files: PyDict::new(py).unbind(),
            // Nanoseconds since 3.13.
            start: if start > 1e15 { start / 1e9 } else { start },
            switches: Switches {
                threads: switch("logThreads")?,
                processes: switch("logProcesses")?,
                process_names: switch("logMultiprocessing")?,
                tasks: switch("logAsyncioTasks")?,
            },
        })
    }

    fn level_name<'py>(&self, level: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = level.py();
        match self.level_names.bind(py).get_item(level)? {
            Some(name) => Ok(name),
            None => py.import("logging")?.call_method1("getLevelName", (level,)),
        }
    }

    fn set_file(&self, record: &Bound<'_, PyDict>, pathname: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = record.py();
        let files = self.files.bind(py);
        let found = match files.get_item(pathname) {
            Ok(Some(names)) => names.cast_into::<PyTuple>()?,
            _ => self.file_names(pathname)?,
        };
        record.set_item(names(py).filename.bind(py), found.get_item(0)?)?;
        record.set_item(names(py).module.bind(py), found.get_item(1)?)
    }

    fn file_names<'py>(&self, pathname: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        let py = pathname.py();
        let path = py.import("os")?.getattr("path")?;
        let Ok(name) = path.call_method1("basename", (pathname,)) else {
            return PyTuple::new(py, [pathname, &PyString::new(py, "Unknown module")]);
        };
        let module = path.call_method1("splitext", (&name,))?.get_item(0)?;
        let names = PyTuple::new(py, [name, module])?;
        let files = self.files.bind(py);
        if files.len() >= MOST_FILES {
            files.clear();
        }
        files.set_item(pathname, &names)?;
        Ok(names)
    }

    fn set_time(&self, record: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = record.py();
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default();
        let created = now.as_nanos() as f64 / 1e9;
        let mut milliseconds = f64::from(now.subsec_millis());
        // Nanoseconds to a float may round up into the next second.
        if milliseconds >= 999.0 && created.floor() as u64 != now.as_secs() {
            milliseconds = 0.0;
        }
        record.set_item(names(py).created.bind(py), created)?;
        record.set_item(names(py).msecs.bind(py), milliseconds)?;
        let relative = (created - self.start) * 1000.0;
        record.set_item(names(py).relative_created.bind(py), relative)
    }

    fn set_thread(&self, record: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = record.py();
        if !self.switches.threads {
            return Ok(());
        }
        let (ident, thread) = this_thread(py)?;
        record.set_item(names(py).thread.bind(py), ident)?;
        // The attribute behind the property `name`, which is Python.
        let name = match thread.getattr(py, names(py).own_name.bind(py)) {
            Ok(name) => name,
            Err(_) => thread.getattr(py, names(py).name.bind(py))?,
        };
        record.set_item(names(py).thread_name.bind(py), name)
    }

    fn set_process(&self, record: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = record.py();
        if self.switches.process_names {
            record.set_item(names(py).process_name.bind(py), self.process_name(py)?)?;
        }
        if self.switches.processes {
            record.set_item(names(py).process.bind(py), std::process::id())?;
        }
        if self.switches.tasks
            && let Some(name) = self.task_name(py)
        {
            record.set_item(names(py).task_name.bind(py), name)?;
        }
        Ok(())
    }

    fn process_name<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let main = || names(py).main_process.bind(py).clone().into_any();
        let modules = self.modules.bind(py);
        let Some(module) = modules.get_item(names(py).multiprocessing.bind(py))? else {
            return Ok(main());
        };
        // It may be half imported, as the constructor knows.
        let process = module.call_method0(names(py).current_process.bind(py));
        let name = process.and_then(|process| process.getattr(names(py).name.bind(py)));
        Ok(name.unwrap_or_else(|_| main()))
    }

    fn task_name<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let modules = self.modules.bind(py);
        let asyncio = modules.get_item(names(py).asyncio.bind(py)).ok()??;
        // Asked first: without a loop `current_task` raises, which is dear.
        let running = asyncio.call_method0(names(py).get_running_loop.bind(py));
        let running = running.ok().filter(|running| !running.is_none())?;
        let task = asyncio.call_method1(names(py).current_task.bind(py), (running,));
        let task = task.ok().filter(|task| !task.is_none())?;
        task.call_method0(names(py).get_name.bind(py)).ok()
    }
}

fn this_thread(py: Python<'_>) -> PyResult<(Py<PyAny>, Py<PyAny>)> {
    let kept = THREAD.with(|thread| {
        let (ident, thread) = thread.get()?;
        Some((ident.clone_ref(py), thread.clone_ref(py)))
    });
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let threading = py.import("threading")?;
    let ident = threading.call_method0("get_ident")?.unbind();
    let thread = threading.call_method0("current_thread")?.unbind();
    THREAD.with(|slot| {
        let _ = slot.set((ident.clone_ref(py), thread.clone_ref(py)));
    });
    Ok((ident, thread))
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    Factory::get(m.py())?;
    m.add_function(wrap_pyfunction!(make_record, m)?)
}
