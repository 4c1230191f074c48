//! `MetricFamily`, `MetricsSource`, `LivenessGuard`, `ProbeBoard`, `ProbeThread`.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyMapping, PyString};

use super::args;
use super::clock::monotonic_ns;
use crate::probe::{
    Board, Family, Health, Kind, Labels, Limits, LivenessGuard, MetricsSource, News, Request,
    Server, Value, Verdict,
};

/// One metric family, checked when made: `kind` is "gauge", "counter",
/// "summary" or "histogram"; `series` one value, or pairs of labels and value.
#[pyclass(
    frozen,
    name = "MetricFamily",
    module = "mtaio._rust",
    skip_from_py_object
)]
pub(crate) struct PyMetricFamily(Arc<Family>);

#[pymethods]
impl PyMetricFamily {
    #[new]
    #[pyo3(signature = (kind, name, help, series, *, unit = ""))]
    fn new(
        kind: &Bound<'_, PyAny>,
        name: &Bound<'_, PyAny>,
        help: &str,
        series: &Bound<'_, PyAny>,
        unit: &str,
    ) -> PyResult<Self> {
        let kind = kind_of(kind)?;
        let mut family = Family::new(kind, &args::text("name", name)?, help, unit)?;
        for (labels, value) in rows(series)? {
            let value = value_of(kind, &value)?;
            let labels: Vec<_> = labels
                .iter()
                .map(|(k, v)| (k.as_str(), v.as_str()))
                .collect();
            family.push(&labels, value)?;
        }
        Ok(Self(Arc::new(family)))
    }

    /// "gauge", "counter", "summary" or "histogram".
    #[getter]
    fn kind(&self) -> &'static str {
        self.0.kind().name()
    }

    /// With its unit, without the `_total` of a counter.
    #[getter]
    fn name(&self) -> &str {
        self.0.name()
    }

    /// What it means.
    #[getter]
    fn help(&self) -> &str {
        self.0.help()
    }

    /// Such as "seconds"; empty when it has none.
    #[getter]
    fn unit(&self) -> &str {
        self.0.unit()
    }

    /// `(labels, value)` pairs; the value of a summary or histogram is a
    /// `Distribution`.
    #[getter]
    fn series<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Vec<(Bound<'py, PyDict>, Bound<'py, PyAny>)>> {
        let one = |(labels, value): (&Labels, &Value)| {
            let by_name = PyDict::new(py);
            for (name, text) in labels {
                by_name.set_item(name, text)?;
            }
            Ok((by_name, value_to(py, value)?))
        };
        self.0.series().iter().map(one).collect()
    }

    fn __repr__(&self) -> String {
        let family = &self.0;
        let (kind, name, count) = (family.kind().name(), family.name(), family.series().len());
        format!("MetricFamily({kind:?}, {name:?}, {count} series)")
    }
}

fn kind_of(given: &Bound<'_, PyAny>) -> PyResult<Kind> {
    let text = args::text("kind", given)?;
    let known = Kind::ALL.into_iter().find(|kind| kind.name() == text);
    known.ok_or_else(|| {
        let names = Kind::ALL.map(Kind::name).join(", ");
        PyValueError::new_err(format!("kind must be one of {names}, got {text:?}"))
    })
}

/// `series` as rows: a bare value is one row without labels.
fn rows<'py>(series: &Bound<'py, PyAny>) -> PyResult<Vec<(Labels, Bound<'py, PyAny>)>> {
    if series.is_instance_of::<PyString>() || series.try_iter().is_err() {
        return Ok(vec![(Labels::new(), series.clone())]);
    }
    let mut all = Vec::new();
    for row in series.try_iter()? {
        let row = row?;
        let Ok((labels, value)) = row.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>() else {
            return Err(PyTypeError::new_err(format!(
                "series must be a value or pairs of labels and value, got a row {}",
                row.repr()?
            )));
        };
        all.push((labels_of(&labels)?, value));
    }
    Ok(all)
}

fn labels_of(given: &Bound<'_, PyAny>) -> PyResult<Labels> {
    let wrong = || {
        let kind = given.get_type();
        PyTypeError::new_err(format!("labels must map text to text, got {kind}"))
    };
    let mapping = given.cast::<PyMapping>().map_err(|_| wrong())?;
    let mut labels = Labels::new();
    for item in mapping.items()? {
        labels.push(item.extract().map_err(|_| wrong())?);
    }
    Ok(labels)
}

