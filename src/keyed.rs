//! Many buckets by key, in bounded memory.
//!
//! All have the same quota, so a key costs its hash and one word. A key that is
//! not there has a full bucket; a bucket that is full again is forgotten, a few
//! with every key that comes. A key that still owes is never forgotten: when
//! `max_keys` owe, a new key is refused.
//!
//! ```text
//! a key's word:   0 | grains at which the bucket is full; see `bucket`
//!                 1 | number of the line of those who wait for this key
//! ```
//!
//! Keys are compared by the caller's `Seek`, which must not run foreign code:
//! it is asked under a shard's lock. Where it can't tell, it says so, and the
//! caller finds out and asks again with no lock held. Keys leave the map into
//! `dropped`, which the caller drops, again with no lock held.
//!
//! Locks: `lines` before a shard, and never two shards.

use crate::bucket::Quota;
use crate::limiter::{Counts, Joined};
use crate::line::Grant;
pub use crate::lines::Ask;
use crate::lines::Lines;
use crate::sync::{AtomicU64, Mutex, Ordering};
use hashbrown::HashTable;

const HELD: u64 = 1 << 63;
/// Slots looked at for full buckets with each new key, when there is room...
const STEP: usize = 4;
/// ...and when there is none.
const LONG_STEP: usize = 64;
/// Below this many keys one shard is enough, and forgets exactly.
const ONE_SHARD: u64 = 4096;
const SHARDS: usize = 16;

/// How a key is found and, if it is new, made.
pub trait Seek<K> {
    /// Whether `other` is the key, or None if that can't be told under a lock.
    fn same(&mut self, other: &K) -> Option<bool>;
    /// The key, to be kept.
    fn make(&mut self) -> K;
}

/// `Seek::same` could not tell: find out, then call again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsure;

/// What `try_take` came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The tokens are taken.
    Granted,
    /// Too few tokens now.
    Short,
    /// Others came first and wait for this key.
    Held,
    /// The key is new and `max_keys` keys owe.
    Crowded,
}

#[derive(Debug)]
struct Entry<K> {
    hash: u64,
    key: K,
    word: u64,
}

#[derive(Debug)]
struct Shard<K> {
    table: HashTable<Entry<K>>,
    /// The next slot to look at for a full bucket.
    hand: usize,
}

