//! Slots by hash, in tables of bounded size.
//!
//! One table would rehash everything in the one call that makes it double. Here
//! a table that holds all it may is joined by others, one a call: linear hashing
//! (Litwin, VLDB 1980). Which table an entry is in follows from its hash and the
//! number of tables alone, so there is no directory; and a shard of the usual
//! size has one table, which needs no choice at all.

use hashbrown::HashTable;

use super::rows::Rows;

/// Entries of an only table, at most: just under 0.8 of 2^16 places, so that it
/// has room for the marks of many removals.
pub(super) const FULL: usize = 52_000;
/// Entries of one of several tables, at most, but for a few by chance. It is less,
/// since their slots lie anywhere: to split one is to wait for memory at each.
const PART: usize = FULL / 8;
/// Room of a table that is split off: for those few too.
const ROOM: usize = PART + PART / 16;
/// In a table of fewer places than this removals leave no marks.
const SMALLEST_MARKED: usize = 16;
/// Tables of fewer places than this are not worth shrinking.
const SMALLEST_SHRUNK: usize = 64;

/// What it knows of the slots: the hash of each.
pub(super) type Hashes = Rows<u32>;

#[derive(Debug, Default)]
pub(super) struct Index {
    first: HashTable<u32>,
    /// Tables 1 and up.
    rest: Vec<HashTable<u32>>,
    len: usize,
}

