//! A stock formatter's work on a plain record, without its Python.
//!
//! Legal for exactly `logging.Formatter` with a stock style and exactly
//! `LogRecord` without exception or stack: there the outcome is known to the
//! byte. Everything else answers `false` and is Python's.
//!
//! A formatter's settings are read anew when the second changes (or, in a
//! format without time, when another formatter is set), so a change to one in
//! use is seen within that second.

use std::sync::{Arc, RwLock};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyFloat, PyInt, PyString, PyTuple, PyType};

use super::names::names;
use crate::log::format::{self, Kind, Piece, Spec};

/// What the standard library has, looked up once.
struct Stock {
    formatter: Py<PyType>,
    styles: [Py<PyType>; 3],
    record: Py<PyType>,
    /// `logging`'s own dict: `addLevelName` is heeded at once.
    level_names: Py<PyDict>,
    strftime: Py<PyAny>,
    /// What formats where a handler has no formatter.
    default: Py<PyAny>,
}

impl Stock {
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        static STOCK: PyOnceLock<Stock> = PyOnceLock::new();
        STOCK.get_or_try_init(py, || {
            let logging = py.import("logging")?;
            let class = |name: &str| Ok::<_, PyErr>(logging.getattr(name)?.cast_into()?.unbind());
            Ok(Self {
                formatter: class("Formatter")?,
                styles: [
                    class("PercentStyle")?,
                    class("StrFormatStyle")?,
                    class("StringTemplateStyle")?,
                ],
                record: class("LogRecord")?,
                level_names: logging.getattr("_levelToName")?.cast_into()?.unbind(),
                default: logging.getattr("_defaultFormatter")?.unbind(),
                strftime: py.import("time")?.getattr("strftime")?.unbind(),
            })
        })
    }
}

/// A handler's formatter, or the one that `logging` uses in its absence.
pub(super) fn formatter_of<'py>(handler: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = handler.py();
    let own = handler.getattr(names(py).formatter.bind(py))?;
    if !own.is_none() {
        return Ok(own);
    }
    Ok(Stock::get(py)?.default.bind(py).clone())
}

/// Looks up what would otherwise be looked up with the first record.
pub(super) fn warm(py: Python<'_>) -> PyResult<()> {
    Stock::get(py).map(|_| ())
}

/// True for a record whose class computes nothing of its own.
pub(super) fn is_plain_record(record: &Bound<'_, PyAny>) -> PyResult<bool> {
    let stock = Stock::get(record.py())?;
    Ok(record.get_type().is(stock.record.bind(record.py())))
}

/// True for a record of any class.
pub(super) fn is_record(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    let stock = Stock::get(value.py())?;
    value.is_instance(stock.record.bind(value.py()))
}

/// A field with the value it takes.
enum Part {
    Text(String),
    Message(Spec),
    Time(Spec),
    Attribute(Py<PyString>, Spec),
}

/// A formatter taken apart, for one second.
pub(super) struct Plan {
    formatter: Py<PyAny>,
    /// `None`: this formatter is Python's.
    parts: Option<Vec<Part>>,
    /// The second that `time` is of, if the format has a time.
    second: Option<i64>,
    /// Text of the second, and what stands between it and the milliseconds.
    time: String,
    milliseconds: Option<String>,
}

impl Plan {
    fn fits(&self, formatter: &Bound<'_, PyAny>, second: impl FnOnce() -> Option<i64>) -> bool {
        self.formatter.is(formatter) && (self.second.is_none() || self.second == second())
    }

