//! What every call of the cache does around the core: time, weight, what left.

use pyo3::prelude::*;

use super::key::{PyProbe, is_collected};
use super::{PyCache, args};
use crate::bindings::clock::{Clock, monotonic_ns};
use crate::cache::{Cause, Entry, Gone, Leaving, Read};

pub(super) type Left = Gone<Py<PyAny>, Py<PyAny>>;
pub(super) type Found = Read<Py<PyAny>, Py<PyAny>, Py<PyAny>>;

/// A live entry: key, value, deadline.
type Live = (Py<PyAny>, Py<PyAny>, u64);

/// The caller's functions. Behind a lock only so that the collector can clear
/// them; a cache without any never takes it.
#[derive(Default)]
pub(super) struct Hooks {
    pub(super) on_evicted: Option<Py<PyAny>>,
    pub(super) weigher: Option<Py<PyAny>>,
}

pub(super) fn nanoseconds(seconds: f64) -> u64 {
    // Saturates: 584 years is for ever.
    (seconds * 1e9) as u64
}

fn cause_name(cause: Cause) -> &'static str {
    match cause {
        Cause::Size => "size",
        Cause::Expired => "expired",
        Cause::Replaced => "replaced",
        Cause::Deleted => "deleted",
    }
}

pub(super) fn hash_of(key: &Bound<'_, PyAny>) -> PyResult<u64> {
    Ok(key.hash()? as u64)
}

impl PyCache {
    pub(super) fn now(&self, py: Python<'_>) -> PyResult<u64> {
        self.clock.now_ns(py)
    }

    /// When an entry set now expires.
    pub(super) fn deadline(&self, ttl: Option<&Bound<'_, PyAny>>, now: u64) -> PyResult<u64> {
        let ttl = match ttl {
            Some(ttl) => Some(nanoseconds(args::positive("ttl", ttl)?)),
            None => self.default_ttl,
        };
        Ok(ttl.map_or(u64::MAX, |ttl| now.saturating_add(ttl)))
    }

    fn weight_of(&self, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<u64> {
        if !self.weighed {
            return Ok(0);
        }
        let py = key.py();
        let weigher = self.hooks.lock().weigher.as_ref().map(|w| w.clone_ref(py));
        let Some(weigher) = weigher else { return Ok(0) };
        let weight = weigher.bind(py).call1((key, value))?;
        args::whole("weigher(key, value)", &weight, 0)
    }

    pub(super) fn entry(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        deadline: u64,
    ) -> PyResult<Entry<Py<PyAny>, Py<PyAny>>> {
        Ok(Entry {
            weight: self.weight_of(key, value)?,
            traced: is_collected(value) || is_collected(key),
            key: key.clone().unbind(),
            value: value.clone().unbind(),
            deadline,
            grace: 0,
        })
    }

    /// Takes `value` in if `key` has no live one; whether it did.
    pub(super) fn add(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
        grace: u64,
    ) -> PyResult<bool> {
        let hash = hash_of(key)?;
        let now = self.now(key.py())?;
        let mut entry = self.entry(key, value, self.deadline(ttl, now)?)?;
        entry.grace = grace;
        let mut left = Leaving::default();
        let probe = PyProbe::new(key);
        let refused = self.core.add(hash, &probe, entry, now, &mut left)?;
        self.tell(key.py(), left);
        Ok(refused.is_none())
    }

    pub(super) fn set(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        ttl: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let now = self.now(key.py())?;
        self.set_until(key, value, self.deadline(ttl, now)?, now)
    }

    pub(super) fn set_until(
        &self,
        key: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        deadline: u64,
        now: u64,
    ) -> PyResult<()> {
        let hash = hash_of(key)?;
        let entry = self.entry(key, value, deadline)?;
        let mut left = Leaving::default();
        let done = self
            .core
            .set(hash, &PyProbe::new(key), entry, now, &mut left);
        self.tell(key.py(), left);
        done
    }

    #[inline]
    pub(super) fn find(&self, key: &Bound<'_, PyAny>) -> PyResult<Option<Py<PyAny>>> {
        let py = key.py();
        let hash = hash_of(key)?;
        let probe = PyProbe::new(key);
        let read = |value: &Py<PyAny>| value.clone_ref(py);
        let found = match &self.clock {
            // Read under the lock, and only if the key is held: a miss is cheap.
            Clock::Monotonic => self.core.get(hash, &probe, monotonic_ns, read)?,
            clock @ Clock::Python(_) => {
                let now = clock.now_ns(py)?;
                self.core.get(hash, &probe, || now, read)?
            }
        };
        Ok(self.taken(py, found))
    }

    /// What a read came to, once the hook knows what it took out.
    #[inline]
    pub(super) fn taken(&self, py: Python<'_>, read: Found) -> Option<Py<PyAny>> {
        match read {
            Read::Hit(value) | Read::Stale(value) => Some(value),
            Read::Miss => None,
            Read::Expired(gone) => {
                self.tell(py, [gone]);
                None
            }
        }
    }

    /// Takes the entry out; whether it was live.
    pub(super) fn remove(&self, key: &Bound<'_, PyAny>) -> PyResult<bool> {
        let now = self.now(key.py())?;
        let gone = self.core.delete(hash_of(key)?, &PyProbe::new(key), now)?;
        let live = gone
            .as_ref()
            .is_some_and(|gone| gone.cause != Cause::Expired);
        self.tell(key.py(), gone);
        Ok(live)
    }

    /// Tells the hook of each that left, then drops it; no lock is held. A hook
    /// that raises is reported through `sys.unraisablehook`, and the next runs.
    #[inline]
    pub(super) fn tell(&self, py: Python<'_>, left: impl IntoIterator<Item = Left>) {
        if self.watched {
            self.tell_hook(py, left);
        } else {
            left.into_iter().for_each(drop);
        }
    }

    #[cold]
    fn tell_hook(&self, py: Python<'_>, left: impl IntoIterator<Item = Left>) {
        let hook = self
            .hooks
            .lock()
            .on_evicted
            .as_ref()
            .map(|h| h.clone_ref(py));
        let Some(hook) = hook else { return };
        let hook = hook.bind(py);
        for gone in left {
            let cause = cause_name(gone.cause);
            if let Err(error) = hook.call1((gone.key, gone.value, cause)) {
                error.write_unraisable(py, Some(hook));
            }
        }
    }

    /// Handles on all live entries of shard `at`, with their deadlines.
    pub(super) fn live(&self, py: Python<'_>, at: usize, now: u64) -> Vec<Live> {
        let mut all = Vec::new();
        self.core.each(at, now, |key, value, deadline| {
            all.push((key.clone_ref(py), value.clone_ref(py), deadline));
        });
        all
    }

    /// The same of all shards, locked one at a time.
    pub(super) fn all_live(&self, py: Python<'_>) -> PyResult<impl Iterator<Item = Live>> {
        let now = self.now(py)?;
        let shards = 0..self.core.shard_count();
        let live: Vec<Live> = shards.flat_map(|at| self.live(py, at, now)).collect();
        Ok(live.into_iter())
    }
}