impl<K> Shard<K> {
    #[inline]
    fn find(
        &self,
        hash: u64,
        mut same: impl FnMut(&K) -> Option<bool>,
    ) -> Result<Option<usize>, Unsure> {
        for index in self.table.iter_hash_buckets(hash) {
            if let Some(entry) = self.table.get_bucket(index)
                && entry.hash == hash
                && same(&entry.key).ok_or(Unsure)?
            {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    fn word(&mut self, index: usize) -> &mut u64 {
        let entry = self.table.get_bucket_mut(index);
        &mut entry.expect("an index found under this lock").word
    }

    /// Forget the full buckets among the next `slots`. How many they were.
    fn sweep(&mut self, slots: usize, reading: u64, dropped: &mut Vec<K>) -> usize {
        let before = dropped.len();
        for _ in 0..slots.min(self.table.num_buckets()) {
            self.hand = (self.hand + 1) % self.table.num_buckets();
            let full = |entry: &Entry<K>| entry.word <= reading;
            if self.table.get_bucket(self.hand).is_some_and(full)
                && let Ok(entry) = self.table.get_bucket_entry(self.hand)
            {
                dropped.push(entry.remove().0.key);
            }
        }
        dropped.len() - before
    }

    fn insert(&mut self, hash: u64, key: K, word: u64) {
        self.table
            .insert_unique(hash, Entry { hash, key, word }, |entry| entry.hash);
    }
}

/// See the module's text. Any thread may call anything.
#[derive(Debug)]
pub struct KeyedBuckets<K> {
    quota: Quota,
    start_ns: u64,
    max_keys: u64,
    keys: AtomicU64,
    shards: Box<[Mutex<Shard<K>>]>,
    /// The shard that gives way next when there is no room.
    next: AtomicU64,
    lines: Mutex<Lines>,
    granted: AtomicU64,
    refused: AtomicU64,
}

impl<K> KeyedBuckets<K> {
    /// No keys yet; at most `max_keys` will be remembered.
    #[must_use]
    pub fn new(quota: Quota, max_keys: u64, now: u64) -> Self {
        let shards = if max_keys < ONE_SHARD { 1 } else { SHARDS };
        let shard = || {
            Mutex::new(Shard {
                table: HashTable::new(),
                hand: 0,
            })
        };
        Self {
            quota,
            start_ns: now,
            max_keys,
            keys: AtomicU64::new(0),
            shards: std::iter::repeat_with(shard).take(shards).collect(),
            next: AtomicU64::new(0),
            lines: Mutex::new(Lines::default()),
            granted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The terms of each key.
    #[must_use]
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// The most keys remembered.
    #[must_use]
    pub fn max_keys(&self) -> u64 {
        self.max_keys
    }

    /// Keys remembered now, those full again and not yet forgotten included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.load(Ordering::Relaxed).min(self.max_keys) as usize
    }

    /// Whether no key is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Visit all keys, if no lock is in the way.
    pub fn visit<E>(&self, mut each: impl FnMut(&K) -> Result<(), E>) -> Result<(), E> {
        for shard in &self.shards {
            if let Some(shard) = shard.try_lock() {
                shard.table.iter().try_for_each(|entry| each(&entry.key))?;
            }
        }
        Ok(())
    }

    /// Forget all keys, whatever they owe. For an owner that is going away.
    pub fn clear(&self) -> Vec<K> {
        let mut keys = Vec::new();
        for shard in &self.shards {
            let table = std::mem::take(&mut shard.lock().table);
            self.keys.fetch_sub(table.len() as u64, Ordering::Relaxed);
            keys.extend(table.into_iter().map(|entry| entry.key));
        }
        keys
    }

    /// Take `tokens` (at most the burst) from the key's bucket, or nothing.
    #[inline]
    pub fn try_take(
        &self,
        hash: u64,
        seek: &mut impl Seek<K>,
        (tokens, now): (u64, u64),
        dropped: &mut Vec<K>,
    ) -> Result<Taken, Unsure> {
        let reading = self.reading(now);
        let mut shard = self.shard(hash).lock();
        let taken = match shard.find(hash, |key| seek.same(key))? {
            Some(index) => self.take(shard.word(index), tokens, reading),
            None => self.take_new(&mut shard, hash, seek, (tokens, reading), dropped),
        };
        drop(shard);
        match taken {
            Taken::Granted => _ = self.granted.fetch_add(tokens, Ordering::Relaxed),
            Taken::Crowded => self.make_room(reading, dropped),
            Taken::Held => return self.take_from_line(hash, seek, (tokens, now)),
            Taken::Short => {}
        }
        Ok(taken)
    }

    /// Take where a line is open: nobody may wait in it any more.
    fn take_from_line(
        &self,
        hash: u64,
        seek: &mut impl Seek<K>,
        (tokens, now): (u64, u64),
    ) -> Result<Taken, Unsure> {
        let mut lines = self.lines.lock();
        let mut shard = self.shard(hash).lock();
        let index = shard.find(hash, |key| seek.same(key))?;
        let word = index.map_or(0, |index| *shard.word(index));
        if word & HELD == 0 {
            // Closed since: the caller asks again.
            return Ok(Taken::Held);
        }
        // Short too: perhaps by the grant of a loop that is gone.
        let taken = lines.try_take(word & !HELD, tokens, now);
        Ok(taken.map_or(Taken::Held, |()| Taken::Granted))
    }

    /// As `try_take` where the key is remembered and nobody waits for it. None
    /// where that is not so, or `same` can't tell: then nothing was done.
    ///
    /// Neither keeps nor drops a key.
    #[inline]
    pub fn try_take_known(
        &self,
        hash: u64,
        same: impl FnMut(&K) -> Option<bool>,
        tokens: u64,
        now: u64,
    ) -> Option<Taken> {
        let reading = self.reading(now);
        let mut shard = self.shard(hash).lock();
        let index = shard.find(hash, same).ok()??;
        let taken = self.take(shard.word(index), tokens, reading);
        drop(shard);
        match taken {
            Taken::Granted => _ = self.granted.fetch_add(tokens, Ordering::Relaxed),
            Taken::Short => {}
            Taken::Held | Taken::Crowded => return None,
        }
        Some(taken)
    }

    /// Take at once, or stand in the key's line. None: no room for the key.
    pub fn join(
        &self,
        hash: u64,
        seek: &mut impl Seek<K>,
        ask: &Ask,
        dropped: &mut Vec<K>,
    ) -> Result<Option<Joined>, Unsure> {
        let reading = self.reading(ask.now);
        let mut lines = self.lines.lock();
        let mut shard = self.shard(hash).lock();
        let Some(index) = shard.find(hash, |key| seek.same(key))? else {
            let taken = self.take_new(&mut shard, hash, seek, (ask.tokens, reading), dropped);
            if taken != Taken::Granted {
                return Ok(None);
            }
            self.granted.fetch_add(ask.tokens, Ordering::Relaxed);
            return Ok(Some(Joined::Granted));
        };
        let word = shard.word(index);
        if *word & HELD == 0 {
            *word = HELD | lines.open(hash, &self.quota, self.start_ns, *word);
        }
        let joined = lines.join(*word & !HELD, ask);
        drop(shard);
        self.close(&mut lines);
        if let Joined::TooLong(_) = joined {
            self.count_refused();
        }
        Ok(Some(joined))
    }

    /// Nanoseconds until `tokens` asked now for the key would be granted.
    pub fn wait_ns(
        &self,
        hash: u64,
        seek: &mut impl Seek<K>,
        (tokens, now): (u64, u64),
    ) -> Result<u64, Unsure> {
        let mut lines = self.lines.lock();
        let mut shard = self.shard(hash).lock();
        Ok(
            match shard
                .find(hash, |key| seek.same(key))?
                .map(|index| *shard.word(index))
            {
                None => 0,
                Some(held) if held & HELD != 0 => lines.wait_ns(held & !HELD, tokens, now),
                Some(full_at) => {
                    let age = now.saturating_sub(self.start_ns);
                    self.quota.wait_ns(full_at, u128::from(tokens), age)
                }
            },
        )
    }

    /// Give back what a collected grant took, unused. As `Limiter::refund`.
    pub fn refund(
        &self,
        hash: u64,
        seek: &mut impl Seek<K>,
        grant: &Grant,
        now: u64,
        latest: impl FnOnce() -> u64,
    ) -> Result<(), Unsure> {
        let mut lines = self.lines.lock();
        let mut shard = self.shard(hash).lock();
        // A key that is not there was full again: nothing is owed.
        if let Some(index) = shard.find(hash, |key| seek.same(key))? {
            let word = shard.word(index);
            if *word & HELD != 0 {
                let id = *word & !HELD;
                drop(shard);
                lines.refund(id, grant, now, latest);
                self.close(&mut lines);
                return Ok(());
            }
            let taken = self.reading(grant.taken_ns);
            *word = self
                .quota
                .refund(*word, grant.tokens, taken, self.reading(latest()));
        }
        self.granted.fetch_sub(grant.tokens, Ordering::Relaxed);
        Ok(())
    }

    /// As `Limiter::leave`.
    pub fn leave(&self, ticket: u64, now: u64, latest: impl FnOnce() -> u64) -> bool {
        self.tend(|lines| lines.leave(ticket, now, latest))
    }

    /// As `Limiter::drop_lane`.
    pub fn drop_lane(&self, lane: u64, now: u64, latest: impl Fn() -> u64) {
        self.tend(|lines| lines.drop_lane(lane, now, latest));
    }

    /// As `Limiter::serve`, for all keys.
    pub fn serve(&self, now: u64) -> Vec<u64> {
        self.tend(|lines| {
            lines.serve(now);
            lines.lanes()
        })
    }

    /// As `Limiter::collect`, for all keys.
    pub fn collect(&self, lane: u64) -> Vec<Grant> {
        self.tend(|lines| lines.collect(lane))
    }

    /// Nanoseconds until `serve` has something to do; None if nobody waits.
    pub fn due_ns(&self, now: u64) -> Option<u64> {
        let due = self.lines.lock().due();
        due.map(|due| due.saturating_sub(now))
    }

    /// Count a request that was refused for good.
    pub fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Over all keys.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let (granted, waiting, waited_ns) = self.lines.lock().counts();
        Counts {
            granted: granted.wrapping_add(self.granted.load(Ordering::Relaxed)),
            refused: self.refused.load(Ordering::Relaxed),
            waiting,
            waited_ns,
        }
    }

    fn reading(&self, now: u64) -> u64 {
        self.quota.grains(now.saturating_sub(self.start_ns))
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard<K>> {
        // hashbrown uses the top 7 bits and the low ones; these are between.
        &self.shards[(hash >> 40) as usize % self.shards.len()]
    }

    #[inline]
    fn take(&self, word: &mut u64, tokens: u64, reading: u64) -> Taken {
        if *word & HELD != 0 {
            return Taken::Held;
        }
        match self.quota.grant(*word, tokens, reading) {
            Some(full_at) => {
                *word = full_at;
                Taken::Granted
            }
            None => Taken::Short,
        }
    }

    /// A key that is not there has a full bucket: take from it, if there is room.
    fn take_new(
        &self,
        shard: &mut Shard<K>,
        hash: u64,
        seek: &mut impl Seek<K>,
        (tokens, reading): (u64, u64),
        dropped: &mut Vec<K>,
    ) -> Taken {
        // Counted first, so that keys of all shards together keep to the bound.
        let room = self.keys.fetch_add(1, Ordering::Relaxed) < self.max_keys;
        let freed = shard.sweep(if room { STEP } else { LONG_STEP }, reading, dropped);
        self.keys.fetch_sub(freed as u64, Ordering::Relaxed);
        if !room && freed == 0 {
            self.keys.fetch_sub(1, Ordering::Relaxed);
            return Taken::Crowded;
        }
        let full_at = self.quota.grant(0, tokens, reading);
        let full_at = full_at.expect("a full bucket grants up to its burst");
        shard.insert(hash, seek.make(), full_at);
        Taken::Granted
    }

    /// Look for full buckets in another shard too, for the next new key.
    fn make_room(&self, reading: u64, dropped: &mut Vec<K>) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) as usize % self.shards.len();
        let freed = self.shards[next].lock().sweep(LONG_STEP, reading, dropped);
        self.keys.fetch_sub(freed as u64, Ordering::Relaxed);
    }

    /// Do it to the lines, then close those that are over.
    fn tend<T>(&self, work: impl FnOnce(&mut Lines) -> T) -> T {
        let mut lines = self.lines.lock();
        let done = work(&mut lines);
        self.close(&mut lines);
        done
    }

    /// Move the buckets of lines that are over back to their keys.
    fn close(&self, lines: &mut Lines) {
        while let Some(over) = lines.close() {
            let mut shard = self.shard(over.hash).lock();
            let held = |entry: &Entry<K>| entry.word == HELD | over.id;
            if let Some(entry) = shard.table.find_mut(over.hash, held) {
                entry.word = over.full_at;
            }
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_keyed;
#[cfg(all(test, not(feature = "loom")))]
mod tests;
