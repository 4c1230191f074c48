//! Where the entries live: an index of slot numbers over an array of entries.
//!
//! Bytes of an entry, key and value (8 each when they are pointers) included:
//! entry 24, hash 4, index 5 to 10; a policy adds 8 for its links, S3-FIFO 1
//! for the mark and 2 for the ghost.

use hashbrown::HashTable;

use super::probe::{Lookup, Probe};
use super::queue::NONE;

/// One entry. The lowest bit of `until` is not time: see `Held::traced`.
#[derive(Debug)]
pub(crate) struct Held<K, V> {
    pub(crate) key: K,
    pub(crate) value: V,
    /// First nanosecond at which it is not returned any more.
    until: u64,
}

const TRACED: u64 = 1;
/// The deadline of what lives for ever.
const FOREVER: u64 = !TRACED;

impl<K, V> Held<K, V> {
    /// An entry lives to the even nanosecond at or before `deadline`: the bit
    /// saved says whether the collector must visit it.
    pub(crate) fn new(key: K, value: V, deadline: u64, traced: bool) -> Self {
        Self {
            key,
            value,
            until: deadline & !TRACED | u64::from(traced),
        }
    }

    pub(crate) fn deadline(&self) -> u64 {
        self.until & !TRACED
    }

    /// The time, if it is over. What lives for ever costs no look at the clock.
    #[inline]
    pub(crate) fn check(&self, now: impl FnOnce() -> u64) -> Result<(), u64> {
        let deadline = self.deadline();
        if deadline == FOREVER {
            return Ok(());
        }
        let now = now();
        if now < deadline { Ok(()) } else { Err(now) }
    }

    pub(crate) fn set_deadline(&mut self, deadline: u64) {
        self.until = deadline & !TRACED | self.until & TRACED;
    }

    pub(crate) fn traced(&self) -> bool {
        self.until & TRACED != 0
    }
}

/// Entries by slot, slots by hash.
#[derive(Debug)]
pub(crate) struct Slab<K, V> {
    index: HashTable<u32>,
    held: Vec<Option<Held<K, V>>>,
    /// The hash of each held slot; of a vacant one, the next vacant slot.
    hashes: Vec<u32>,
    vacant: u32,
    len: usize,
    /// Entries the collector must visit.
    traced: usize,
}

/// An index of more places than this is not made anew: it would take over 1 ms.
const MOST_RENEWED: usize = 1 << 16;

