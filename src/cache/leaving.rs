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

/// Collects what leaves; the caller drops it after the lock. Mostly it is one
/// entry, replaced or evicted, and that one costs no allocation.
#[derive(Debug)]
pub struct Leaving<K, V> {
    first: Option<Gone<K, V>>,
    more: Vec<Gone<K, V>>,
}

impl<K, V> Default for Leaving<K, V> {
    fn default() -> Self {
        Self {
            first: None,
            more: Vec::new(),
        }
    }
}

impl<K, V> Leaving<K, V> {
    #[inline]
    pub(crate) fn push(&mut self, gone: Gone<K, V>) {
        if self.first.is_none() {
            self.first = Some(gone);
        } else {
            self.more.push(gone);
        }
    }
}

impl<K, V> IntoIterator for Leaving<K, V> {
    type Item = Gone<K, V>;
    type IntoIter =
        std::iter::Chain<std::option::IntoIter<Gone<K, V>>, std::vec::IntoIter<Gone<K, V>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.first.into_iter().chain(self.more)
    }
}
