//! One shard: the entries, their order of leaving and their time, under one lock.

use super::leaving::{Cause, Gone, Leaving};
use super::policy::{Order, Policy};
use super::probe::{Lookup, Probe};
use super::rows::Rows;
use super::slab::{Held, Slab};

/// Slots that a call which adds an entry checks for expired ones: eight times
/// as many as it fills, so what has expired stays below an eighth of what lives.
const SWEEP_ON_SET: usize = 8;
/// Memory of fewer slots than this is not given back.
const FEWEST_SLOTS: usize = 64;
/// Slots made for each entry held, at most.
const MOST_SPARSE: usize = 4;
/// What an entry that leaves gives back while there are more: enough that there
/// never are.
const PER_ENTRY: Budget = Budget {
    slots: MOST_SPARSE,
    removals: MOST_SPARSE,
};

/// What an entry to be set is made of.
#[derive(Debug)]
pub struct Entry<K, V> {
    /// The key.
    pub key: K,
    /// The value.
    pub value: V,
    /// First nanosecond at which the entry is expired; `u64::MAX` is never.
    pub deadline: u64,
    /// Nanoseconds after the deadline for which it may be served as stale.
    pub grace: u64,
    /// Its part of the weight bound; 1 or more counts.
    pub weight: u64,
    /// Whether the collector must visit it.
    pub traced: bool,
}

/// What few entries need, kept apart so that the others don't pay for it.
#[derive(Clone, Copy, Debug, Default)]
struct Extra {
    weight: u64,
    grace: u64,
}

/// What was counted since the start or the last `clear`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Reads that found a live value.
    pub hits: u64,
    /// Reads that found none.
    pub misses: u64,
    /// Entries that left for want of room.
    pub evictions: u64,
    /// Entries that left because their time was over.
    pub expirations: u64,
}

/// What a read found.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<K, V, R> {
    /// A live value, as the reader took it.
    Hit(R),
    /// A value past its deadline but inside its grace; from `get_stale` alone.
    Stale(R),
    /// Nothing.
    Miss,
    /// An entry past all use, which left.
    Expired(Gone<K, V>),
}

/// How far a sweep may go in one call.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Slots looked at, at most.
    pub slots: usize,
    /// Entries removed, or moved, at most.
    pub removals: usize,
}

#[derive(Debug)]
pub(crate) struct Shard<K, V> {
    slab: Slab<K, V>,
    order: Order,
    /// Most entries, 1 or more.
    capacity: usize,
    /// Most weight.
    max_weight: u64,
    weight: u64,
    /// By slot; without a bound of weight empty until an entry has a grace.
    extras: Rows<Extra>,
    /// No entry expires before this, so until then nothing is swept.
    earliest: u64,
    /// Where the sweep goes on.
    cursor: usize,
    /// The earliest deadline this pass has seen: the next `earliest`.
    seen: u64,
    pub(crate) counters: Counters,
}

impl<K, V> Shard<K, V> {
    pub(crate) fn new(order: Order, capacity: usize, max_weight: u64) -> Self {
        Self {
            slab: Slab::default(),
            order,
            capacity,
            max_weight,
            weight: 0,
            extras: Rows::default(),
            earliest: u64::MAX,
            cursor: 0,
            seen: u64::MAX,
            counters: Counters::default(),
        }
    }

    pub(crate) fn slab(&self) -> &Slab<K, V> {
        &self.slab
    }

