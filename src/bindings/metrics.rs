//! `metrics::Service` and its two observers, as Python sees them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

use super::args;
use super::clock::{Clock, monotonic_ns};
use super::probe::PyMetricsSource;
use super::worker;
use crate::metrics::{
    Clocks, GcPauses, LoopFigures, LoopLag, Moment, Service, Settings, Snapshot, Value,
};

fn unix_seconds() -> f64 {
    // A clock set before 1970 is no time at all.
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Samples the machine and this process; see `mtaio.monitoring`.
///
/// Every call may come from any thread. `fresh`, `tick` and `stop` block
/// (detached from the interpreter) for as long as the kernel takes to answer.
#[pyclass(name = "Sampler", module = "mtaio._rust", frozen)]
pub(crate) struct PySampler {
    service: Arc<Service>,
    clock: Clock,
}

impl PySampler {
    fn now(&self, py: Python<'_>) -> PyResult<Moment> {
        Ok(Moment {
            at_ns: self.clock.now_ns(py)?,
            timestamp: unix_seconds(),
        })
    }

    fn seconds_until(&self, py: Python<'_>, at_ns: u64) -> PyResult<f64> {
        Ok(at_ns.saturating_sub(self.clock.now_ns(py)?) as f64 / 1e9)
    }
}

#[pymethods]
impl PySampler {
    #[new]
    #[pyo3(signature = (interval, history_size, *, root = None, disk_path = None, clock = None))]
    fn new(
        py: Python<'_>,
        interval: &Bound<'_, PyAny>,
        history_size: &Bound<'_, PyAny>,
        root: Option<&Bound<'_, PyAny>>,
        disk_path: Option<&Bound<'_, PyAny>>,
        clock: Option<Py<PyAny>>,
    ) -> PyResult<Self> {
        let settings = Settings {
            interval_ns: interval_ns(interval)?,
            history_size: args::whole("history_size", history_size, 1)? as usize,
            root: root.map(|root| path("root", root)).transpose()?,
            disk_path: disk_path
                .map_or(Ok(PathBuf::from("/")), |given| path("disk_path", given))?,
        };
        let clock = Clock::new(clock);
        let now = clock.now_ns(py)?;
        let service = py.detach(|| Service::new(&settings, now));
        Ok(Self {
            service: Arc::new(service),
            clock,
        })
    }

    /// Starts the thread; `False` if it runs already.
    fn start(&self) -> PyResult<bool> {
        Ok(self.service.start(Clocks {
            monotonic_ns,
            unix_seconds,
        })?)
    }

    /// Ends the thread; `False` if it did not end `within` seconds: call again.
    fn stop(&self, py: Python<'_>, within: f64) -> bool {
        let within = Duration::try_from_secs_f64(within).unwrap_or_default();
        py.detach(|| self.service.stop(within))
    }

    /// In a forked child: gives up what is the parent's. Call nothing else.
    fn abandon(&self) {
        self.service.abandon();
    }

    /// Seconds until a first sample can be a true one.
    fn ready_in(&self, py: Python<'_>) -> PyResult<f64> {
        self.seconds_until(py, self.service.ready_ns())
    }

    /// Seconds until the thread takes its next sample.
    fn due_in(&self, py: Python<'_>) -> PyResult<f64> {
        self.seconds_until(py, self.service.due_ns())
    }

    /// Takes a sample into the history, as the thread would.
    fn tick(&self, py: Python<'_>) -> PyResult<()> {
        let now = self.now(py)?;
        py.detach(|| self.service.tick(now));
        Ok(())
    }

    /// Takes a sample now; it stays out of the history.
    fn fresh(&self, py: Python<'_>) -> PyResult<PySnapshot> {
        let now = self.now(py)?;
        Ok(PySnapshot(py.detach(|| self.service.fresh(now))))
    }

    /// A future of the running loop that is done when a worker thread has taken
    /// a new sample by the native clocks; it stays out of the history.
    fn sampled<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let service = Arc::clone(&self.service);
        worker::future_into_py(py, async move {
            service.fresh(Moment {
                at_ns: monotonic_ns(),
                timestamp: unix_seconds(),
            });
        })
    }

    /// The newest sample, if one was taken and is at most `max_age` seconds old.
    fn latest(&self, py: Python<'_>, max_age: f64) -> PyResult<Option<PySnapshot>> {
        let now = self.clock.now_ns(py)?;
        let young =
            |snapshot: &Arc<Snapshot>| now.saturating_sub(snapshot.at_ns) as f64 <= max_age * 1e9;
        Ok(self.service.latest().get().filter(young).map(PySnapshot))
    }

    /// The history after that sequence number, oldest first.
    fn since(&self, sequence: u64) -> Vec<PySnapshot> {
        self.service
            .since(sequence)
            .into_iter()
            .map(PySnapshot)
            .collect()
    }

    /// The newest figures for a probe server, read without Python.
    fn source(&self) -> PyMetricsSource {
        PyMetricsSource(self.service.latest())
    }

    /// Replaces the gauges that native threads serve.
    fn set_gauges(&self, gauges: Vec<(String, f64)>) {
        self.service.latest().set_gauges(gauges);
    }

    /// Watches the beats of a loop.
    fn watch_loop(&self, lag: &PyLoopLag) {
        self.service.watch_loop(Arc::clone(&lag.0));
    }

    /// Watches them no more.
    fn forget_loop(&self, lag: &PyLoopLag) {
        self.service.forget_loop(&lag.0);
    }

    /// Watches the collector's pauses, or (`None`) no more.
    #[pyo3(signature = (pauses))]
    fn watch_gc(&self, pauses: Option<&PyGcPauses>) {
        self.service
            .watch_gc(pauses.map(|pauses| Arc::clone(&pauses.0)));
    }

    #[allow(clippy::needless_pass_by_value)] // the signature is the protocol's
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        self.clock
            .object()
            .map_or(Ok(()), |clock| visit.call(clock))
    }
}

