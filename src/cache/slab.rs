//! Where the entries live: an index of slot numbers over an array of entries.
//!
//! Bytes of an entry, key and value (8 each when they are pointers) included:
//! entry 24, hash 4, index 5 to 10; a policy adds 8 for its links, S3-FIFO 1
//! for the mark and 2 for the ghost.

use super::index::{Hashes, Index};
use super::probe::{Lookup, Probe};
use super::queue::NONE;
use super::rows::Rows;

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

/// What a slot holds. As large as an entry: a pointer that can't be null leaves
/// room for the links.
#[derive(Debug)]
pub(super) enum Place<K, V> {
    Held(Held<K, V>),
    /// One of the list of vacant slots.
    Vacant {
        before: u32,
        after: u32,
    },
}

impl<K, V> Place<K, V> {
    #[inline]
    fn held(&self) -> Option<&Held<K, V>> {
        match self {
            Self::Held(held) => Some(held),
            Self::Vacant { .. } => None,
        }
    }

    fn into_held(self) -> Option<Held<K, V>> {
        match self {
            Self::Held(held) => Some(held),
            Self::Vacant { .. } => None,
        }
    }
}

/// Entries by slot, slots by hash.
#[derive(Debug)]
pub(crate) struct Slab<K, V> {
    index: Index,
    places: Rows<Place<K, V>>,
    /// The hash of each held slot.
    hashes: Hashes,
    /// The first of the vacant slots.
    vacant: u32,
    len: usize,
    /// Entries the collector must visit.
    traced: usize,
}

impl<K, V> Default for Slab<K, V> {
    fn default() -> Self {
        Self {
            index: Index::default(),
            places: Rows::default(),
            hashes: Hashes::default(),
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
        self.places.len()
    }

    pub(crate) fn hashes(&self) -> &Hashes {
        &self.hashes
    }

    pub(crate) fn traced(&self) -> usize {
        self.traced
    }

    /// Bytes allocated.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn bytes(&self) -> usize {
        self.index.bytes() + self.places.bytes() + self.hashes.bytes()
    }

    #[inline]
    pub(crate) fn get(&self, slot: u32) -> Option<&Held<K, V>> {
        self.places.get(slot as usize)?.held()
    }

