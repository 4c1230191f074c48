//! How a key is looked for when only foreign code can say what it equals.

/// The key that is looked for, and what may be asked of the keys held.
///
/// Under the lock only `is`, `same`, `plainly_equals` and `share` are called:
/// they must not run foreign code. `ask` may run anything, re-enter the cache
/// and fail; it is called with no lock held.
pub trait Probe<K> {
    /// What `ask` fails with.
    type Error;

    /// Whether `held` is this very key: identity, not equality.
    fn is(&self, held: &K) -> bool;

    /// Whether two held keys are one object.
    fn same(one: &K, other: &K) -> bool;

    /// Equality where it needs no foreign code, else `None`.
    fn plainly_equals(&self, held: &K) -> Option<bool>;

    /// Another handle on `held`, so that it outlives the lock.
    fn share(&self, held: &K) -> K;

    /// Equality by foreign code.
    fn ask(&self, held: &K) -> Result<bool, Self::Error>;
}

/// What a search under the lock came to.
#[derive(Debug)]
pub(crate) enum Lookup<K> {
    /// The slot of the key.
    Found(u32),
    Absent,
    /// Go on after asking foreign code about this key.
    Unsure(K),
}
