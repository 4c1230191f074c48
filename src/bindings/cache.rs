//! `_rust.Cache`: the core cache over Python objects; `TTLCache` derives from it.

mod hot;
mod key;
mod operations;
mod reading;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::Mutex;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple, PyType};

use super::args;
use super::clock::Clock;
use super::errors::CacheKeyError;
use crate::cache::{Bounds, Budget, Cache, Cause, Eviction, Leaving, MOST_SHARDS, Read};
use key::PyProbe;
use operations::{Hooks, hash_of, nanoseconds};

type Core = Cache<Py<PyAny>, Py<PyAny>>;

/// What one `sweep` call does at most: well under a millisecond of work, the
/// drops included.
const SWEEP: Budget = Budget {
    slots: 4096,
    removals: 512,
};

/// A bounded cache with a time to live per entry, any hashable key. No call
/// waits; any thread may call. `mtaio.cache.TTLCache` is its public face.
#[pyclass(name = "Cache", module = "mtaio._rust", frozen, subclass, weakref)]
pub(crate) struct PyCache {
    core: Core,
    /// Nanoseconds; `None` is for ever.
    default_ttl: Option<u64>,
    clock: Clock,
    hooks: Mutex<Hooks>,
    weighed: bool,
    watched: bool,
    loads: AtomicU64,
    load_errors: AtomicU64,
}

fn eviction(name: &str) -> PyResult<Eviction> {
    match name {
        "s3fifo" => Ok(Eviction::S3Fifo),
        "lru" => Ok(Eviction::Lru),
        "lfu" => Ok(Eviction::Lfu),
        "fifo" => Ok(Eviction::Fifo),
        _ => Err(PyValueError::new_err(format!(
            "eviction must be one of s3fifo, lru, lfu, fifo, got {name:?}"
        ))),
    }
}