fn value_of(kind: Kind, given: &Bound<'_, PyAny>) -> PyResult<Value> {
    if matches!(kind, Kind::Gauge | Kind::Counter) {
        return Ok(Value::Number(args::real("value", given)?));
    }
    let Ok(given) = given.cast::<PyDistribution>() else {
        return Err(PyTypeError::new_err(format!(
            "the value of a {} must be a Distribution, got {}",
            kind.name(),
            given.get_type()
        )));
    };
    let PyDistribution { count, sum, points } = given.get().clone();
    if kind == Kind::Summary {
        let quantiles = points;
        return Ok(Value::Summary {
            count,
            sum,
            quantiles,
        });
    }
    let whole = |(bound, upto): (f64, f64)| {
        let fits = upto >= 0.0 && upto.fract() == 0.0 && upto < 2_f64.powi(53);
        fits.then_some((bound, upto as u64)).ok_or_else(|| {
            PyValueError::new_err(format!("the count of a bucket must be whole, got {upto}"))
        })
    };
    let buckets = points.into_iter().map(whole).collect::<PyResult<_>>()?;
    Ok(Value::Histogram {
        sum,
        count,
        buckets,
    })
}

fn value_to<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    let distribution = match value {
        Value::Number(number) => return Ok(number.into_pyobject(py)?.into_any()),
        Value::Summary {
            count,
            sum,
            quantiles,
        } => PyDistribution {
            count: *count,
            sum: *sum,
            points: quantiles.clone(),
        },
        Value::Histogram {
            sum,
            count,
            buckets,
        } => PyDistribution {
            count: *count,
            sum: *sum,
            points: buckets
                .iter()
                .map(|(bound, upto)| (*bound, *upto as f64))
                .collect(),
        },
    };
    Ok(Bound::new(py, distribution)?.into_any())
}

/// What a summary or a histogram holds.
///
/// Args:
///     count: How many values were observed.
///     sum: Their sum.
///     points: Of a summary the value by quantile (0 to 1). Of a histogram how
///         many values were at or below each finite bound; the bucket without
///         a bound is `count` and is added by itself.
#[pyclass(
    frozen,
    name = "Distribution",
    module = "mtaio._rust",
    skip_from_py_object
)]
#[derive(Clone)]
pub(crate) struct PyDistribution {
    #[pyo3(get)]
    count: u64,
    #[pyo3(get)]
    sum: f64,
    /// In ascending order.
    points: Vec<(f64, f64)>,
}

#[pymethods]
impl PyDistribution {
    #[new]
    fn new(
        count: &Bound<'_, PyAny>,
        sum: &Bound<'_, PyAny>,
        points: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let count = args::whole("count", count, 0)?;
        let sum = args::real("sum", sum)?;
        let Ok(mapping) = points.cast::<PyMapping>() else {
            let kind = points.get_type();
            return Err(PyTypeError::new_err(format!(
                "points must be a mapping, got {kind}"
            )));
        };
        let mut points = Vec::new();
        for item in mapping.items()? {
            let (at, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = item.extract()?;
            points.push((args::real("point", &at)?, args::real("value", &value)?));
        }
        points.sort_by(|a: &(f64, f64), b| a.0.total_cmp(&b.0));
        Ok(Self { count, sum, points })
    }

    /// As given, in ascending order.
    #[getter]
    fn points<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let points = PyDict::new(py);
        for (at, value) in &self.points {
            points.set_item(at, value)?;
        }
        Ok(points)
    }
}

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
    #[pyo3(signature = (board, host, port, *, max_connections, max_header_bytes, header_timeout))]
    fn new(
        py: Python<'_>,
        board: &PyProbeBoard,
        host: &str,
        port: u16,
        max_connections: usize,
        max_header_bytes: usize,
        header_timeout: f64,
    ) -> PyResult<Self> {
        let limits = Limits {
            max_connections,
            max_header_bytes,
            header_timeout: Duration::from_secs_f64(header_timeout),
        };
        let board = Arc::clone(&board.0);
        // Resolving a name can take seconds.
        let server = py.detach(|| Server::start(host, port, limits, board))?;
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
        let deadline = Duration::from_secs_f64(deadline);
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
    m.add_class::<PyDistribution>()?;
    m.add_class::<PyMetricFamily>()?;
    m.add_class::<PyMetricsSource>()?;
    m.add_class::<PyLivenessGuard>()?;
    m.add_class::<PyProbeBoard>()?;
    m.add_class::<PyProbeThread>()
}
