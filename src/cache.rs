//! A cache in shards: entries by key, each with its own time to live, bounded in
//! number and weight.
//!
//! Generic over key and value, and over how keys are equal: `Probe` says what
//! may be asked under the lock and what may not. Nothing foreign (equality,
//! drops, callbacks) ever runs under a lock: lookups that need foreign equality
//! ask between two holds of the lock, and what leaves the cache is handed to the
//! caller in `Leaving`, to be dropped outside.
//!
//! A search that met a key only foreign code can compare takes a handle on it,
//! lets go of the lock, asks, and searches again from the start under the lock
//! with the answer remembered by the identity of that key. So every decision is
//! made on what the shard holds at that moment: there is no window for another
//! thread to invalidate it, and each round settles one more key.

mod ghost;
mod index;
mod leaving;
#[cfg(all(test, feature = "loom"))]
mod loom_tests;
mod policy;
mod probe;
mod queue;
mod rows;
mod s3fifo;
mod shard;
mod slab;
mod tally;
#[cfg(all(test, not(feature = "loom")))]
mod tests;

pub use leaving::{Cause, Gone, Leaving};
pub use policy::Eviction;
pub use probe::Probe;
pub use shard::{Budget, Counters, Entry, Read};

use crate::sync::Mutex;
use policy::Order;
use probe::Lookup;
use shard::Shard;

/// Entries of a full shard: as many as one table of the index holds. One shard up
/// to here keeps bound and policy exact.
const LARGEST_SHARD: usize = index::FULL;
/// Shards of a cache without a bound: enough that threads rarely meet in one.
const UNBOUNDED_SHARDS: usize = 64;
/// More shards than this only cost memory: an empty one takes about 300 bytes.
pub const MOST_SHARDS: usize = 4096;

/// What a cache is made of.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most entries, 1 or more; `None` for no bound.
    pub max_size: Option<usize>,
    /// Most weight, 1 or more; `None` for no bound.
    pub max_weight: Option<u64>,
    /// Who leaves when there is no room.
    pub eviction: Eviction,
    /// How many shards, 1 or more; `None` to choose by the bounds.
    pub shards: Option<usize>,
}

impl Bounds {
    /// A weight bound is not divided among shards, since one entry may need most
    /// of it: that one shard grows and shrinks in small steps, however large it
    /// is. Nor are there more shards than entries.
    fn shard_count(&self) -> usize {
        let chosen = match (self.max_weight, self.max_size) {
            (Some(_), _) => return 1,
            (None, None) => return self.shards.unwrap_or(UNBOUNDED_SHARDS),
            (None, Some(size)) => size.div_ceil(LARGEST_SHARD).min(MOST_SHARDS),
        };
        let most = self.max_size.unwrap_or(1);
        self.shards.unwrap_or(chosen).clamp(1, most)
    }

    /// The share of shard `at` of `count`; the shares add up to the bound.
    fn share(&self, at: usize, count: usize) -> usize {
        self.max_size.map_or(usize::MAX, |size| {
            size / count + usize::from(at < size % count)
        })
    }

    fn order(&self) -> Order {
        if self.max_size.is_none() && self.max_weight.is_none() {
            return Order::Unbounded;
        }
        Order::new(self.eviction)
    }
}

/// The cache; every method may be called from any thread.
#[derive(Debug)]
pub struct Cache<K, V> {
    shards: Box<[Mutex<Shard<K, V>>]>,
    bounds: Bounds,
}