    fn make<'py>(
        formatter: &Bound<'py, PyAny>,
        created: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let mut plan = Self {
            formatter: formatter.clone().unbind(),
            parts: None,
            second: None,
            time: String::new(),
            milliseconds: None,
        };
        let Some(pieces) = pieces(formatter)? else {
            return Ok(plan);
        };
        let parts = parts(formatter.py(), pieces)?;
        let timed = parts
            .as_ref()
            .is_some_and(|parts| parts.iter().any(|part| matches!(part, Part::Time(_))));
        if !timed || plan.read_time(formatter, &created()?)? {
            plan.parts = parts;
        }
        Ok(plan)
    }

    /// False when the milliseconds are written in a way of their own.
    fn read_time(
        &mut self,
        formatter: &Bound<'_, PyAny>,
        created: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        let py = formatter.py();
        self.second = second_of(created);
        let moment = formatter.call_method1(names(py).converter.bind(py), (created,))?;
        let datefmt = formatter.getattr(names(py).datefmt.bind(py))?;
        let dated = datefmt.is_truthy()?;
        let template = if dated {
            datefmt
        } else {
            formatter.getattr(names(py).default_time_format.bind(py))?
        };
        let text = Stock::get(py)?
            .strftime
            .bind(py)
            .call1((template, moment))?;
        self.time = text.extract()?;
        if dated {
            return Ok(true);
        }
        let template = formatter.getattr(names(py).default_msec_format.bind(py))?;
        if !template.is_truthy()? {
            return Ok(true);
        }
        let template: String = template.extract()?;
        let between = template
            .strip_prefix("%s")
            .and_then(|rest| rest.strip_suffix("%03d"))
            .filter(|between| !between.contains('%'));
        self.milliseconds = between.map(str::to_owned);
        Ok(between.is_some())
    }

    fn put_time(&self, record: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<bool> {
        out.extend_from_slice(self.time.as_bytes());
        let Some(between) = &self.milliseconds else {
            return Ok(true);
        };
        out.extend_from_slice(between.as_bytes());
        let value = record.getattr(names(record.py()).msecs.bind(record.py()))?;
        Ok(put_whole(&value, MILLISECONDS, out))
    }

    /// The same for a moment that no record holds.
    fn put_moment(&self, created: f64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.time.as_bytes());
        if let Some(between) = &self.milliseconds {
            out.extend_from_slice(between.as_bytes());
            let milliseconds = (created.fract() * 1000.0) as i64;
            format::put_integer(out, milliseconds, MILLISECONDS);
        }
    }
}

/// `%03d`.
const MILLISECONDS: Spec = Spec {
    kind: Kind::Integer,
    width: 3,
    zero: true,
    left: Some(false),
    precision: None,
};

fn second_of(created: &Bound<'_, PyAny>) -> Option<i64> {
    let seconds = created.cast_exact::<PyFloat>().ok()?.value();
    Some(seconds.floor() as i64)
}

/// The formatter's format, if formatter and style are stock.
fn pieces(formatter: &Bound<'_, PyAny>) -> PyResult<Option<Vec<Piece>>> {
    let py = formatter.py();
    let stock = Stock::get(py)?;
    if !formatter.get_type().is(stock.formatter.bind(py)) {
        return Ok(None);
    }
    // Instance attributes may override any method.
    let own = formatter
        .getattr(names(py).dict.bind(py))?
        .cast_into::<PyDict>()?;
    for method in ["format", "formatTime", "formatMessage", "usesTime"] {
        if own.contains(method)? {
            return Ok(None);
        }
    }
    let style = formatter.getattr(names(py).style.bind(py))?;
    let defaults = style.getattr(names(py).defaults.bind(py))?;
    let text = style.getattr(names(py).fmt.bind(py))?;
    let (Ok(text), false) = (text.extract::<String>(), defaults.is_truthy()?) else {
        return Ok(None);
    };
    let take_apart = [format::percent, format::brace, format::dollar];
    let which = stock
        .styles
        .iter()
        .position(|class| style.get_type().is(class.bind(py)));
    Ok(which.and_then(|which| take_apart[which](&text)))
}

fn parts(py: Python<'_>, pieces: Vec<Piece>) -> PyResult<Option<Vec<Part>>> {
    let class = Stock::get(py)?.record.bind(py);
    let mut parts = Vec::with_capacity(pieces.len());
    for piece in pieces {
        parts.push(match piece {
            Piece::Text(text) => Part::Text(text),
            Piece::Field(name, spec) => match name.as_str() {
                "message" => Part::Message(spec),
                "asctime" => Part::Time(spec),
                // A style looks into the record's dict, where no method is.
                _ if class.hasattr(name.as_str())? => return Ok(None),
                _ => Part::Attribute(PyString::intern(py, &name).unbind(), spec),
            },
        });
    }
    Ok(Some(parts))
}

