//! `JsonFormat`: the native half of `mtaio.logging.JsonFormatter`.

use std::collections::HashSet;
use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PySet, PyString, PyTuple, PyType,
};

use super::log_format;
use super::names::names;
use crate::log::iso_utc;
use crate::log::json;

/// Containers nested deeper are written as text.
const DEEPEST: usize = 16;

/// What a key takes its value from.
enum Source {
    Message,
    Timestamp,
    Attribute(Py<PyString>),
}

struct Layout {
    /// The key with its quotes and colon, and where its value comes from.
    keys: Vec<(Vec<u8>, Source)>,
    names: HashSet<String>,
    extra: bool,
}

/// The native half of a JSON formatter. Not used by itself.
#[pyclass(subclass, frozen, module = "mtaio._rust")]
pub(crate) struct JsonFormat {
    layout: Arc<Layout>,
    /// No subclass has a `format` of its own.
    plain: bool,
}

#[pymethods]
impl JsonFormat {
    /// `keys`: pairs of output key and record attribute.
    #[new]
    #[pyo3(signature = (keys = None, *, extra = true))]
    #[classmethod]
    fn new(
        class: &Bound<'_, PyType>,
        keys: Option<&Bound<'_, PyDict>>,
        extra: bool,
    ) -> PyResult<Self> {
        let py = class.py();
        let mut layout = Layout {
            keys: Vec::new(),
            names: ["exception", "stack_info"].map(str::to_owned).into(),
            extra,
        };
        let given: Vec<(String, String)> = match keys {
            Some(keys) => keys.items().extract()?,
            None => DEFAULT.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        };
        for (key, attribute) in given {
            let mut quoted = Vec::new();
            json::put_string(&mut quoted, &key);
            quoted.push(b':');
            let source = match attribute.as_str() {
                "message" => Source::Message,
                "timestamp" => Source::Timestamp,
                name => Source::Attribute(PyString::intern(py, name).unbind()),
            };
            layout.keys.push((quoted, source));
            layout.names.insert(key);
        }
        let own = class.getattr("format")?;
        let ours = py.get_type::<Self>().getattr("format")?;
        Ok(Self {
            layout: Arc::new(layout),
            plain: own.is(&ours),
        })
    }

    /// One line of JSON, without line end.
    fn format(slf: &Bound<'_, Self>, record: &Bound<'_, PyAny>) -> PyResult<String> {
        let mut out = Vec::new();
        put_record(slf, record, &mut out)?;
        Ok(String::from_utf8(out).expect("only text was put together"))
    }
}

const DEFAULT: [(&str, &str); 4] = [
    ("timestamp", "timestamp"),
    ("level", "levelname"),
    ("logger", "name"),
    ("message", "message"),
];

impl JsonFormat {
    /// Appends the line of `record`; false if a subclass has its own way.
    pub(super) fn put(
        slf: &Bound<'_, Self>,
        record: &Bound<'_, PyAny>,
        out: &mut Vec<u8>,
    ) -> PyResult<bool> {
        if slf.get().plain {
            put_record(slf, record, out)?;
        }
        Ok(slf.get().plain)
    }
}

fn put_record(
    slf: &Bound<'_, JsonFormat>,
    record: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
) -> PyResult<()> {
    let py = record.py();
    let layout = Arc::clone(&slf.get().layout);
    out.push(b'{');
    for (place, (key, source)) in layout.keys.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        out.extend_from_slice(key);
        match source {
            Source::Message => put_value(&message(record)?, out, 0)?,
            Source::Timestamp => put_timestamp(record, out)?,
            Source::Attribute(name) => match record.getattr_opt(name.bind(py))? {
                Some(value) => put_value(&value, out, 0)?,
                None => out.extend_from_slice(b"null"),
            },
        }
    }
    if layout.extra {
        put_extra(record, &layout, out)?;
    }
    put_exception(slf, record, out)?;
    out.push(b'}');
    Ok(())
}

/// A class of its own may merge in a way of its own, such as with braces.
fn message<'py>(record: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if log_format::is_plain_record(record)? {
        return log_format::message(record);
    }
    record.call_method0("getMessage")
}

fn put_timestamp(record: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let created: f64 = record
        .getattr(names(record.py()).created.bind(record.py()))?
        .extract()?;
    out.push(b'"');
    out.extend_from_slice(iso_utc(created).as_bytes());
    out.push(b'"');
    Ok(())
}

