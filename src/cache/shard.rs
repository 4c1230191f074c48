//! One shard: the entries, their order of leaving and their time, under one lock.

use super::leaving::{Cause, Gone, Leaving};
use super::policy::{Order, Policy};
use super::probe::{Lookup, Probe};
use super::slab::{Held, Slab};

/// Slots that a call which adds an entry checks for expired ones: eight times
/// as many as it fills, so what has expired stays below an eighth of what lives.
const SWEEP_ON_SET: usize = 8;
/// Fewer slots than this are not worth compacting.
const SMALLEST_COMPACTED: usize = 64;

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

/// A value found, and whether it is past its deadline (but inside its grace).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen<R> {
    /// What the reader took.
    pub value: R,
    /// Past its deadline: served only to who asked for stale values.
    pub stale: bool,
}

/// How far a sweep may go in one call.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    /// Slots looked at, at most.
    pub slots: usize,
    /// Entries removed, at most.
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
    /// By slot; empty until an entry has a weight or a grace.
    extras: Vec<Extra>,
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
            extras: Vec::new(),
            earliest: u64::MAX,
            cursor: 0,
            seen: u64::MAX,
            counters: Counters::default(),
        }
    }

    pub(crate) fn slab(&self) -> &Slab<K, V> {
        &self.slab
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
        now: u64,
        read: impl FnOnce(&V) -> R,
        gone: &mut Leaving<K, V>,
    ) -> Option<R> {
        let live = slot.and_then(|slot| Some((slot, self.slab.get(slot)?)));
        match live {
            Some((slot, held)) if now < held.deadline() => {
                let value = read(&held.value);
                self.order.touch(slot);
                self.counters.hits += 1;
                Some(value)
            }
            _ => {
                self.counters.misses += 1;
                self.drop_if_expired(slot, now, gone);
                None
            }
        }
    }

    /// As `get`, and the stale value too while its grace lasts.
    pub(crate) fn get_stale<R>(
        &mut self,
        slot: Option<u32>,
        now: u64,
        read: impl FnOnce(&V) -> R,
        gone: &mut Leaving<K, V>,
    ) -> Option<Seen<R>> {
        let stale = slot.is_some_and(|slot| self.is_stale(slot, now));
        if !stale {
            let value = self.get(slot, now, read, gone)?;
            return Some(Seen { value, stale });
        }
        let slot = slot?;
        let value = read(&self.slab.get(slot)?.value);
        self.order.touch(slot);
        self.counters.hits += 1;
        Some(Seen { value, stale })
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
                self.take(slot, Cause::Replaced, gone);
            }
            let Entry { key, value, .. } = entry;
            self.counters.evictions += 1;
            let cause = Cause::Size;
            return gone.push(Gone { key, value, cause });
        }
        match slot {
            Some(slot) if self.fits_in_place(slot, entry.weight) => {
                self.replace(slot, entry, now, gone);
            }
            Some(slot) => {
                self.take(slot, Cause::Replaced, gone);
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

    /// Takes the entry out; whether it was live.
    pub(crate) fn delete(&mut self, slot: u32, now: u64, gone: &mut Leaving<K, V>) -> bool {
        let live = self.slab.get(slot).is_some_and(|h| now < h.deadline());
        let cause = if live { Cause::Deleted } else { Cause::Expired };
        self.take(slot, cause, gone);
        self.compact_if_sparse();
        live
    }

    /// Looks at some slots and takes out what is past all use. `true` when the
    /// pass is over: nothing expired is left but what expired meanwhile.
    pub(crate) fn sweep(&mut self, now: u64, budget: Budget, gone: &mut Leaving<K, V>) -> bool {
        if now < self.earliest {
            return true;
        }
        let end = self
            .slab
            .slots()
            .min(self.cursor.saturating_add(budget.slots));
        let mut removals = 0;
        while self.cursor < end && removals < budget.removals {
            let slot = self.cursor as u32;
            self.cursor += 1;
            if self.drop_if_expired(Some(slot), now, gone) {
                removals += 1;
            } else if let Some(held) = self.slab.get(slot) {
                self.seen = self
                    .seen
                    .min(held.deadline().saturating_add(self.grace(slot)));
            }
        }
        if self.cursor < self.slab.slots() {
            return false;
        }
        self.cursor = 0;
        self.earliest = std::mem::replace(&mut self.seen, u64::MAX);
        self.compact_if_sparse();
        true
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
        let was = self.slab.get(slot).map_or(0, Held::deadline);
        let extra = Extra {
            weight: entry.weight,
            grace: entry.grace,
        };
        self.weight = self.weight - self.weight_of(slot) + extra.weight;
        let held = Held::new(entry.key, entry.value, entry.deadline, entry.traced);
        self.note_deadline(held.deadline());
        self.note_extra(slot, extra);
        self.order.touch(slot);
        let old = self
            .slab
            .replace(slot, held)
            .expect("the slot found is held");
        let cause = self.count(if now < was {
            Cause::Replaced
        } else {
            Cause::Expired
        });
        gone.push(Gone {
            key: old.key,
            value: old.value,
            cause,
        });
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
            self.release(slot, Cause::Size, gone);
        }
    }

    /// Whether a new weight can take the place of the old without evicting.
    fn fits_in_place(&self, slot: u32, weight: u64) -> bool {
        weight.saturating_sub(self.weight_of(slot)) <= self.max_weight - self.weight
    }

    fn is_stale(&self, slot: u32, now: u64) -> bool {
        self.slab.get(slot).is_some_and(|held| {
            let end = held.deadline().saturating_add(self.grace(slot));
            (held.deadline()..end).contains(&now)
        })
    }

    fn drop_if_expired(&mut self, slot: Option<u32>, now: u64, gone: &mut Leaving<K, V>) -> bool {
        let Some(slot) = slot else { return false };
        let Some(held) = self.slab.get(slot) else {
            return false;
        };
        if now < held.deadline().saturating_add(self.grace(slot)) {
            return false;
        }
        self.take(slot, Cause::Expired, gone);
        true
    }

    /// Takes `slot` from the order and out.
    fn take(&mut self, slot: u32, cause: Cause, gone: &mut Leaving<K, V>) {
        self.order.forget(slot);
        self.release(slot, cause, gone);
    }

    /// Takes out `slot`, which the order holds no more.
    fn release(&mut self, slot: u32, cause: Cause, gone: &mut Leaving<K, V>) {
        self.weight -= self.weight_of(slot);
        let held = self.slab.remove(slot).expect("the order holds held slots");
        let cause = self.count(cause);
        gone.push(Gone {
            key: held.key,
            value: held.value,
            cause,
        });
    }

    fn count(&mut self, cause: Cause) -> Cause {
        match cause {
            Cause::Size => self.counters.evictions += 1,
            Cause::Expired => self.counters.expirations += 1,
            Cause::Replaced | Cause::Deleted => {}
        }
        cause
    }

    /// An entry may now expire at `deadline`: sweeps must know.
    fn note_deadline(&mut self, deadline: u64) {
        self.earliest = self.earliest.min(deadline);
        self.seen = self.seen.min(deadline);
    }

    fn note_extra(&mut self, slot: u32, extra: Extra) {
        let plain = extra.weight == 0 && extra.grace == 0;
        if plain && self.extras.is_empty() {
            return;
        }
        let at = slot as usize;
        if at >= self.extras.len() {
            self.extras.resize(at + 1, Extra::default());
        }
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

    /// Gives memory back once three quarters of the slots are vacant; what it
    /// costs is paid for by the removals that made them so.
    fn compact_if_sparse(&mut self) {
        let slots = self.slab.slots();
        if slots < SMALLEST_COMPACTED || self.slab.len() * 4 > slots {
            return;
        }
        let (order, extras) = (&mut self.order, &mut self.extras);
        self.slab.compact(|from, to| {
            order.relocate(from, to);
            if let Some(&extra) = extras.get(from as usize) {
                extras[to as usize] = extra;
            }
        });
        self.order.truncate(self.slab.len());
        self.extras.truncate(self.slab.len());
        self.extras.shrink_to_fit();
        // The sweep starts anew over the moved; `earliest` still holds.
        self.cursor = 0;
        self.seen = u64::MAX;
    }
}