/// 32 bits of hash as the 64 a table wants: it takes the lowest for the place
/// and the highest seven for the tag; those from the 32nd on choose the table.
#[inline]
fn widen(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// Of `count` tables, the one for a hash. With a power of two that many bits
/// choose; of those in between the last few are not split yet.
fn number(wide: u64, count: usize) -> usize {
    let mask = count.next_power_of_two() - 1;
    let at = (wide >> 32) as usize & mask;
    if at < count { at } else { at & (mask >> 1) }
}

impl Index {
    /// The slot of this hash that `is` the one.
    #[inline]
    pub(super) fn find(&self, hash: u32, is: impl FnMut(&u32) -> bool) -> Option<u32> {
        let wide = widen(hash);
        let table = if self.rest.is_empty() {
            &self.first
        } else {
            self.choose(wide)
        };
        table.find(wide, is).copied()
    }

    /// Apart, so that one table needs no registers for it.
    #[cold]
    fn choose(&self, wide: u64) -> &HashTable<u32> {
        match number(wide, self.rest.len() + 1) {
            0 => &self.first,
            at => &self.rest[at - 1],
        }
    }

    fn table(&mut self, at: usize) -> &mut HashTable<u32> {
        match at {
            0 => &mut self.first,
            at => &mut self.rest[at - 1],
        }
    }

    #[inline]
    fn table_of(&mut self, wide: u64) -> &mut HashTable<u32> {
        if self.rest.is_empty() {
            return &mut self.first;
        }
        let count = self.rest.len() + 1;
        self.table(number(wide, count))
    }

    /// Takes in a slot that is not in yet; `hashes` has its hash, and `held` are
    /// the slots that are in, in any order.
    pub(super) fn insert(&mut self, slot: u32, hashes: &Hashes, held: impl Iterator<Item = u32>) {
        if self.rest.is_empty() {
            if self.first.len() == self.first.capacity() || self.len >= FULL {
                self.renew(hashes, held);
            }
        } else if self.len >= (self.rest.len() + 2) * (PART / 2) {
            // Before the fullest, which are twice the least full, hold too much.
            self.split(hashes);
        }
        self.put(slot, hashes);
        self.len += 1;
    }

    /// Makes the only table anew: without marks, twice as large, or as two.
    #[cold]
    fn renew(&mut self, hashes: &Hashes, held: impl Iterator<Item = u32>) {
        let mut room = renewed(&self.first);
        if self.len >= FULL {
            room = half(self.len);
            self.rest.push(HashTable::with_capacity(room));
        }
        self.first = HashTable::with_capacity(room);
        // By slots and not by places: so memory is read from end to end.
        held.for_each(|slot| self.put(slot, hashes));
    }

    pub(super) fn remove(&mut self, slot: u32, hashes: &Hashes) {
        let wide = widen(hashes[slot as usize]);
        let table = self.table_of(wide);
        if let Ok(entry) = table.find_entry(wide, |&other| other == slot) {
            entry.remove();
            self.len -= 1;
            self.shrink(hashes);
        }
    }

    /// What was in slot `from` is now in slot `to`, by the same hash.
    pub(super) fn relocate(&mut self, from: u32, to: u32, hash: u32) {
        let wide = widen(hash);
        let place = self.table_of(wide).find_mut(wide, |&slot| slot == from);
        *place.expect("every held slot is in the index") = to;
    }

    /// Adds a table, and gives it its part of the one table it is split from.
    fn split(&mut self, hashes: &Hashes) {
        let new = self.rest.len() + 1;
        let parent = new - (1 << new.ilog2());
        let whole = std::mem::take(self.table(parent));
        let room = half(whole.len()).max(ROOM);
        *self.table(parent) = HashTable::with_capacity(room);
        self.rest.push(HashTable::with_capacity(room));
        whole.into_iter().for_each(|slot| self.put(slot, hashes));
    }

    /// Gives back memory once less than a quarter is used, by one table a call:
    /// the last one goes back into the one it was split from.
    fn shrink(&mut self, hashes: &Hashes) {
        if self.rest.is_empty() {
            return shrink_table(&mut self.first, hashes);
        }
        if self.len < (self.rest.len() + 2) * (PART / 8) {
            let last = self.rest.pop().into_iter().flatten();
            last.for_each(|slot| self.put(slot, hashes));
        }
    }

    fn put(&mut self, slot: u32, hashes: &Hashes) {
        let wide = widen(hashes[slot as usize]);
        let table = self.table_of(wide);
        if table.len() == table.capacity() {
            enlarge(table, hashes);
        }
        table.insert_unique(wide, slot, |&slot| widen(hashes[slot as usize]));
    }

    /// Bytes allocated.
    #[cfg(all(test, not(feature = "loom")))]
    pub(super) fn bytes(&self) -> usize {
        let rest = self.rest.iter().map(HashTable::allocation_size);
        self.first.allocation_size() + rest.sum::<usize>()
    }
}

/// Room for half of `len`, and a little more, as halves are rarely even.
fn half(len: usize) -> usize {
    len / 2 + len / 32
}

/// The room a full table needs: as much as it has if that only rids it of the
/// marks that removals leave, for which hashbrown would double it; not if so few
/// are marks that this would soon be needed again. At the limit it is once in
/// 11,000 evictions.
fn renewed(table: &HashTable<u32>) -> usize {
    let places = table.num_buckets();
    if places >= SMALLEST_MARKED && table.len() * 16 <= places * 13 {
        return places / 8 * 7;
    }
    table.len() * 2
}

/// Makes room in a full table.
#[cold]
fn enlarge(table: &mut HashTable<u32>, hashes: &Hashes) {
    let fresh = HashTable::with_capacity(renewed(table));
    for slot in std::mem::replace(table, fresh) {
        table.insert_unique(widen(hashes[slot as usize]), slot, |_| {
            unreachable!("it has room")
        });
    }
}

fn shrink_table(table: &mut HashTable<u32>, hashes: &Hashes) {
    let places = table.num_buckets();
    if places > SMALLEST_SHRUNK && table.len() * 8 <= places {
        let room = table.len() * 2;
        table.shrink_to(room, |&slot| widen(hashes[slot as usize]));
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    /// An index of as many slots, each with a hash of its own.
    fn grown(count: u32) -> (Index, Hashes) {
        let (mut index, mut hashes) = (Index::default(), Hashes::default());
        for slot in 0..count {
            hashes.push(hash_of(slot), 1 << 16);
            index.insert(slot, &hashes, 0..slot);
        }
        (index, hashes)
    }

    fn hash_of(slot: u32) -> u32 {
        slot.wrapping_mul(0x9E37_79B1)
    }

    fn found(index: &Index, slot: u32) -> bool {
        index.find(hash_of(slot), |&other| other == slot) == Some(slot)
    }

    fn largest(index: &Index) -> usize {
        let rest = index.rest.iter().map(HashTable::len).max();
        index.first.len().max(rest.unwrap_or(0))
    }

    #[test]
    fn one_table_is_kept_up_to_its_bound_and_never_has_more_places_than_needed() {
        let (index, _) = grown(FULL as u32);

        assert!(index.rest.is_empty());
        assert_eq!(index.first.num_buckets(), 1 << 16);
    }

    #[test]
    fn tables_are_split_until_none_holds_more_than_its_part() {
        let count = 3 * FULL as u32;

        let (index, _) = grown(count);

        assert!(largest(&index) <= ROOM, "{} in a table", largest(&index));
        assert!((0..count).all(|slot| found(&index, slot)));
        assert!((count..2 * count).all(|slot| !found(&index, slot)));
        let each = index.bytes() / count as usize;
        assert!(each <= 12, "{each} bytes an entry");
    }

    #[test]
    fn removals_give_the_tables_back_one_a_call_and_lose_nothing() {
        let count = 3 * FULL as u32;
        let (mut index, hashes) = grown(count);
        let is_kept = |slot| slot % 100 == 0;

        for slot in (0..count).filter(|&slot| !is_kept(slot)) {
            let tables = index.rest.len();
            index.remove(slot, &hashes);
            assert!(tables - index.rest.len() <= 1);
        }

        assert!((0..count).all(|slot| found(&index, slot) == is_kept(slot)));
        assert!(index.rest.is_empty());
        for slot in (0..count).filter(|&slot| is_kept(slot)) {
            index.remove(slot, &hashes);
        }
        assert!(index.bytes() <= 1024, "{} bytes for none", index.bytes());
    }

    #[test]
    fn a_moved_slot_is_found_where_it_went() {
        for count in [10, 2 * FULL as u32] {
            let (mut index, _) = grown(count);

            index.relocate(3, count + 5, hash_of(3));

            assert!(!found(&index, 3));
            let there = |&slot: &u32| slot == count + 5;
            assert_eq!(index.find(hash_of(3), there), Some(count + 5));
        }
    }

    #[test]
    fn removals_and_insertions_in_turn_do_not_enlarge_a_table() {
        let (mut index, hashes) = grown(40_000);
        let places = index.first.num_buckets();

        for slot in (0..40_000).cycle().take(200_000) {
            index.remove(slot, &hashes);
            index.insert(slot, &hashes, (0..40_000).filter(|&other| other != slot));
        }

        assert_eq!(index.first.num_buckets(), places);
        assert_eq!(index.len, 40_000);
    }
}