impl<K, V> Cache<K, V> {
    /// An empty cache.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            shards: Self::shards(&bounds),
            bounds,
        }
    }

    fn shards(bounds: &Bounds) -> Box<[Mutex<Shard<K, V>>]> {
        let count = bounds.shard_count();
        (0..count)
            .map(|at| Mutex::new(Self::shard(bounds, at, count)))
            .collect()
    }

    fn shard(bounds: &Bounds, at: usize, count: usize) -> Shard<K, V> {
        let capacity = bounds.share(at, count);
        let max_weight = bounds.max_weight.unwrap_or(u64::MAX);
        Shard::new(bounds.order(), capacity, max_weight)
    }

    /// The live value of the key, as `read` takes it. `now` is asked for the time
    /// only if the key is held, under the lock: it must not run foreign code.
    #[inline]
    pub fn get<P: Probe<K>, R>(
        &self,
        hash: u64,
        probe: &P,
        now: impl FnOnce() -> u64,
        read: impl FnOnce(&V) -> R,
    ) -> Result<Read<K, V, R>, P::Error> {
        self.at(fold(hash), probe, |shard, slot| shard.get(slot, now, read))
    }

    /// As `get` where the answer needs neither foreign equality nor an entry to
    /// leave; else `None`, and nothing was done or counted.
    #[inline]
    pub fn get_at_once<P: Probe<K>, R>(
        &self,
        hash: u64,
        probe: &P,
        now: impl FnOnce() -> u64,
        read: impl FnOnce(&V) -> R,
    ) -> Option<Read<K, V, R>> {
        let hash = fold(hash);
        let mut shard = self.shard_of(hash).lock();
        let unsure = match shard.find(hash, probe, &[]) {
            Lookup::Found(slot) => return shard.hit(slot, now, read).ok().map(Read::Hit),
            Lookup::Absent => {
                shard.counters.misses += 1;
                return Some(Read::Miss);
            }
            Lookup::Unsure(key) => key,
        };
        drop(shard);
        drop(unsure);
        None
    }

    /// As `get`, and the value past its deadline too while its grace lasts.
    pub fn get_stale<P: Probe<K>, R>(
        &self,
        hash: u64,
        probe: &P,
        now: u64,
        read: impl FnOnce(&V) -> R,
    ) -> Result<Read<K, V, R>, P::Error> {
        self.at(fold(hash), probe, |shard, slot| {
            shard.get_stale(slot, now, read)
        })
    }

    /// As `get`, without counting a hit or a miss or keeping the entry longer.
    pub fn peek<P: Probe<K>, R>(
        &self,
        hash: u64,
        probe: &P,
        now: u64,
        read: impl FnOnce(&V) -> R,
    ) -> Result<Option<R>, P::Error> {
        self.at(fold(hash), probe, |shard, slot| {
            shard.peek(slot?, now, read)
        })
    }

    /// Takes in `entry`, the key of which is that of `probe`.
    pub fn set<P: Probe<K>>(
        &self,
        hash: u64,
        probe: &P,
        entry: Entry<K, V>,
        now: u64,
        gone: &mut Leaving<K, V>,
    ) -> Result<(), P::Error> {
        let hash = fold(hash);
        self.at(hash, probe, |shard, slot| {
            shard.set(slot, hash, entry, now, gone);
        })
    }

    /// Takes in `entry` unless the key has a live value: then it comes back.
    pub fn add<P: Probe<K>>(
        &self,
        hash: u64,
        probe: &P,
        entry: Entry<K, V>,
        now: u64,
        gone: &mut Leaving<K, V>,
    ) -> Result<Option<Entry<K, V>>, P::Error> {
        let hash = fold(hash);
        self.at(hash, probe, |shard, slot| {
            let live = slot.and_then(|slot| shard.peek(slot, now, |_| ()));
            if live.is_some() {
                return Some(entry);
            }
            shard.set(slot, hash, entry, now, gone);
            None
        })
    }

    /// Gives a live entry a new deadline; whether there was one.
    pub fn touch<P: Probe<K>>(
        &self,
        hash: u64,
        probe: &P,
        deadline: u64,
        now: u64,
    ) -> Result<bool, P::Error> {
        self.at(fold(hash), probe, |shard, slot| {
            slot.is_some_and(|slot| shard.set_deadline(slot, deadline, now))
        })
    }

    /// Takes the entry out; it was live unless its cause is `Expired`.
    pub fn delete<P: Probe<K>>(
        &self,
        hash: u64,
        probe: &P,
        now: u64,
    ) -> Result<Option<Gone<K, V>>, P::Error> {
        self.at(fold(hash), probe, |shard, slot| {
            slot.map(|slot| shard.delete(slot, now))
        })
    }

    /// Takes out some of what has expired; `true` when shard `at` is done. For a
    /// pass over everything call it until done for each of `shard_count`.
    pub fn sweep(&self, at: usize, now: u64, budget: Budget, gone: &mut Leaving<K, V>) -> bool {
        self.shards[at].lock().sweep(now, budget, gone)
    }

    /// Empties the cache at once, and hands out what it held, to be dropped as
    /// slowly as the caller likes.
    pub fn take_all(&self) -> impl Iterator<Item = Gone<K, V>> + use<K, V> {
        let count = self.shards.len();
        let mut taken = Vec::with_capacity(count);
        for (at, lock) in self.shards.iter().enumerate() {
            let mut empty = Self::shard(&self.bounds, at, count);
            let mut shard = lock.lock();
            empty.counters = shard.counters;
            taken.push(std::mem::replace(&mut *shard, empty));
        }
        taken.into_iter().flat_map(Shard::into_gone)
    }

    /// Entries held; some may have expired and not been swept yet.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sum(|shard| shard.slab().len() as u64) as usize
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The weight of the entries held.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.sum(Shard::weight)
    }

    fn sum(&self, of: impl Fn(&Shard<K, V>) -> u64) -> u64 {
        self.shards.iter().map(|shard| of(&shard.lock())).sum()
    }

    /// Hits, misses, evictions and expirations of all shards.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut total = Counters::default();
        for shard in &self.shards {
            let part = shard.lock().counters;
            total.hits += part.hits;
            total.misses += part.misses;
            total.evictions += part.evictions;
            total.expirations += part.expirations;
        }
        total
    }

    /// How many shards there are.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Shows each live entry of shard `at` with its deadline, under its lock:
    /// `show` must not run foreign code.
    pub fn each(&self, at: usize, now: u64, mut show: impl FnMut(&K, &V, u64)) {
        let shard = self.shards[at].lock();
        let live = shard.slab().iter().filter(|held| now < held.deadline());
        live.for_each(|held| show(&held.key, &held.value, held.deadline()));
    }

    /// Shows every entry marked as traced to a collector. Never waits: a shard
    /// that is locked now is passed over, which only makes its entries live on.
    pub fn trace<E>(&self, mut visit: impl FnMut(&K, &V) -> Result<(), E>) -> Result<(), E> {
        for shard in &self.shards {
            let Some(shard) = shard.try_lock() else {
                continue;
            };
            if shard.slab().traced() == 0 {
                continue;
            }
            let mut traced = shard.slab().iter().filter(|held| held.traced());
            traced.try_for_each(|held| visit(&held.key, &held.value))?;
        }
        Ok(())
    }

    /// Acts on the shard of a key and its slot there, under the lock, by the
    /// protocol of the module.
    #[inline]
    fn at<P: Probe<K>, R>(
        &self,
        hash: u32,
        probe: &P,
        act: impl FnOnce(&mut Shard<K, V>, Option<u32>) -> R,
    ) -> Result<R, P::Error> {
        let lock = self.shard_of(hash);
        let mut shard = lock.lock();
        let unsure = match shard.find(hash, probe, &[]) {
            Lookup::Found(slot) => return Ok(act(&mut shard, Some(slot))),
            Lookup::Absent => return Ok(act(&mut shard, None)),
            Lookup::Unsure(key) => key,
        };
        drop(shard);
        Self::at_asking(lock, hash, probe, unsure, act)
    }

    /// Asks about one held key after the other, never under the lock.
    #[cold]
    fn at_asking<P: Probe<K>, R>(
        lock: &Mutex<Shard<K, V>>,
        hash: u32,
        probe: &P,
        mut unsure: K,
        act: impl FnOnce(&mut Shard<K, V>, Option<u32>) -> R,
    ) -> Result<R, P::Error> {
        // Outlives every guard: the last handle on a key may be the one in here.
        let mut asked = Vec::new();
        loop {
            let equal = probe.ask(&unsure)?;
            asked.push((unsure, equal));
            let mut shard = lock.lock();
            unsure = match shard.find(hash, probe, &asked) {
                Lookup::Found(slot) => return Ok(act(&mut shard, Some(slot))),
                Lookup::Absent => return Ok(act(&mut shard, None)),
                Lookup::Unsure(key) => key,
            };
        }
    }

    fn shard_of(&self, hash: u32) -> &Mutex<Shard<K, V>> {
        let at = (u64::from(hash) * self.shards.len() as u64) >> 32;
        &self.shards[at as usize]
    }
}

/// 64 bits of a caller's hash, however poor, as 32 good ones.
#[inline]
fn fold(hash: u64) -> u32 {
    (hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as u32
}