/// 32 bits of hash as the 64 the index wants: it takes the lowest for the
/// bucket and the highest seven for the tag.
#[inline]
fn widen(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl<K, V> Default for Slab<K, V> {
    fn default() -> Self {
        Self {
            index: HashTable::new(),
            held: Vec::new(),
            hashes: Vec::new(),
            vacant: NONE,
            len: 0,
            traced: 0,
        }
    }
}

impl<K, V> Slab<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Slots made so far, held or vacant.
    pub(crate) fn slots(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn hashes(&self) -> &[u32] {
        &self.hashes
    }

    pub(crate) fn traced(&self) -> usize {
        self.traced
    }

    /// Bytes allocated.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn bytes(&self) -> usize {
        self.index.allocation_size()
            + self.held.capacity() * size_of::<Option<Held<K, V>>>()
            + self.hashes.capacity() * size_of::<u32>()
    }

    pub(crate) fn get(&self, slot: u32) -> Option<&Held<K, V>> {
        self.held.get(slot as usize)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Held<K, V>> {
        self.held.get_mut(slot as usize)?.as_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held<K, V>> {
        self.held.iter().flatten()
    }

    pub(crate) fn into_held(self) -> impl Iterator<Item = Held<K, V>> {
        self.held.into_iter().flatten()
    }

    /// Looks for the key of `probe`, without running foreign code; `asked` are
    /// the answers foreign code gave before.
    #[inline]
    pub(crate) fn find<P: Probe<K>>(&self, hash: u32, probe: &P, asked: &[(K, bool)]) -> Lookup<K> {
        let mut unsure = None;
        let found = self.index.find(widen(hash), |&slot| {
            let Some(held) = &self.held[slot as usize] else {
                return false;
            };
            if probe.is(&held.key) {
                return true;
            }
            if self.hashes[slot as usize] != hash {
                return false;
            }
            if let Some(equal) = probe.plainly_equals(&held.key) {
                return equal;
            }
            let told = asked.iter().find(|(key, _)| P::same(key, &held.key));
            if let Some((_, equal)) = told {
                return *equal;
            }
            // Stops the search here; only foreign code can go on.
            unsure = Some(probe.share(&held.key));
            true
        });
        match (unsure, found) {
            (Some(key), _) => Lookup::Unsure(key),
            (None, Some(&slot)) => Lookup::Found(slot),
            (None, None) => Lookup::Absent,
        }
    }

    /// Takes a slot for an entry whose key is absent. `bound` is how many slots
    /// there may ever be, so that the arrays grow to no more.
    pub(crate) fn insert(&mut self, hash: u32, held: Held<K, V>, bound: usize) -> u32 {
        self.traced += usize::from(held.traced());
        let slot = if self.vacant == NONE {
            self.grow(bound);
            self.held.push(Some(held));
            self.hashes.push(hash);
            self.held.len() as u32 - 1
        } else {
            let slot = self.vacant;
            self.vacant = self.hashes[slot as usize];
            self.held[slot as usize] = Some(held);
            self.hashes[slot as usize] = hash;
            slot
        };
        self.clean_index(slot);
        let hashes = &self.hashes;
        self.index
            .insert_unique(widen(hash), slot, |&slot| widen(hashes[slot as usize]));
        self.len += 1;
        slot
    }

    /// Rids a full index of the marks that removals leave, for which hashbrown
    /// would double it. Not if so few are marks that this would soon be needed
    /// again: at the limit it is once in 11,000 evictions. `new` isn't in it yet.
    fn clean_index(&mut self, new: u32) {
        let places = self.index.num_buckets();
        let full = self.index.capacity() == self.index.len();
        if !full || places > MOST_RENEWED || self.len * 16 > places * 13 {
            return;
        }
        self.index.clear();
        for (slot, held) in (0..).zip(&self.held) {
            if held.is_some() && slot != new {
                let hash = widen(self.hashes[slot as usize]);
                self.index
                    .insert_unique(hash, slot, |_| unreachable!("it held as many before"));
            }
        }
    }

    /// Doubles the arrays, but never past `bound`.
    fn grow(&mut self, bound: usize) {
        let slots = self.held.len();
        if slots < self.held.capacity() {
            return;
        }
        let more = slots.max(4).min(bound.saturating_sub(slots)).max(1);
        self.held.reserve_exact(more);
        self.hashes.reserve_exact(more);
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Held<K, V>> {
        let at = slot as usize;
        let held = self.held.get_mut(at)?.take()?;
        let entry = self
            .index
            .find_entry(widen(self.hashes[at]), |&other| other == slot);
        if let Ok(entry) = entry {
            entry.remove();
        }
        self.hashes[at] = self.vacant;
        self.vacant = slot;
        self.len -= 1;
        self.traced -= usize::from(held.traced());
        Some(held)
    }

    /// Puts the value of `new` into a held slot of an equal key; the old value
    /// comes back with the new key. The key that is held stays, as in a dict: who
    /// is comparing it meanwhile need not start again.
    pub(crate) fn replace(&mut self, slot: u32, mut new: Held<K, V>) -> Option<Held<K, V>> {
        let held = self.held.get_mut(slot as usize)?.as_mut()?;
        self.traced += usize::from(new.traced() && !held.traced());
        // The mark is of key and value together, so it can only be added to.
        held.until = new.until | held.until & TRACED;
        std::mem::swap(&mut held.value, &mut new.value);
        Some(new)
    }

    /// Moves the entries of the highest slots into vacant ones and gives back
    /// the memory; `moved(from, to)` hears of each.
    pub(crate) fn compact(&mut self, mut moved: impl FnMut(u32, u32)) {
        if self.len == 0 {
            *self = Self::default();
            return;
        }
        let mut to = 0;
        for from in (self.len..self.held.len())
            .filter(|&from| self.held[from].is_some())
            .collect::<Vec<_>>()
        {
            while self.held[to].is_some() {
                to += 1;
            }
            self.relocate(from, to);
            moved(from as u32, to as u32);
        }
        self.held.truncate(self.len);
        self.held.shrink_to_fit();
        self.hashes.truncate(self.len);
        self.hashes.shrink_to_fit();
        self.vacant = NONE;
        let hashes = &self.hashes;
        self.index
            .shrink_to(self.len, |&slot| widen(hashes[slot as usize]));
    }

    fn relocate(&mut self, from: usize, to: usize) {
        self.held[to] = self.held[from].take();
        self.hashes[to] = self.hashes[from];
        let place = self
            .index
            .find_mut(widen(self.hashes[to]), |&slot| slot as usize == from);
        *place.expect("every held slot is in the index") = to as u32;
    }
}
