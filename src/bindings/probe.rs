//! `MetricsSource`, `LivenessGuard`, `ProbeBoard`, `ProbeThread`.

use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::args;
use super::clock::monotonic_ns;
use super::family::PyMetricFamily;
use crate::probe::{
    Board, Health, Limits, LivenessGuard, MetricsSource, News, Request, Server, Verdict,
};
use crate::sync::Mutex;

/// Metrics that live in Rust; `ProbeBoard.add_source` serves them without Python.
#[pyclass(frozen, name = "MetricsSource", module = "mtaio._rust")]
pub(crate) struct PyMetricsSource(pub(crate) Arc<dyn MetricsSource>);

#[pymethods]
impl PyMetricsSource {
    /// What a scrape at this moment would see.
    fn families(&self) -> Vec<PyMetricFamily> {
        let mut families = Vec::new();
        self.0.collect(monotonic_ns(), &mut families);
        families
            .into_iter()
            .map(|f| PyMetricFamily(Arc::new(f)))
            .collect()
    }
}

/// Something native that can fail `/livez` while Python can't say so.
#[pyclass(frozen, name = "LivenessGuard", module = "mtaio._rust")]
pub(crate) struct PyLivenessGuard(pub(crate) Arc<dyn LivenessGuard>);

#[pymethods]
impl PyLivenessGuard {
    /// Why `/livez` would fail at this moment; empty when it passes.
    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        self.0.reasons(monotonic_ns(), &mut reasons);
        reasons
    }
}

/// The published state of the probes.
#[pyclass(frozen, name = "ProbeBoard", module = "mtaio._rust")]
pub(crate) struct PyProbeBoard(Arc<Board>);

#[pymethods]
impl PyProbeBoard {
    #[new]
    fn new() -> Self {
        Self(Arc::new(Board::new(monotonic_ns)))
    }

    /// Makes all that is given visible at once; `health` is `(JSON text, passes)`.
    #[pyo3(signature = (*, live = None, ready = None, startup = None, health = None))]
    fn publish(
        &self,
        live: Option<&Bound<'_, PyAny>>,
        ready: Option<&Bound<'_, PyAny>>,
        startup: Option<&Bound<'_, PyAny>>,
        health: Option<(String, bool)>,
    ) -> PyResult<()> {
        let news = News {
            live: live.map(|v| verdict("live", v)).transpose()?,
            ready: ready.map(|v| verdict("ready", v)).transpose()?,
            startup: startup.map(|v| verdict("startup", v)).transpose()?,
            health: health.map(|(document, passes)| Health { document, passes }),
        };
        self.0.publish(news);
        Ok(())
    }

    /// Replaces the families of `group` by `families`, an iterable.
    fn publish_metrics(
        &self,
        group: &Bound<'_, PyAny>,
        families: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let group = args::text("group", group)?;
        let mut all = Vec::new();
        for family in families.try_iter()? {
            let family = family?;
            let Ok(family) = family.cast::<PyMetricFamily>() else {
                return Err(PyTypeError::new_err(format!(
                    "families must be MetricFamily objects, got {}",
                    family.repr()?
                )));
            };
            all.push(Arc::clone(&family.get().0));
        }
        self.0.publish_metrics(&group, all);
        Ok(())
    }

    /// Serves `source` at every scrape.
    fn add_source(&self, source: &PyMetricsSource) {
        self.0.add_source(&source.0);
    }

    /// No longer serves `source`.
    fn remove_source(&self, source: &PyMetricsSource) {
        self.0.remove_source(&source.0);
    }

    /// Asks `guard` at every `/livez`.
    fn add_guard(&self, guard: &PyLivenessGuard) {
        self.0.add_guard(&guard.0);
    }

    /// No longer asks `guard`.
    fn remove_guard(&self, guard: &PyLivenessGuard) {
        self.0.remove_guard(&guard.0);
    }