/// A handler's plan. Never waited for: a lock that a fork copied while held
/// would be held for ever.
#[derive(Default)]
pub(super) struct Plans(RwLock<Option<Arc<Plan>>>);

impl Plans {
    /// Appends the line of `record` to `out`; false if it is Python's to make.
    pub(super) fn put(
        &self,
        formatter: &Bound<'_, PyAny>,
        record: &Bound<'_, PyAny>,
        out: &mut Vec<u8>,
    ) -> PyResult<bool> {
        if !is_plain_record(record)? || has_trace(record)? {
            return Ok(false);
        }
        let created = || record.getattr(names(record.py()).created.bind(record.py()));
        let plan = self.plan(formatter, created, || second_of(&created().ok()?))?;
        let Some(parts) = &plan.parts else {
            return Ok(false);
        };
        for part in parts {
            let done = match part {
                Part::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    true
                }
                Part::Message(spec) => put_message(record, *spec, out)?,
                Part::Time(spec) if is_bare(*spec) => plan.put_time(record, out)?,
                Part::Time(_) => false,
                Part::Attribute(name, spec) => put_attribute(record, name, *spec, out)?,
            };
            if !done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Appends a line of `fields`; false if the format asks for more than they
    /// hold.
    pub(super) fn put_fields(
        &self,
        formatter: &Bound<'_, PyAny>,
        fields: &Fields<'_, '_>,
        out: &mut Vec<u8>,
    ) -> PyResult<bool> {
        let py = formatter.py();
        let created = || Ok(PyFloat::new(py, fields.created).into_any());
        let second = fields.created.floor() as i64;
        let plan = self.plan(formatter, created, || Some(second))?;
        let Some(parts) = &plan.parts else {
            return Ok(false);
        };
        for part in parts {
            let done = match part {
                Part::Text(text) => {
                    out.extend_from_slice(text.as_bytes());
                    true
                }
                Part::Message(spec) => put_value(&fields.merged()?, *spec, out)?,
                Part::Time(spec) => {
                    plan.put_moment(fields.created, out);
                    is_bare(*spec)
                }
                Part::Attribute(name, spec) => fields.put(name.bind(py).to_str()?, *spec, out)?,
            };
            if !done {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn plan<'py>(
        &self,
        formatter: &Bound<'py, PyAny>,
        created: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
        second: impl FnOnce() -> Option<i64>,
    ) -> PyResult<Arc<Plan>> {
        let kept = self.0.try_read().ok().and_then(|plan| plan.clone());
        if let Some(plan) = kept
            && plan.fits(formatter, second)
        {
            return Ok(plan);
        }
        let plan = Arc::new(Plan::make(formatter, created)?);
        let before = match self.0.try_write() {
            Ok(mut slot) => slot.replace(Arc::clone(&plan)),
            Err(_) => None,
        };
        // Outside the lock: it may be the last to hold a formatter.
        drop(before);
        Ok(plan)
    }

    /// The formatter, for the collector.
    pub(super) fn visit<E>(
        &self,
        visit: impl FnOnce(&Py<PyAny>) -> Result<(), E>,
    ) -> Result<(), E> {
        match self.0.try_read().ok().as_deref() {
            Some(Some(plan)) => visit(&plan.formatter),
            _ => Ok(()),
        }
    }

    pub(super) fn clear(&self) {
        let before = self.0.try_write().ok().and_then(|mut slot| slot.take());
        drop(before);
    }
}

/// What a message is known by without a record.
pub(super) struct Fields<'a, 'py> {
    pub(super) name: &'a str,
    pub(super) level: i64,
    pub(super) message: &'a Bound<'py, PyAny>,
    pub(super) args: &'a Bound<'py, PyTuple>,
    /// Seconds since the epoch.
    pub(super) created: f64,
}

impl<'py> Fields<'_, 'py> {
    fn merged(&self) -> PyResult<Bound<'py, PyAny>> {
        merge(self.message.clone(), self.args)
    }

    fn put(&self, attribute: &str, spec: Spec, out: &mut Vec<u8>) -> PyResult<bool> {
        match (attribute, spec.kind) {
            ("name", Kind::Text) => format::put_text(out, self.name, spec),
            ("levelname", Kind::Text) => return self.put_level_name(spec, out),
            ("levelno", Kind::Integer) => format::put_integer(out, self.level, spec),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn put_level_name(&self, spec: Spec, out: &mut Vec<u8>) -> PyResult<bool> {
        let py = self.args.py();
        let names = Stock::get(py)?.level_names.bind(py);
        match names.get_item(self.level)? {
            Some(name) => put_value(&name, spec, out),
            None => Ok(false),
        }
    }
}

fn is_bare(spec: Spec) -> bool {
    spec.width == 0 && spec.precision.is_none() && spec.kind == Kind::Text
}

fn has_trace(record: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = record.py();
    Ok(record.getattr(names(py).exc_info.bind(py))?.is_truthy()?
        || !record.getattr(names(py).exc_text.bind(py))?.is_none()
        || !record.getattr(names(py).stack_info.bind(py))?.is_none())
}

/// `record.getMessage()`, of which only `%` is left to Python.
pub(super) fn message<'py>(record: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = record.py();
    let given = record.getattr(names(py).msg.bind(py))?;
    merge(given, &record.getattr(names(py).args.bind(py))?)
}

fn merge<'py>(given: Bound<'py, PyAny>, args: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let text = if given.is_exact_instance_of::<PyString>() {
        given
    } else {
        given.str()?.into_any()
    };
    let none = match args.cast_exact::<PyTuple>() {
        Ok(args) => args.is_empty(),
        Err(_) => !args.is_truthy()?,
    };
    if none { Ok(text) } else { text.rem(args) }
}

fn put_message(record: &Bound<'_, PyAny>, spec: Spec, out: &mut Vec<u8>) -> PyResult<bool> {
    put_value(&message(record)?, spec, out)
}

fn put_attribute(
    record: &Bound<'_, PyAny>,
    name: &Py<PyString>,
    spec: Spec,
    out: &mut Vec<u8>,
) -> PyResult<bool> {
    // Missing: the style raises its own kind of error, in Python.
    match record.getattr_opt(name.bind(record.py()))? {
        Some(value) => put_value(&value, spec, out),
        None => Ok(false),
    }
}

/// Lays out `value`; false for what is not plain, or not UTF-8.
fn put_value(value: &Bound<'_, PyAny>, spec: Spec, out: &mut Vec<u8>) -> PyResult<bool> {
    if let Ok(text) = value.cast_exact::<PyString>() {
        let Ok(text) = text.to_str() else {
            return Ok(false);
        };
        if spec.kind == Kind::Text {
            format::put_text(out, text, spec);
        }
        return Ok(spec.kind == Kind::Text);
    }
    match spec.kind {
        Kind::Text if spec.precision.is_some() => Ok(false),
        Kind::Text if value.is_exact_instance_of::<PyInt>() => Ok(put_whole(value, spec, out)),
        Kind::Text if is_bare(spec) && has_one_text(value, spec) => match value.str()?.to_str() {
            Ok(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(true)
            }
            Err(_) => Ok(false),
        },
        Kind::Text => Ok(false),
        Kind::Integer => Ok(put_whole(value, spec, out)),
        Kind::Fixed => match value.cast_exact::<PyFloat>() {
            Ok(number) if number.value().is_finite() => {
                format::put_fixed(out, number.value(), spec);
                Ok(true)
            }
            _ => Ok(false),
        },
    }
}

/// False where braces might ask the value for another text than `str`.
fn has_one_text(value: &Bound<'_, PyAny>, spec: Spec) -> bool {
    spec.left.is_some() || value.is_none() || value.is_exact_instance_of::<PyFloat>()
}

/// An exact int, or the whole part of an exact float, as `%d` takes it.
fn put_whole(value: &Bound<'_, PyAny>, spec: Spec, out: &mut Vec<u8>) -> bool {
    let whole = if let Ok(number) = value.cast_exact::<PyFloat>() {
        let number = number.value();
        // `%d` takes a float, `{:d}` refuses it; only `%` always has a side.
        (number.abs() < 9e15 && spec.left.is_some()).then_some(number as i64)
    } else if value.is_exact_instance_of::<PyInt>() {
        value.extract::<i64>().ok()
    } else {
        None
    };
    if let Some(whole) = whole {
        format::put_integer(out, whole, spec);
    }
    whole.is_some()
}