/// One sample; its figures become Python objects when asked for.
#[pyclass(name = "Snapshot", module = "mtaio._rust", frozen)]
pub(crate) struct PySnapshot(Arc<Snapshot>);

#[pymethods]
impl PySnapshot {
    /// Counts the samples of one sampler, from 1.
    #[getter]
    fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// Seconds since 1970.
    #[getter]
    fn timestamp(&self) -> f64 {
        self.0.timestamp
    }

    /// Seconds since the process started.
    #[getter]
    fn uptime(&self) -> f64 {
        self.0.uptime
    }

    /// Busy share of each processor online.
    #[getter]
    fn per_core_percent<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.0.per_core_percent)
    }

    /// Figures by name, by section; a nested section has a dot in its name. The
    /// names that `values` leaves out, by which tests hold its order.
    fn sections<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let all = PyDict::new(py);
        let mut section = ("", PyDict::new(py));
        for (name, figure, value) in self.0.figures() {
            if name != section.0 {
                section = (name, PyDict::new(py));
                all.set_item(PyString::intern(py, name), &section.1)?;
            }
            let key = PyString::intern(py, figure);
            match value {
                Value::Float(value) | Value::Seconds(value) => section.1.set_item(key, value)?,
                Value::Whole(value) | Value::Total(value) => section.1.set_item(key, value)?,
            }
        }
        Ok(all)
    }

    /// The figures alone: a tuple for each section, in the order of `sections`.
    fn values<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let figures: Vec<_> = self.0.figures().collect();
        let sections = figures.chunk_by(|(one, ..), (next, ..)| one == next);
        let value = |(_, _, value): &(&str, &str, Value)| match *value {
            Value::Float(value) | Value::Seconds(value) => value.into_bound_py_any(py),
            Value::Whole(value) | Value::Total(value) => value.into_bound_py_any(py),
        };
        sections
            .map(|section| {
                let values: PyResult<Vec<_>> = section.iter().map(value).collect();
                PyTuple::new(py, values?)
            })
            .collect()
    }

    /// Lag of each watched loop.
    fn loops<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyDict>>> {
        let one = |figures: &LoopFigures| {
            let dict = PyDict::new(py);
            dict.set_item("name", &*figures.name)?;
            dict.set_item("ticks", figures.ticks)?;
            dict.set_item("lag_p50_seconds", figures.lag_p50_seconds)?;
            dict.set_item("lag_p99_seconds", figures.lag_p99_seconds)?;
            dict.set_item("lag_max_seconds", figures.lag_max_seconds)?;
            Ok(dict)
        };
        self.0.loops.iter().map(one).collect()
    }
}

/// Beats of one event loop; `beat` is for that loop's thread alone.
#[pyclass(name = "LoopLag", module = "mtaio._rust", frozen)]
pub(crate) struct PyLoopLag(Arc<LoopLag>);

#[pymethods]
impl PyLoopLag {
    #[new]
    fn new(name: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self(Arc::new(LoopLag::new(&args::text("name", name)?))))
    }

    /// The loop beats now and means to again in `next_in` seconds.
    fn beat(&self, next_in: f64) {
        let now = monotonic_ns();
        self.0.beat(now, now + (next_in * 1e9) as u64);
    }

    /// The loop beats no more, and is not late.
    fn rest(&self) {
        self.0.rest();
    }
}

/// A callback for `gc.callbacks` that measures the pauses.
#[pyclass(name = "GcPauses", module = "mtaio._rust", frozen)]
pub(crate) struct PyGcPauses(Arc<GcPauses>);

#[pymethods]
impl PyGcPauses {
    #[new]
    fn new() -> Self {
        Self(Arc::default())
    }

    #[allow(unused_variables)] // `info` is part of the callback's signature
    fn __call__(&self, phase: &str, info: &Bound<'_, PyAny>) {
        match phase {
            "start" => self.0.begin(monotonic_ns()),
            _ => self.0.end(monotonic_ns()),
        }
    }
}

/// An interval that a thread can keep.
fn interval_ns(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let seconds = args::positive("interval", value)?;
    if (0.001..=86_400.0).contains(&seconds) {
        return Ok((seconds * 1e9) as u64);
    }
    Err(PyValueError::new_err(format!(
        "interval must be 0.001 to 86400 seconds, got {seconds}"
    )))
}

fn path(name: &str, value: &Bound<'_, PyAny>) -> PyResult<PathBuf> {
    let path: PathBuf = value.extract().map_err(|_| {
        let kind = value.get_type();
        PyTypeError::new_err(format!(
            "{name} must be a path (str or os.PathLike), got {kind}"
        ))
    })?;
    if path.as_os_str().is_empty() {
        return Err(PyValueError::new_err(format!(
            "{name} must be a non-empty path, got ''"
        )));
    }
    Ok(path)
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PySampler>()?;
    m.add_class::<PySnapshot>()?;
    m.add_class::<PyLoopLag>()?;
    m.add_class::<PyGcPauses>()
}