/// The names every record has: what else is in its dict is `extra`.
fn standard(py: Python<'_>) -> PyResult<&Bound<'_, PySet>> {
    static NAMES: PyOnceLock<Py<PySet>> = PyOnceLock::new();
    let names = NAMES.get_or_try_init(py, || {
        let blank = py
            .import("logging")?
            .call_method1("makeLogRecord", (PyDict::new(py),))?;
        let dict = blank.getattr("__dict__")?.cast_into::<PyDict>()?;
        let names = PySet::new(py, dict.keys())?;
        for name in ["message", "asctime", "taskName"] {
            names.add(name)?;
        }
        Ok::<_, PyErr>(names.unbind())
    })?;
    Ok(names.bind(py))
}

/// Looks up what would otherwise be looked up with the first record.
pub(super) fn warm(py: Python<'_>) -> PyResult<()> {
    standard(py).map(|_| ())
}

fn put_extra(record: &Bound<'_, PyAny>, layout: &Layout, out: &mut Vec<u8>) -> PyResult<()> {
    let py = record.py();
    let dict = record
        .getattr(names(py).dict.bind(py))?
        .cast_into::<PyDict>()?;
    let names = standard(py)?;
    // A record without `extra` has no other names than these.
    if dict.len() <= names.len() - 3 {
        return Ok(());
    }
    // A snapshot: a value's `__str__` may change the record.
    for pair in dict.items() {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
        if names.contains(&key)? {
            continue;
        }
        let name = key.str()?.to_string_lossy().into_owned();
        let taken = layout.names.contains(&name);
        out.push(b',');
        json::put_string(out, &if taken { format!("extra_{name}") } else { name });
        out.push(b':');
        put_value(&value, out, 0)?;
    }
    Ok(())
}

fn put_exception(
    slf: &Bound<'_, JsonFormat>,
    record: &Bound<'_, PyAny>,
    out: &mut Vec<u8>,
) -> PyResult<()> {
    let py = record.py();
    let info = record.getattr(names(py).exc_info.bind(py))?;
    if let Ok(info) = info.cast::<PyTuple>()
        && let Ok((kind, error)) = info.get_item(0).and_then(|k| Ok((k, info.get_item(1)?)))
        && !error.is_none()
    {
        out.extend_from_slice(b",\"exception\":{\"type\":");
        put_value(&kind.getattr("__qualname__")?, out, 0)?;
        out.extend_from_slice(b",\"message\":");
        put_value(&error.str()?.into_any(), out, 0)?;
        out.extend_from_slice(b",\"traceback\":");
        put_value(&slf.call_method1("formatException", (info,))?, out, 0)?;
        out.push(b'}');
    } else {
        put_exception_text(record, out)?;
    }
    let stack = record.getattr(names(py).stack_info.bind(py))?;
    if !stack.is_none() {
        out.extend_from_slice(b",\"stack_info\":");
        put_value(&stack, out, 0)?;
    }
    Ok(())
}

/// Of a record from another process there is the traceback alone.
fn put_exception_text(record: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let text = record.getattr(names(record.py()).exc_text.bind(record.py()))?;
    if text.is_truthy()? {
        out.extend_from_slice(b",\"exception\":{\"type\":null,\"message\":null,\"traceback\":");
        put_value(&text, out, 0)?;
        out.push(b'}');
    }
    Ok(())
}

/// Appends any value: what JSON lacks is written as its `str`.
fn put_value(value: &Bound<'_, PyAny>, out: &mut Vec<u8>, depth: usize) -> PyResult<()> {
    if let Ok(text) = value.cast::<PyString>() {
        return put_text(text, out);
    }
    if value.is_none() {
        out.extend_from_slice(b"null");
    } else if let Ok(truth) = value.cast_exact::<PyBool>() {
        out.extend_from_slice(if truth.is_true() { b"true" } else { b"false" });
    } else if value.is_exact_instance_of::<PyInt>() {
        out.extend_from_slice(value.str()?.to_str()?.as_bytes());
    } else if value.is_instance_of::<PyInt>() {
        // An enumeration's member, say: a number all the same.
        let int = value.py().get_type::<PyInt>();
        let digits = int.call_method1("__repr__", (value,))?;
        out.extend_from_slice(digits.str()?.to_str()?.as_bytes());
    } else if let Ok(number) = value.cast::<PyFloat>() {
        json::put_float(out, number.value());
    } else if depth < DEEPEST && value.is_instance_of::<PyDict>() {
        put_dict(value.cast::<PyDict>()?, out, depth)?;
    } else if depth < DEEPEST && value.is_instance_of::<PyList>() {
        put_items(&value.cast::<PyList>()?.to_tuple(), out, depth)?;
    } else if depth < DEEPEST && value.is_instance_of::<PyTuple>() {
        put_items(value.cast::<PyTuple>()?, out, depth)?;
    } else {
        put_text(&value.str()?, out)?;
    }
    Ok(())
}

fn put_text(text: &Bound<'_, PyString>, out: &mut Vec<u8>) -> PyResult<()> {
    if let Ok(text) = text.to_str() {
        json::put_string(out, text);
        return Ok(());
    }
    let encoded = text.call_method1("encode", ("utf-16-le", "surrogatepass"))?;
    let bytes = encoded.cast_into::<PyBytes>()?;
    let units = bytes.as_bytes().chunks_exact(2);
    json::put_utf16(
        out,
        units.map(|unit| u16::from_le_bytes([unit[0], unit[1]])),
    );
    Ok(())
}

fn put_dict(dict: &Bound<'_, PyDict>, out: &mut Vec<u8>, depth: usize) -> PyResult<()> {
    out.push(b'{');
    for (place, pair) in dict.items().iter().enumerate() {
        let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
        if place > 0 {
            out.push(b',');
        }
        put_text(&key.str()?, out)?;
        out.push(b':');
        put_value(&value, out, depth + 1)?;
    }
    out.push(b'}');
    Ok(())
}

fn put_items(items: &Bound<'_, PyTuple>, out: &mut Vec<u8>, depth: usize) -> PyResult<()> {
    out.push(b'[');
    for (place, item) in items.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        put_value(&item, out, depth + 1)?;
    }
    out.push(b']');
    Ok(())
}
