//! The short cuts of `get_nowait` and `get`: a key that is exactly `str`, `bytes`
//! or `int`, the monotonic clock, and an entry that is live or absent.

use pyo3::Borrowed;
use pyo3::prelude::*;

use super::PyCache;
use super::key::{PyProbe, plain_hash};
use super::reading;
use crate::bindings::clock::{Clock, monotonic_ns};
use crate::bindings::hot::{self, Made, Shortcut};
use crate::cache::Read;

type Arguments<'a, 'py> = (Borrowed<'a, 'py, PyAny>, Option<Borrowed<'a, 'py, PyAny>>);

/// `key`, and `default` if it is given.
#[inline]
fn key_and_default<'a, 'py>(given: &[Borrowed<'a, 'py, PyAny>]) -> Option<Arguments<'a, 'py>> {
    match *given {
        [key] => Some((key, None)),
        [key, default] => Some((key, Some(default))),
        _ => None,
    }
}

pub(super) struct GetNowait;

impl Shortcut for GetNowait {
    type Class = PyCache;
    const NAME: &'static str = "get_nowait";

    #[inline]
    fn usual<'py>(
        slf: Borrowed<'_, 'py, PyCache>,
        arguments: &[Borrowed<'_, 'py, PyAny>],
    ) -> Option<Bound<'py, PyAny>> {
        let py = slf.py();
        let (key, default) = key_and_default(arguments)?;
        let cache = slf.get();
        if !matches!(cache.clock, Clock::Monotonic) {
            return None;
        }
        let hash = plain_hash(&key)?;
        let read = |value: &Py<PyAny>| value.bind(py).clone();
        let probe = PyProbe::new(&key);
        match cache.core.get_at_once(hash, &probe, monotonic_ns, read)? {
            Read::Hit(value) => Some(value),
            _ => Some(default.map_or_else(|| py.None().into_bound(py), Borrowed::to_owned)),
        }
    }

    fn made() -> &'static Made {
        static MADE: Made = Made::new();
        &MADE
    }
}

struct Get;

impl Shortcut for Get {
    type Class = PyCache;
    const NAME: &'static str = "get";

    #[inline]
    fn usual<'py>(
        slf: Borrowed<'_, 'py, PyCache>,
        arguments: &[Borrowed<'_, 'py, PyAny>],
    ) -> Option<Bound<'py, PyAny>> {
        let (key, default) = key_and_default(arguments)?;
        // What can't be made is made again by the method of `PyO3`, which raises.
        reading::new(slf, key, default).ok()
    }

    fn made() -> &'static Made {
        static MADE: Made = Made::new();
        &MADE
    }
}

/// To be called once, when the module is made.
pub(super) fn install(py: Python<'_>) -> PyResult<()> {
    reading::prepare(py)?;
    hot::install::<GetNowait>(py)?;
    hot::install::<Get>(py)
}
