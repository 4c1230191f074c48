//! What left the cache, on its way out of the lock.

/// Why an entry left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// There was no room.
    Size,
    /// Its time was over.
    Expired,
    /// A new value took its place; the key stays.
    Replaced,
    /// The caller took it out.
    Deleted,
}

/// An entry that left. Dropping it may run foreign code: never under the lock.
#[derive(Debug, PartialEq, Eq)]
pub struct Gone<K, V> {
    /// The key it was held by.
    pub key: K,
    /// Its last value.
    pub value: V,
    /// Why it left.
    pub cause: Cause,
}

/// How many leave a call without an allocation: one replaced or evicted, and
/// one found expired on the way.
const INLINE: usize = 2;

/// Collects what leaves; the caller drops it after the lock.
#[derive(Debug)]
pub struct Leaving<K, V> {
    few: [Option<Gone<K, V>>; INLINE],
    more: Vec<Gone<K, V>>,
}

impl<K, V> Default for Leaving<K, V> {
    fn default() -> Self {
        Self {
            few: [None, None],
            more: Vec::new(),
        }
    }
}

impl<K, V> Leaving<K, V> {
    #[inline]
    pub(crate) fn push(&mut self, gone: Gone<K, V>) {
        match self.few.iter_mut().find(|place| place.is_none()) {
            Some(place) => *place = Some(gone),
            None => self.more.push(gone),
        }
    }

    /// Whether nothing left.
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.few[0].is_none()
    }
}

impl<K, V> IntoIterator for Leaving<K, V> {
    type Item = Gone<K, V>;
    type IntoIter = std::iter::Chain<
        std::iter::Flatten<std::array::IntoIter<Option<Gone<K, V>>, INLINE>>,
        std::vec::IntoIter<Gone<K, V>>,
    >;

    fn into_iter(self) -> Self::IntoIter {
        self.few.into_iter().flatten().chain(self.more)
    }
}
