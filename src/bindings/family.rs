//! `MetricFamily` and `Distribution`.

use std::sync::Arc;

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping, PyString};

use super::args;
use crate::probe::{Family, Kind, Labels, Value};

/// One metric family, checked when made: `kind` is "gauge", "counter",
/// "summary" or "histogram"; `series` one value, or pairs of labels and value.
#[pyclass(frozen, name = "MetricFamily", module = "mtaio._rust")]
pub(crate) struct PyMetricFamily(pub(super) Arc<Family>);

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

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyDistribution>()?;
    m.add_class::<PyMetricFamily>()
}