    /// `(status, content type, body, value of Allow or None)`.
    fn answer<'py>(
        &self,
        py: Python<'py>,
        method: &str,
        path: &str,
        accept: &str,
    ) -> (u16, &'static str, Bound<'py, PyBytes>, Option<&'static str>) {
        let answer = self.0.answer(Request {
            method,
            path,
            accept,
        });
        let body = PyBytes::new(py, &answer.body);
        (answer.status, answer.content_type, body, answer.allow())
    }

    /// All families as a scrape would see them.
    fn families(&self) -> Vec<PyMetricFamily> {
        self.0.families().into_iter().map(PyMetricFamily).collect()
    }

    /// Call in a forked child before anything else.
    fn after_fork_in_child(&self) {
        self.0.after_fork_in_child();
    }
}

/// `True`, or why not: one reason, several, or `False` for none given.
fn verdict(name: &str, given: &Bound<'_, PyAny>) -> PyResult<Verdict> {
    if let Ok(passes) = given.extract::<bool>() {
        return Ok(if passes {
            Verdict::Pass
        } else {
            Verdict::Fail(Vec::new())
        });
    }
    if given.is_instance_of::<PyString>() {
        return Ok(Verdict::Fail(vec![args::text(name, given)?]));
    }
    let Ok(reasons) = given.try_iter() else {
        return Err(PyTypeError::new_err(format!(
            "{name} must be a bool, a reason, or reasons for which it fails, got {}",
            given.repr()?
        )));
    };
    let reasons: Vec<String> = reasons
        .map(|reason| args::text(name, &reason?))
        .collect::<PyResult<_>>()?;
    if reasons.is_empty() {
        return Ok(Verdict::Pass);
    }
    Ok(Verdict::Fail(reasons))
}

/// The thread that serves a board; listens once it is made.
#[pyclass(frozen, name = "ProbeThread", module = "mtaio._rust")]
pub(crate) struct PyProbeThread {
    server: Mutex<Option<Server>>,
    /// The real port.
    #[pyo3(get)]
    port: u16,
}

#[pymethods]
impl PyProbeThread {
    #[new]
    #[pyo3(signature = (board, address, *, max_connections, max_header_bytes, header_timeout, allowed_origin))]
    fn new(
        py: Python<'_>,
        board: &PyProbeBoard,
        address: (String, u16),
        max_connections: usize,
        max_header_bytes: usize,
        header_timeout: f64,
        allowed_origin: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let (host, port) = address;
        let limits = Limits {
            max_connections,
            max_header_bytes,
            header_timeout: Duration::from_secs_f64(header_timeout),
            allowed_origin: allowed_origin
                .map(|given| args::origin("allowed_origin", given))
                .transpose()?,
        };
        let board = Arc::clone(&board.0);
        // Resolving a name can take seconds.
        let server = py.detach(|| Server::start(&host, port, limits, board))?;
        let port = server.address().port();
        Ok(Self {
            server: Mutex::new(Some(server)),
            port,
        })
    }

    /// Asks the thread to end; returns at once.
    fn request_stop(&self) {
        if let Some(server) = &*self.server.lock() {
            server.request_stop();
        }
    }

    /// Whether the thread has ended.
    fn is_finished(&self) -> bool {
        self.server.lock().as_ref().is_none_or(Server::is_finished)
    }

    /// Ends the thread; false when it had not ended after `deadline` seconds.
    fn stop(&self, py: Python<'_>, deadline: f64) -> bool {
        let server = self.server.lock().take();
        let deadline = Duration::try_from_secs_f64(deadline).unwrap_or(Duration::MAX);
        server.is_none_or(|server| py.detach(|| server.stop(deadline)))
    }

    /// In a forked child: lets go of what only the parent has.
    fn forget(&self) {
        if let Some(server) = self.server.lock().take() {
            server.forget();
        }
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyMetricsSource>()?;
    m.add_class::<PyLivenessGuard>()?;
    m.add_class::<PyProbeBoard>()?;
    m.add_class::<PyProbeThread>()
}