fn callable(name: &str, given: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Py<PyAny>>> {
    match given {
        Some(hook) if !hook.is_callable() => Err(PyTypeError::new_err(format!(
            "{name} must be callable or None, got {}",
            hook.repr()?
        ))),
        hook => Ok(hook.map(|hook| hook.clone().unbind())),
    }
}

fn optional_whole(name: &str, given: Option<&Bound<'_, PyAny>>) -> PyResult<Option<u64>> {
    given.map(|value| args::whole(name, value, 1)).transpose()
}

fn shard_count(given: &Bound<'_, PyAny>) -> PyResult<usize> {
    let count = args::whole("shards", given, 1)? as usize;
    if count > MOST_SHARDS {
        return Err(PyValueError::new_err(format!(
            "shards must be an int from 1 to {MOST_SHARDS}, got {count}"
        )));
    }
    Ok(count)
}

#[pymethods]
impl PyCache {
    #[new]
    #[pyo3(signature = (default_ttl, max_size, *, max_weight, eviction, shards, on_evicted, weigher, clock))]
    #[allow(clippy::too_many_arguments)] // one keyword each; the Python class documents them
    fn new(
        default_ttl: Option<&Bound<'_, PyAny>>,
        max_size: Option<&Bound<'_, PyAny>>,
        max_weight: Option<&Bound<'_, PyAny>>,
        eviction: &str,
        shards: Option<&Bound<'_, PyAny>>,
        on_evicted: Option<&Bound<'_, PyAny>>,
        weigher: Option<&Bound<'_, PyAny>>,
        clock: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let ttl = default_ttl.map(|ttl| args::positive("default_ttl", ttl));
        let bounds = Bounds {
            max_size: optional_whole("max_size", max_size)?.map(|size| size as usize),
            max_weight: optional_whole("max_weight", max_weight)?,
            eviction: self::eviction(eviction)?,
            shards: shards.map(shard_count).transpose()?,
        };
        let hooks = Hooks {
            on_evicted: callable("on_evicted", on_evicted)?,
            weigher: callable("weigher", weigher)?,
        };
        Ok(Self {
            core: Cache::new(bounds),
            default_ttl: ttl.transpose()?.map(nanoseconds),
            clock: Clock::new(callable("clock", clock)?),
            weighed: hooks.weigher.is_some(),
            watched: hooks.on_evicted.is_some(),
            hooks: Mutex::new(hooks),
            loads: AtomicU64::new(0),
            load_errors: AtomicU64::new(0),
        })
    }

    /// `Cache[T]`: the type of the values, for type checkers.
    #[classmethod]
    fn __class_getitem__(cls: &Bound<'_, PyType>, item: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
        let alias = cls.py().import("types")?.getattr("GenericAlias")?;
        Ok(alias.call1((cls, item))?.unbind())
    }

    /// Return the live value of `key`, else `default`. Never waits.
    ///
    /// Any thread may call. Raises `TypeError` if `key` is not hashable.
    #[pyo3(signature = (key, default = None))]
    fn get_nowait(
        &self,
        key: &Bound<'_, PyAny>,
        default: Option<Py<PyAny>>,
    ) -> PyResult<Option<Py<PyAny>>> {
        Ok(self.find(key)?.or(default))
    }

    /// Return the live value of `key`, else `default`. Never waits.
    ///
    /// To be awaited; looked up when it is awaited, which raises `TypeError` if
    /// `key` is not hashable.
    #[pyo3(signature = (key, default = None))]
    fn get<'py>(
        slf: &Bound<'py, Self>,
        key: &Bound<'py, PyAny>,
        default: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let default = default.map(|default| default.as_borrowed());
        reading::new(slf.as_borrowed(), key.as_borrowed(), default)
    }

    /// Holds `value` under `key` for `ttl` seconds, or the cache's default.
    #[pyo3(signature = (key, value, ttl = None))]
    fn set_nowait(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.set(key, value, ttl)
    }

    /// As `set_nowait` if `key` has no live value; whether it was stored.
    #[pyo3(signature = (key, value, ttl = None))]
    fn add_nowait(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        self.add(key, value, ttl, 0)
    }

    /// As `set_nowait`, but without `left` seconds it lives for ever.
    fn _set_left(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        left: Option<f64>,
    ) -> PyResult<()> {
        let now = self.now(key.py())?;
        let deadline = left.map_or(u64::MAX, |left| now.saturating_add(nanoseconds(left)));
        self.set_until(key, value, deadline, now)
    }

    /// As `add_nowait`; `_get_stale` finds it for `stale` seconds past its `ttl`.
    fn _add_stale(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        stale: f64,
    ) -> PyResult<bool> {
        self.add(key, value, ttl, nanoseconds(stale))
    }

    /// The value and whether it is past its time, else `None`.
    fn _get_stale(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<(Py<PyAny>, bool)>> {
        let py = key.py();
        let hash = hash_of(key)?;
        let now = self.now(py)?;
        let probe = PyProbe::new(key);
        let read = |value: &Py<PyAny>| value.clone_ref(py);
        let found = self.core.get_stale(hash, &probe, now, read)?;
        let stale = matches!(found, Read::Stale(_));
        Ok(self.taken(py, found).map(|value| (value, stale)))
    }

    /// The live value of `key`, else `default`; counts and moves nothing.
    fn _peek(&self, key: &Bound<'_, PyAny>, default: Py<PyAny>) -> PyResult<Py<PyAny>> {
        let py = key.py();
        let hash = hash_of(key)?;
        let now = self.now(py)?;
        let read = |value: &Py<PyAny>| value.clone_ref(py);
        let found = self.core.peek(hash, &PyProbe::new(key), now, read)?;
        Ok(found.unwrap_or(default))
    }

    /// Gives a live entry `ttl` seconds from now; whether there was one.
    #[pyo3(signature = (key, ttl = None))]
    fn touch_nowait(
        &self,
        key: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<bool> {
        let hash = hash_of(key)?;
        let now = self.now(key.py())?;
        let deadline = self.deadline(ttl, now)?;
        self.core.touch(hash, &PyProbe::new(key), deadline, now)
    }

    /// Takes `key` out; whether it had a live value.
    fn delete_nowait(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        self.remove(key)
    }

    /// Takes `key` out and returns its live value, else `default`.
    #[pyo3(signature = (key, *default))]
    fn pop_nowait(
        &self,
        key: &Bound<'_, PyAny>,
        default: &Bound<'_, PyTuple>,
    ) -> PyResult<Py<PyAny>> {
        if default.len() > 1 {
            let count = default.len();
            return Err(PyTypeError::new_err(format!(
                "pop_nowait() takes a key and at most one default, got {count} defaults"
            )));
        }
        let hash = hash_of(key)?;
        let now = self.now(key.py())?;
        match self.core.delete(hash, &PyProbe::new(key), now)? {
            Some(gone) if gone.cause != Cause::Expired => return Ok(gone.value),
            gone => self.tell(key.py(), gone),
        }
        match default.get_item(0) {
            Ok(default) => Ok(default.unbind()),
            Err(_) => Err(CacheKeyError::new_err(key.clone().unbind())),
        }
    }

    /// A dict with the value of each of `keys`, or `default`.
    #[pyo3(signature = (keys, default = None))]
    fn get_many_nowait<'py>(
        &self,
        keys: &Bound<'py, PyAny>,
        default: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let found = PyDict::new(keys.py());
        for key in args::iterable("keys", keys)? {
            let key = key?;
            match self.find(&key)? {
                Some(value) => found.set_item(key, value)?,
                None => found.set_item(key, default)?,
            }
        }
        Ok(found)
    }

    /// Sets each item of the mapping `items`.
    #[pyo3(signature = (items, ttl = None))]
    fn set_many_nowait(
        &self,
        items: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        self.deadline(ttl, 0)?;
        let items = args::mapping("items", items)?.items()?;
        for pair in items {
            let (key, value): (Bound<'_, PyAny>, Bound<'_, PyAny>) = pair.extract()?;
            self.set(&key, &value, ttl)?;
        }
        Ok(())
    }

    /// Takes out each of `keys`; how many had a live value.
    fn delete_many_nowait(&self, keys: &Bound<'_, PyAny>) -> PyResult<u64> {
        let mut live = 0;
        for key in args::iterable("keys", keys)? {
            live += u64::from(self.remove(&key?)?);
        }
        Ok(live)
    }

    /// Takes everything out.
    fn clear_nowait(&self, py: Python<'_>) {
        self.tell(py, self.core.take_all());
    }

    /// All live pairs, in no particular order.
    fn items_nowait<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let pairs = self.all_live(py)?.map(|(key, value, _)| (key, value));
        PyList::new(py, pairs.collect::<Vec<_>>())
    }

    /// The live triples of shard `at` of `_shards`: key, value and seconds left
    /// (`None` for ever).
    fn _records<'py>(&self, py: Python<'py>, at: usize) -> PyResult<Bound<'py, PyList>> {
        let now = self.now(py)?;
        let left = |deadline: u64| {
            let forever = deadline >= u64::MAX - 1;
            (!forever).then(|| deadline.saturating_sub(now) as f64 / 1e9)
        };
        let live = self.live(py, at, now).into_iter();
        let records = live.map(|(key, value, deadline)| (key, value, left(deadline)));
        PyList::new(py, records.collect::<Vec<_>>())
    }

    /// One bounded step of taking out what has expired: shard `at` of
    /// `_shards`. `True` when that shard is done.
    fn _sweep(&self, py: Python<'_>, at: usize) -> PyResult<bool> {
        let now = self.now(py)?;
        let mut left = Leaving::default();
        let done = self.core.sweep(at, now, SWEEP, &mut left);
        self.tell(py, left);
        Ok(done)
    }

    /// How many shards there are.
    #[getter]
    fn _shards(&self) -> usize {
        self.core.shard_count()
    }

    /// Counts one computation of `get_or_set`.
    fn _count_load(&self, failed: bool) {
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.load_errors
            .fetch_add(u64::from(failed), Ordering::Relaxed);
    }

    /// The figures of `stats()`, in the order of its fields.
    fn _counters(&self) -> (u64, u64, u64, u64, u64, u64, usize, u64) {
        let counted = self.core.counters();
        (
            counted.hits,
            counted.misses,
            counted.evictions,
            counted.expirations,
            self.loads.load(Ordering::Relaxed),
            self.load_errors.load(Ordering::Relaxed),
            self.core.len(),
            self.core.weight(),
        )
    }

    fn __len__(&self) -> usize {
        self.core.len()
    }

    fn __contains__(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let hash = hash_of(key)?;
        let now = self.now(key.py())?;
        let found = self.core.peek(hash, &PyProbe::new(key), now, |_| ())?;
        Ok(found.is_some())
    }

    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let keys = self.all_live(py)?.map(|(key, _, _)| key);
        let keys = PyList::new(py, keys.collect::<Vec<_>>())?;
        keys.call_method0("__iter__")
    }

    #[allow(clippy::needless_pass_by_value)] // PyO3 fixes the signature
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        if let Some(hooks) = self.hooks.try_lock() {
            visit.call(&hooks.on_evicted)?;
            visit.call(&hooks.weigher)?;
        }
        visit.call(self.clock.object())?;
        self.core.trace(|key, value| {
            visit.call(key)?;
            visit.call(value)
        })
    }

    fn __clear__(&self) {
        let hooks = std::mem::take(&mut *self.hooks.lock());
        let taken = self.core.take_all();
        drop(hooks);
        taken.for_each(drop);
    }
}

pub(crate) fn register(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<PyCache>()?;
    hot::install(m.py())
}
