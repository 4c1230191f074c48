//! Arrays by slot whose growth moves a bounded number of places.
//!
//! A vector that doubles copies all it holds in one call: 24 bytes each for
//! entries, which at a million of them is many milliseconds. Here the first
//! `FIRST` places are such a vector, cheap to index, and those after it lie in
//! rows that never move.

use std::ops::{Index, IndexMut};

/// As many as a shard of the usual size has slots; moved in about 0.2 ms.
const FIRST: usize = 1 << 16;
/// Places of each further row: 384 kB of entries.
const ROW: usize = 1 << 14;

#[derive(Debug)]
pub(crate) struct Rows<T> {
    first: Vec<T>,
    /// Full but for the last, and none of them empty.
    rest: Vec<Vec<T>>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self {
            first: Vec::new(),
            rest: Vec::new(),
        }
    }
}

impl<T> Rows<T> {
    pub(crate) fn len(&self) -> usize {
        match self.rest.last() {
            None => self.first.len(),
            Some(last) => FIRST + (self.rest.len() - 1) * ROW + last.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.first.is_empty()
    }

    #[inline]
    pub(crate) fn get(&self, at: usize) -> Option<&T> {
        if at < self.first.len() {
            return Some(&self.first[at]);
        }
        self.get_far(at)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        if at < self.first.len() {
            return Some(&mut self.first[at]);
        }
        self.get_far_mut(at)
    }

    /// Apart, so that small arrays pay for one comparison and no more.
    #[cold]
    fn get_far(&self, at: usize) -> Option<&T> {
        let at = at.checked_sub(FIRST)?;
        self.rest.get(at / ROW)?.get(at % ROW)
    }

    #[cold]
    fn get_far_mut(&mut self, at: usize) -> Option<&mut T> {
        let at = at.checked_sub(FIRST)?;
        self.rest.get_mut(at / ROW)?.get_mut(at % ROW)
    }

    /// Adds a place. If the first row is full, it is given room for `more`.
    pub(crate) fn push(&mut self, value: T, more: usize) {
        if self.first.len() == FIRST {
            return self.push_far(value);
        }
        if self.first.len() == self.first.capacity() {
            let room = FIRST - self.first.len();
            self.first.reserve_exact(more.clamp(1, room));
        }
        self.first.push(value);
    }

    fn push_far(&mut self, value: T) {
        match self.rest.last_mut() {
            Some(last) if last.len() < ROW => last.push(value),
            _ => {
                let mut row = Vec::with_capacity(ROW);
                row.push(value);
                self.rest.push(row);
            }
        }
    }

    /// Makes `at` a place. The first row grows by an eighth, not by doubling:
    /// these arrays are most of what a policy costs per entry.
    #[inline]
    pub(crate) fn cover(&mut self, at: usize, empty: T)
    where
        T: Copy,
    {
        if self.get(at).is_none() {
            while self.len() <= at {
                self.push(empty, at / 8);
            }
        }
    }

    /// Takes off the last place, and gives back memory that is of no more use.
    pub(crate) fn pop(&mut self) -> Option<T> {
        if let Some(last) = self.rest.last_mut() {
            let value = last.pop();
            if last.is_empty() {
                self.rest.pop();
            }
            return value;
        }
        let value = self.first.pop();
        let room = self.first.capacity();
        if self.first.len() * 4 <= room {
            self.first.shrink_to(room / 2);
        }
        value
    }

    /// Takes off all places from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        while self.len() > len {
            self.pop();
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.first.iter().chain(self.rest.iter().flatten())
    }

    /// Bytes allocated.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn bytes(&self) -> usize {
        let rows = self.rest.iter().map(Vec::capacity).sum::<usize>();
        (self.first.capacity() + rows) * size_of::<T>()
    }
}

impl<T> Index<usize> for Rows<T> {
    type Output = T;

    #[inline]
    fn index(&self, at: usize) -> &T {
        self.get(at).expect("a slot has a place")
    }
}

impl<T> IndexMut<usize> for Rows<T> {
    #[inline]
    fn index_mut(&mut self, at: usize) -> &mut T {
        self.get_mut(at).expect("a slot has a place")
    }
}

impl<T> IntoIterator for Rows<T> {
    type Item = T;
    type IntoIter =
        std::iter::Chain<std::vec::IntoIter<T>, std::iter::Flatten<std::vec::IntoIter<Vec<T>>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first
            .into_iter()
            .chain(self.rest.into_iter().flatten())
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    #[test]
    fn every_place_keeps_its_value_over_growth_and_shrinking() {
        let mut rows = Rows::default();
        let most = FIRST + 2 * ROW + 1;
        for at in 0..most {
            assert_eq!(rows.len(), at);
            rows.push(at, at);
        }

        for len in [most, FIRST + ROW, FIRST + 1, FIRST, FIRST - 1, 10, 0] {
            rows.truncate(len);
            assert_eq!(rows.len(), len);
            assert!(rows.iter().copied().eq(0..len));
            assert!((0..len).all(|at| rows.get(at) == Some(&at)));
            assert!(rows.get(len).is_none() && rows.get_mut(most).is_none());
            let room = rows.bytes() / size_of::<usize>();
            assert!(room <= 4 * len + ROW, "{room} places for {len}");
        }
    }

    #[test]
    fn covering_a_place_fills_those_before_it() {
        let mut rows = Rows::default();

        rows.cover(FIRST + 1, 7_u8);
        rows[FIRST + 1] = 8;

        assert_eq!(rows.len(), FIRST + 2);
        assert_eq!((rows[0], rows[FIRST], rows[FIRST + 1]), (7, 7, 8));
        assert_eq!(
            rows.into_iter().filter(|&value| value == 7).count(),
            FIRST + 1
        );
    }
}