    pub(crate) fn get_mut(&mut self, slot: u32) -> Option<&mut Held<K, V>> {
        match self.places.get_mut(slot as usize)? {
            Place::Held(held) => Some(held),
            Place::Vacant { .. } => None,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Held<K, V>> {
        self.places.iter().filter_map(Place::held)
    }

    pub(crate) fn into_held(self) -> impl Iterator<Item = Held<K, V>> {
        self.places.into_iter().filter_map(Place::into_held)
    }

    /// Looks for the key of `probe`, without running foreign code; `asked` are
    /// the answers foreign code gave before.
    #[inline(always)]
    #[allow(clippy::inline_always)] // a tenth of a miss, by `benches/instructions.py`
    pub(crate) fn find<P: Probe<K>>(&self, hash: u32, probe: &P, asked: &[(K, bool)]) -> Lookup<K> {
        let mut unsure = None;
        let found = self.index.find(hash, |&slot| {
            let Some(held) = self.get(slot) else {
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
            (None, Some(slot)) => Lookup::Found(slot),
            (None, None) => Lookup::Absent,
        }
    }

    /// Takes a slot for an entry whose key is absent. `bound` is how many slots
    /// there may ever be, so that the arrays grow to no more.
    pub(crate) fn insert(&mut self, hash: u32, held: Held<K, V>, bound: usize) -> u32 {
        self.traced += usize::from(held.traced());
        let slot = if self.vacant == NONE {
            let slots = self.slots();
            let more = slots.max(4).min(bound.saturating_sub(slots));
            self.places.push(Place::Held(held), more);
            self.hashes.push(hash, more);
            slots as u32
        } else {
            self.fill(hash, held)
        };
        let held = (0..).zip(self.places.iter());
        let others = held.filter(|(at, place)| *at != slot && place.held().is_some());
        self.index
            .insert(slot, &self.hashes, others.map(|(at, _)| at));
        self.len += 1;
        slot
    }

    pub(crate) fn remove(&mut self, slot: u32) -> Option<Held<K, V>> {
        let held = self.vacate(slot)?;
        self.index.remove(slot, &self.hashes);
        self.len -= 1;
        self.traced -= usize::from(held.traced());
        Some(held)
    }

    /// Puts the value of `new` into a held slot of an equal key; the old value
    /// comes back with the new key. The key that is held stays, as in a dict: who
    /// is comparing it meanwhile need not start again.
    pub(crate) fn replace(&mut self, slot: u32, mut new: Held<K, V>) -> Option<Held<K, V>> {
        let held = match self.places.get_mut(slot as usize)? {
            Place::Held(held) => held,
            Place::Vacant { .. } => return None,
        };
        self.traced += usize::from(new.traced() && !held.traced());
        // The mark is of key and value together, so it can only be added to.
        held.until = new.until | held.until & TRACED;
        std::mem::swap(&mut held.value, &mut new.value);
        Some(new)
    }

    /// Gives the last slot back, where any is vacant. An entry in it moves into a
    /// vacant one: then from where to where.
    pub(crate) fn shorten(&mut self) -> Option<(u32, u32)> {
        let last = (self.slots() as u32).checked_sub(1)?;
        let held = self.vacate(last);
        self.unlink(last);
        self.places.pop();
        let (hash, held) = (self.hashes.pop()?, held?);
        let to = self.fill(hash, held);
        self.index.relocate(last, to, hash);
        Some((last, to))
    }

    /// Puts an entry into the first of the vacant slots.
    fn fill(&mut self, hash: u32, held: Held<K, V>) -> u32 {
        let slot = self.vacant;
        let place = &mut self.places[slot as usize];
        if let Place::Vacant { after, .. } = std::mem::replace(place, Place::Held(held)) {
            self.vacant = after;
            self.set_before(after, NONE);
        }
        self.hashes[slot as usize] = hash;
        slot
    }

    /// Takes the entry out of a slot, which is the first of the vacant ones then.
    fn vacate(&mut self, slot: u32) -> Option<Held<K, V>> {
        let place = self.places.get_mut(slot as usize)?;
        if let Place::Vacant { .. } = place {
            return None;
        }
        let after = std::mem::replace(&mut self.vacant, slot);
        let before = NONE;
        let held = std::mem::replace(place, Place::Vacant { before, after }).into_held();
        self.set_before(after, slot);
        held
    }

    /// Takes a slot from the list of vacant ones.
    fn unlink(&mut self, slot: u32) {
        let Some(&Place::Vacant { before, after }) = self.places.get(slot as usize) else {
            return;
        };
        match self.places.get_mut(before as usize) {
            Some(Place::Vacant { after: next, .. }) => *next = after,
            _ => self.vacant = after,
        }
        self.set_before(after, before);
    }

    /// What comes before `slot` in the list, if that is not its end.
    fn set_before(&mut self, slot: u32, new: u32) {
        if slot == NONE {
            return;
        }
        if let Some(Place::Vacant { before, .. }) = self.places.get_mut(slot as usize) {
            *before = new;
        }
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A slab of numbers, and next to it which are held, and where.
    #[derive(Default)]
    struct Checked {
        slab: Slab<u32, u32>,
        /// By number.
        slots: Vec<Option<u32>>,
    }

    impl Checked {
        fn insert(&mut self, number: u32) {
            let held = Held::new(number, number, 2, number.is_multiple_of(3));
            let slot = self.slab.insert(hash_of(number), held, usize::MAX);
            let at = number as usize;
            self.slots.resize(self.slots.len().max(at + 1), None);
            assert_eq!(self.slots[at].replace(slot), None);
        }

        fn remove(&mut self, number: u32) {
            let slot = self.slots[number as usize].take().expect("it is held");
            let held = self.slab.remove(slot).expect("it is held");
            assert_eq!((held.key, held.value), (number, number));
        }

        /// As a shard does it: only where a slot is vacant.
        fn shorten(&mut self) {
            let slots = self.slab.slots();
            if self.slab.len() == slots {
                return;
            }
            if let Some((from, to)) = self.slab.shorten() {
                assert_eq!(from as usize, slots - 1);
                let moved = self.slab.get(to).expect("it went there").key;
                assert_eq!(self.slots[moved as usize].replace(to), Some(from));
            }
            assert_eq!(self.slab.slots(), slots - 1);
        }

        fn held(&self) -> impl Iterator<Item = (u32, u32)> {
            let held = (0..).zip(&self.slots);
            held.filter_map(|(number, slot)| Some((number, (*slot)?)))
        }

        fn check(&self) {
            let slab = &self.slab;
            for (number, slot) in (0..).zip(&self.slots) {
                let found = slab.index.find(hash_of(number), |&at| {
                    slab.get(at).is_some_and(|held| held.key == number)
                });
                assert_eq!(found, *slot, "{number}");
            }
            assert_eq!(slab.len(), self.held().count());
            assert_eq!(slab.iter().count(), slab.len());
            let traced = self.held().filter(|(number, _)| number.is_multiple_of(3));
            assert_eq!(slab.traced(), traced.count());
            self.check_vacant();
        }

        /// From the first vacant slot on each is linked back to the one before, and
        /// all that hold nothing are among them.
        fn check_vacant(&self) {
            let (mut previous, mut slot, mut count) = (NONE, self.slab.vacant, 0);
            while slot != NONE {
                let Place::Vacant { before, after } = self.slab.places[slot as usize] else {
                    panic!("slot {slot} is held");
                };
                assert_eq!(before, previous);
                (previous, slot, count) = (slot, after, count + 1);
            }
            assert_eq!(count, self.slab.slots() - self.slab.len());
        }
    }

    fn hash_of(number: u32) -> u32 {
        number.wrapping_mul(0x9E37_79B1)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn slots_are_found_and_vacancies_linked_whatever_moves(
            steps in prop::collection::vec((0..3_u8, 0..40_u32), 1..300),
        ) {
            let mut checked = Checked::default();
            for (kind, number) in steps {
                let slot = checked.slots.get(number as usize).copied().flatten();
                match (kind, slot) {
                    (0, _) => checked.shorten(),
                    (_, None) => checked.insert(number),
                    (_, Some(_)) => checked.remove(number),
                }
                checked.check();
            }
        }
    }

    #[test]
    fn the_mark_for_the_collector_stays_and_is_counted_once() {
        let mut slab = Slab::default();
        let slot = slab.insert(1, Held::new(1, 1, 2, false), 1);

        for (marked, counted) in [(false, 0), (true, 1), (true, 1), (false, 1)] {
            slab.replace(slot, Held::new(1, 2, 4, marked));
            assert_eq!(slab.traced(), counted);
            let held = slab.get(slot).expect("it stays");
            assert_eq!(held.traced(), counted == 1);
        }
        slab.remove(slot);
        assert_eq!(slab.traced(), 0);
    }

    /// To and fro over the sizes at which the index has one table, two or many, and
    /// the arrays one row or more.
    #[test]
    fn nothing_is_lost_at_the_sizes_where_the_forms_change() {
        let mut checked = Checked::default();
        let mut next = 0;
        for size in [
            52_001, 51_990, 52_010, 65_537, 65_530, 82_000, 2_500, 9_760, 2_400, 52_001, 0, 70_000,
        ] {
            while checked.slab.len() < size {
                checked.insert(next);
                next += 1;
            }
            let surplus = checked.slab.len() - size;
            // Not in the order of their slots.
            let mut leaving: Vec<u32> = checked.held().map(|held| held.0).collect();
            leaving.sort_unstable_by_key(|&number| number.reverse_bits());
            for &number in &leaving[..surplus] {
                checked.remove(number);
                while checked.slab.slots() > 4 * checked.slab.len() {
                    checked.shorten();
                }
            }
            checked.check();
        }
    }
}
