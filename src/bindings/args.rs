//! Argument checks shared by every binding, and lent to the pure-Python
//! modules, so that each rule and its wording exist once.
//!
//! Wrong type is `TypeError`, wrong value `ValueError`; both name the
//! parameter, what is accepted, and what came. `bool` is never a number here.

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyFloat, PyInt, PyIterator, PyMapping, PyString};

use crate::probe::Origin;

fn wrong_type(name: &str, accepted: &str, value: &Bound<'_, PyAny>) -> PyErr {
    let kind = value
        .get_type()
        .name()
        .map_or_else(|_| "?".to_owned(), |n| n.to_string());
    let shown = shorten(value);
    PyTypeError::new_err(format!("{name} must be {accepted}, got {shown} ({kind})"))
}

fn wrong_value(name: &str, accepted: &str, value: &Bound<'_, PyAny>) -> PyErr {
    PyValueError::new_err(format!("{name} must be {accepted}, got {}", shorten(value)))
}

/// `repr(value)`, cut so that a huge or broken argument still gives one line.
fn shorten(value: &Bound<'_, PyAny>) -> String {
    const LONGEST: usize = 80;
    let Ok(text) = value.repr().map(|r| r.to_string()) else {
        return "<unprintable>".to_owned();
    };
    if text.chars().count() <= LONGEST {
        return text;
    }
    text.chars().take(LONGEST).chain(['…']).collect()
}

/// A real number: `float`, or `int` that fits one. Not `bool`, not text.
fn number(name: &str, accepted: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    if let Ok(exact) = value.cast_exact::<PyFloat>() {
        return Ok(exact.value());
    }
    let real = value.is_instance_of::<PyFloat>() || value.is_instance_of::<PyInt>();
    if !real || value.is_instance_of::<PyBool>() {
        return Err(wrong_type(name, accepted, value));
    }
    // An int too large for a float is out of range, not of the wrong type.
    value
        .extract::<f64>()
        .map_err(|_| wrong_value(name, accepted, value))
}

/// Any number, NaN and infinities too, such as the value of a gauge.
pub(crate) fn real(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    number(name, "a number", value)
}

/// A finite number above 0, such as a rate, a TTL or an interval.
pub(crate) fn positive(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    const ACCEPTED: &str = "a finite number > 0";
    let given = number(name, ACCEPTED, value)?;
    if given.is_finite() && given > 0.0 {
        return Ok(given);
    }
    Err(wrong_value(name, ACCEPTED, value))
}

/// A finite number of 0 or more, such as a timeout.
pub(crate) fn non_negative(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    const ACCEPTED: &str = "a finite number >= 0";
    let given = number(name, ACCEPTED, value)?;
    if given.is_finite() && given >= 0.0 {
        return Ok(given);
    }
    Err(wrong_value(name, ACCEPTED, value))
}

/// A whole number of `least` or more. A `float` is refused even if integral.
pub(crate) fn whole(name: &str, value: &Bound<'_, PyAny>, least: u64) -> PyResult<u64> {
    let accepted = || format!("an int >= {least}");
    if !value.is_instance_of::<PyInt>() || value.is_instance_of::<PyBool>() {
        return Err(wrong_type(name, &accepted(), value));
    }
    match value.extract::<u64>() {
        Ok(given) if given >= least => Ok(given),
        _ => Err(wrong_value(name, &accepted(), value)),
    }
}

/// Non-empty text, such as the name of a metric, check or event.
pub(crate) fn text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    const ACCEPTED: &str = "non-empty text";
    if !value.is_instance_of::<PyString>() {
        return Err(wrong_type(name, ACCEPTED, value));
    }
    let given: String = value
        .extract()
        .map_err(|_| wrong_value(name, ACCEPTED, value))?;
    if given.is_empty() {
        return Err(wrong_value(name, ACCEPTED, value));
    }
    Ok(given)
}

/// An iterator over what can be iterated over, such as keys.
pub(crate) fn iterable<'py>(
    name: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyIterator>> {
    if value.hasattr("__iter__")? || value.hasattr("__getitem__")? {
        return value.try_iter();
    }
    Err(wrong_type(name, "an iterable", value))
}

/// A mapping, such as keys and values.
pub(crate) fn mapping<'a, 'py>(
    name: &str,
    value: &'a Bound<'py, PyAny>,
) -> PyResult<&'a Bound<'py, PyMapping>> {
    value
        .cast()
        .map_err(|_| wrong_type(name, "a mapping", value))
}

/// The origin of web pages, as browsers spell it.
pub(crate) fn origin(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Origin> {
    const ACCEPTED: &str = "an origin as browsers send it, such as http://127.0.0.1:8000";
    Origin::parse(&text(name, value)?).ok_or_else(|| wrong_value(name, ACCEPTED, value))
}

/// `value` as a float when it is a finite number above 0; else an error naming `name`.
#[pyfunction]
#[pyo3(name = "positive", signature = (name, value, /))]
fn py_positive(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    positive(name, value)
}

/// `value` as a float when it is a finite number of 0 or more; else an error naming `name`.
#[pyfunction]
#[pyo3(name = "non_negative", signature = (name, value, /))]
fn py_non_negative(name: &str, value: &Bound<'_, PyAny>) -> PyResult<f64> {
    non_negative(name, value)
}

/// `value` when it is an `int` of `least` or more; else an error naming `name`.
#[pyfunction]
#[pyo3(name = "whole", signature = (name, value, /, least = 1))]
fn py_whole(name: &str, value: &Bound<'_, PyAny>, least: u64) -> PyResult<u64> {
    whole(name, value, least)
}

/// `value` when it is non-empty text; else an error naming `name`.
#[pyfunction]
#[pyo3(name = "text", signature = (name, value, /))]
fn py_text(name: &str, value: &Bound<'_, PyAny>) -> PyResult<String> {
    text(name, value)
}

/// `value` when it is an origin as browsers send it; else an error naming `name`.
#[pyfunction]
#[pyo3(name = "origin", signature = (name, value, /))]
fn py_origin<'py>(name: &str, value: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    origin(name, &value).map(|_| value)
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_function(wrap_pyfunction!(py_positive, m)?)?;
    m.add_function(wrap_pyfunction!(py_non_negative, m)?)?;
    m.add_function(wrap_pyfunction!(py_whole, m)?)?;
    m.add_function(wrap_pyfunction!(py_text, m)?)?;
    m.add_function(wrap_pyfunction!(py_origin, m)?)
}