    /// Bytes allocated, what `Order` keeps for S3-FIFO included.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn bytes(&self) -> usize {
        let order = match &self.order {
            Order::S3Fifo(policy) => policy.bytes(),
            _ => 0,
        };
        self.slab.bytes() + self.extras.bytes() + order
    }

    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    #[inline]
    pub(crate) fn find<P: Probe<K>>(&self, hash: u32, probe: &P, asked: &[(K, bool)]) -> Lookup<K> {
        self.slab.find(hash, probe, asked)
    }

    /// The live value in `slot`, read; an entry past all use leaves.
    #[inline]
    pub(crate) fn get<R>(
        &mut self,
        slot: Option<u32>,
        now: impl FnOnce() -> u64,
        read: impl FnOnce(&V) -> R,
    ) -> Read<K, V, R> {
        let Some(slot) = slot else {
            self.counters.misses += 1;
            return Read::Miss;
        };
        match self.hit(slot, now, read) {
            Ok(value) => Read::Hit(value),
            Err(now) => self.miss_expired(slot, now),
        }
    }

    /// The value in `slot`, read, if it is live; else the time that it isn't.
    #[inline]
    pub(crate) fn hit<R>(
        &mut self,
        slot: u32,
        now: impl FnOnce() -> u64,
        read: impl FnOnce(&V) -> R,
    ) -> Result<R, u64> {
        let held = self.slab.get(slot).expect("the slot found is held");
        held.check(now)?;
        let value = read(&held.value);
        self.order.touch(slot);
        self.counters.hits += 1;
        Ok(value)
    }

    #[cold]
    fn miss_expired<R>(&mut self, slot: u32, now: u64) -> Read<K, V, R> {
        self.counters.misses += 1;
        if !self.is_past_use(slot, now) {
            return Read::Miss;
        }
        let gone = self.take(slot, Cause::Expired);
        self.give_back(PER_ENTRY);
        Read::Expired(gone)
    }

    /// As `get`, and the stale value too while its grace lasts.
    pub(crate) fn get_stale<R>(
        &mut self,
        slot: Option<u32>,
        now: u64,
        read: impl FnOnce(&V) -> R,
    ) -> Read<K, V, R> {
        let stale = slot.and_then(|slot| {
            let held = self.slab.get(slot)?;
            let stale = now >= held.deadline() && !self.is_past_use(slot, now);
            stale.then_some((slot, held))
        });
        let Some((slot, held)) = stale else {
            return self.get(slot, || now, read);
        };
        let value = read(&held.value);
        self.order.touch(slot);
        self.counters.hits += 1;
        Read::Stale(value)
    }

    /// The live value in `slot`, read without counting or a change of order.
    pub(crate) fn peek<R>(&self, slot: u32, now: u64, read: impl FnOnce(&V) -> R) -> Option<R> {
        let held = self.slab.get(slot)?;
        (now < held.deadline()).then(|| read(&held.value))
    }

    /// Takes in `entry`, whose key is in `slot` if it is held at all. What is
    /// heavier than the whole bound is not kept, nor is the value it replaces.
    pub(crate) fn set(
        &mut self,
        slot: Option<u32>,
        hash: u32,
        entry: Entry<K, V>,
        now: u64,
        gone: &mut Leaving<K, V>,
    ) {
        if entry.weight > self.max_weight {
            if let Some(slot) = slot {
                gone.push(self.take(slot, self.replaced(slot, now)));
            }
            let held = Held::new(entry.key, entry.value, entry.deadline, entry.traced);
            return gone.push(self.gone(held, Cause::Size));
        }
        match slot {
            Some(slot) if self.fits_in_place(slot, entry.weight) => {
                self.replace(slot, entry, now, gone);
            }
            Some(slot) => {
                gone.push(self.take(slot, self.replaced(slot, now)));
                self.insert(hash, entry, now, gone);
            }
            None => self.insert(hash, entry, now, gone),
        }
    }

    /// Moves the deadline of a live entry; its grace stays.
    pub(crate) fn set_deadline(&mut self, slot: u32, deadline: u64, now: u64) -> bool {
        let Some(held) = self.slab.get_mut(slot).filter(|h| now < h.deadline()) else {
            return false;
        };
        held.set_deadline(deadline);
        let deadline = held.deadline();
        self.note_deadline(deadline);
        self.order.touch(slot);
        true
    }

    /// Takes the entry out, as deleted or expired.
    pub(crate) fn delete(&mut self, slot: u32, now: u64) -> Gone<K, V> {
        let live = self.slab.get(slot).is_some_and(|h| now < h.deadline());
        let cause = if live { Cause::Deleted } else { Cause::Expired };
        let gone = self.take(slot, cause);
        self.give_back(PER_ENTRY);
        gone
    }

    /// Gives some memory back, then looks at some slots and takes out what is past
    /// all use. `true` when both are done: nothing expired is left but what expired
    /// meanwhile.
    pub(crate) fn sweep(&mut self, now: u64, budget: Budget, gone: &mut Leaving<K, V>) -> bool {
        // Between two passes, since in one it may move what was not looked at.
        if self.cursor == 0 && !self.give_back(budget) {
            return false;
        }
        if now < self.earliest {
            return true;
        }
        let end = self.cursor.saturating_add(budget.slots);
        let end = end.min(self.slab.slots());
        let mut removals = 0;
        while self.cursor < end && removals < budget.removals {
            let slot = self.cursor as u32;
            self.cursor += 1;
            if self.is_past_use(slot, now) {
                gone.push(self.take(slot, Cause::Expired));
                removals += 1;
            } else {
                self.seen = self.seen.min(self.end_of_use(slot));
            }
        }
        if self.cursor < self.slab.slots() {
            return false;
        }
        self.cursor = 0;
        self.earliest = std::mem::replace(&mut self.seen, u64::MAX);
        !self.is_sparse()
    }

    /// All entries, as if the caller had deleted each.
    pub(crate) fn into_gone(self) -> impl Iterator<Item = Gone<K, V>> {
        self.slab.into_held().map(|held| Gone {
            key: held.key,
            value: held.value,
            cause: Cause::Deleted,
        })
    }

    fn insert(&mut self, hash: u32, entry: Entry<K, V>, now: u64, gone: &mut Leaving<K, V>) {
        self.make_room(entry.weight, now, gone);
        let extra = Extra {
            weight: entry.weight,
            grace: entry.grace,
        };
        let held = Held::new(entry.key, entry.value, entry.deadline, entry.traced);
        self.note_deadline(held.deadline());
        let slot = self.slab.insert(hash, held, self.capacity);
        self.order.admit(slot, hash);
        self.note_extra(slot, extra);
        self.weight += extra.weight;
    }

    fn replace(&mut self, slot: u32, entry: Entry<K, V>, now: u64, gone: &mut Leaving<K, V>) {
        let cause = self.replaced(slot, now);
        let extra = Extra {
            weight: entry.weight,
            grace: entry.grace,
        };
        self.weight = self.weight - self.weight_of(slot) + extra.weight;
        let held = Held::new(entry.key, entry.value, entry.deadline, entry.traced);
        self.note_deadline(held.deadline());
        self.note_extra(slot, extra);
        self.order.touch(slot);
        let old = self.slab.replace(slot, held);
        let old = old.expect("the slot found is held");
        gone.push(self.gone(old, cause));
    }

    /// Why what is in `slot` leaves for a new value.
    fn replaced(&self, slot: u32, now: u64) -> Cause {
        let live = self.slab.get(slot).is_some_and(|h| now < h.deadline());
        if live {
            Cause::Replaced
        } else {
            Cause::Expired
        }
    }

    /// Sweeps a little, then evicts until one more entry of `weight` fits.
    fn make_room(&mut self, weight: u64, now: u64, gone: &mut Leaving<K, V>) {
        let budget = Budget {
            slots: SWEEP_ON_SET,
            removals: SWEEP_ON_SET,
        };
        self.sweep(now, budget, gone);
        while self.slab.len() >= self.capacity || weight > self.max_weight - self.weight {
            let Some(slot) = self.order.evict(self.slab.hashes()) else {
                return;
            };
            gone.push(self.release(slot, Cause::Size));
            self.give_back(PER_ENTRY);
        }
    }

    /// Whether a new weight can take the place of the old without evicting.
    fn fits_in_place(&self, slot: u32, weight: u64) -> bool {
        weight.saturating_sub(self.weight_of(slot)) <= self.max_weight - self.weight
    }

    /// First nanosecond at which what is in `slot` is of no use, not even stale.
    fn end_of_use(&self, slot: u32) -> u64 {
        self.slab.get(slot).map_or(u64::MAX, |held| {
            held.deadline().saturating_add(self.grace(slot))
        })
    }

    fn is_past_use(&self, slot: u32, now: u64) -> bool {
        now >= self.end_of_use(slot)
    }

    /// Takes `slot` from the order and out.
    fn take(&mut self, slot: u32, cause: Cause) -> Gone<K, V> {
        self.order.forget(slot);
        self.release(slot, cause)
    }

    /// Takes out `slot`, which the order holds no more.
    fn release(&mut self, slot: u32, cause: Cause) -> Gone<K, V> {
        self.weight -= self.weight_of(slot);
        let held = self.slab.remove(slot).expect("the order holds held slots");
        self.gone(held, cause)
    }

    #[inline]
    fn is_sparse(&self) -> bool {
        let slots = self.slab.slots();
        slots >= FEWEST_SLOTS && self.slab.len() * MOST_SPARSE < slots
    }

    /// Gives back the memory of some slots while most are vacant, so that no call
    /// waits for it; entries in them move. `true` when most are held.
    #[inline]
    fn give_back(&mut self, budget: Budget) -> bool {
        !self.is_sparse() || self.shorten(budget)
    }

    #[cold]
    fn shorten(&mut self, mut budget: Budget) -> bool {
        while self.is_sparse() {
            if budget.slots == 0 || budget.removals == 0 {
                return false;
            }
            budget.slots -= 1;
            if let Some((from, to)) = self.slab.shorten() {
                budget.removals -= 1;
                self.follow(from, to);
            }
            self.order.truncate(self.slab.slots());
            self.extras.truncate(self.slab.slots());
        }
        true
    }

    /// An entry has moved.
    fn follow(&mut self, from: u32, to: u32) {
        self.order.relocate(from, to);
        // Without an extra too: there may be one left of who was in `to` before.
        let extra = self.extras.get(from as usize).copied();
        self.note_extra(to, extra.unwrap_or_default());
        // A pass under way may have missed it, so it starts anew: `earliest` still
        // holds.
        self.cursor = 0;
        self.seen = u64::MAX;
    }

    fn gone(&mut self, held: Held<K, V>, cause: Cause) -> Gone<K, V> {
        self.count(cause);
        let Held { key, value, .. } = held;
        Gone { key, value, cause }
    }

    fn count(&mut self, cause: Cause) {
        match cause {
            Cause::Size => self.counters.evictions += 1,
            Cause::Expired => self.counters.expirations += 1,
            Cause::Replaced | Cause::Deleted => {}
        }
    }

    /// An entry may now expire at `deadline`: sweeps must know.
    fn note_deadline(&mut self, deadline: u64) {
        self.earliest = self.earliest.min(deadline);
        self.seen = self.seen.min(deadline);
    }

    fn note_extra(&mut self, slot: u32, extra: Extra) {
        let plain = extra.weight == 0 && extra.grace == 0;
        // Where weights are bounded there will be some: not for all slots at once.
        let weighed = self.max_weight < u64::MAX;
        if plain && !weighed && self.extras.is_empty() {
            return;
        }
        let at = slot as usize;
        self.extras.cover(at, Extra::default());
        self.extras[at] = extra;
    }

    fn weight_of(&self, slot: u32) -> u64 {
        self.extras
            .get(slot as usize)
            .map_or(0, |extra| extra.weight)
    }

    fn grace(&self, slot: u32) -> u64 {
        self.extras
            .get(slot as usize)
            .map_or(0, |extra| extra.grace)
    }
}
