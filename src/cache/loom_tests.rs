//! The lookup protocol under every interleaving of its locks.

use std::sync::Arc;

use super::*;

/// A key that only foreign code compares; all collide.
type Key = Arc<u32>;

struct Ask(Key);

impl Probe<Key> for Ask {
    type Error = ();

    fn is(&self, held: &Key) -> bool {
        Arc::ptr_eq(&self.0, held)
    }

    fn same(one: &Key, other: &Key) -> bool {
        Arc::ptr_eq(one, other)
    }

    fn plainly_equals(&self, _held: &Key) -> Option<bool> {
        None
    }

    fn share(&self, held: &Key) -> Key {
        Arc::clone(held)
    }

    fn ask(&self, held: &Key) -> Result<bool, ()> {
        // What foreign code may do at worst: let another thread go first.
        loom::thread::yield_now();
        Ok(self.0 == *held)
    }
}

/// A cache of one shard that holds `held`.
fn cache(max_size: usize, held: &[u32]) -> Arc<Cache<Key, u32>> {
    let cache = Cache::new(Bounds {
        max_size: Some(max_size),
        max_weight: None,
        eviction: Eviction::Lru,
        shards: Some(1),
    });
    for &number in held {
        set(&cache, number, 0);
    }
    Arc::new(cache)
}

fn entry(key: &Ask, value: u32) -> Entry<Key, u32> {
    Entry {
        key: Arc::clone(&key.0),
        value,
        deadline: u64::MAX,
        grace: 0,
        weight: 0,
        traced: false,
    }
}

fn set(cache: &Cache<Key, u32>, number: u32, value: u32) -> Vec<Gone<Key, u32>> {
    let key = Ask(Arc::new(number));
    let mut gone = Leaving::default();
    assert_eq!(cache.set(0, &key, entry(&key, value), 0, &mut gone), Ok(()));
    gone.into_iter().collect()
}

fn add(cache: &Cache<Key, u32>, number: u32, value: u32) -> bool {
    let key = Ask(Arc::new(number));
    let mut gone = Leaving::default();
    let refused = cache.add(0, &key, entry(&key, value), 0, &mut gone);
    refused.is_ok_and(|refused| refused.is_none())
}

fn delete(cache: &Cache<Key, u32>, number: u32) -> bool {
    let gone = cache.delete(0, &Ask(Arc::new(number)), 0);
    gone.is_ok_and(|gone| gone.is_some())
}

fn get(cache: &Cache<Key, u32>, number: u32) -> Option<u32> {
    let read = cache.get(0, &Ask(Arc::new(number)), || 0, |value| *value);
    match read {
        Ok(Read::Hit(value)) => Some(value),
        _ => None,
    }
}

/// Runs both in threads of their own; what they returned.
fn both<A: 'static, B: 'static>(
    cache: &Arc<Cache<Key, u32>>,
    one: impl FnOnce(&Cache<Key, u32>) -> A + 'static,
    other: impl FnOnce(&Cache<Key, u32>) -> B + 'static,
) -> (A, B) {
    let (first, second) = (Arc::clone(cache), Arc::clone(cache));
    let first = loom::thread::spawn(move || one(&first));
    let second = loom::thread::spawn(move || other(&second));
    let first = first.join().expect("the first thread ended well");
    (first, second.join().expect("the second thread ended well"))
}

#[test]
fn loom_of_two_adds_one_wins() {
    loom::model(|| {
        let cache = cache(4, &[1]);

        let (one, other) = both(&cache, |c| add(c, 2, 20), |c| add(c, 2, 21));

        assert!(one != other, "exactly one stored its value");
        assert_eq!(cache.len(), 2);
        assert_eq!(get(&cache, 2), Some(if one { 20 } else { 21 }));
    });
}

/// An add as it must not be: it acts on what a search found before the lock was
/// let go of.
fn add_late(cache: &Cache<Key, u32>, number: u32, value: u32) -> bool {
    let key = Ask(Arc::new(number));
    let found = cache.peek(0, &key, 0, |_| ());
    let absent = found.is_ok_and(|found| found.is_none());
    if absent {
        let mut gone = Leaving::default();
        let mut shard = cache.shards[0].lock();
        shard.set(None, fold(0), entry(&key, value), 0, &mut gone);
    }
    absent
}

#[test]
#[should_panic(expected = "exactly one stored its value")]
fn loom_finds_an_add_on_an_old_search() {
    loom::model(|| {
        let cache = cache(4, &[1]);

        let (one, other) = both(&cache, |c| add_late(c, 2, 20), |c| add_late(c, 2, 21));

        assert!(one != other, "exactly one stored its value");
    });
}

#[test]
fn loom_of_two_deletes_one_has_it() {
    loom::model(|| {
        let cache = cache(4, &[1, 2]);

        let (one, other) = both(&cache, |c| delete(c, 2), |c| delete(c, 2));

        assert!(one != other);
        assert_eq!(cache.len(), 1);
    });
}

#[test]
fn loom_two_sets_of_a_key_leave_one_entry_and_lose_no_value() {
    loom::model(|| {
        let cache = cache(4, &[1]);

        let (one, other) = both(&cache, |c| set(c, 2, 20), |c| set(c, 2, 21));

        let replaced: Vec<u32> = one
            .into_iter()
            .chain(other)
            .map(|gone| gone.value)
            .collect();
        let kept = get(&cache, 2).expect("the last one set");
        assert_eq!(cache.len(), 2);
        assert_eq!(replaced, [41 - kept]);
    });
}

#[test]
fn loom_a_full_cache_stays_within_its_bound() {
    loom::model(|| {
        let cache = cache(2, &[1, 2]);

        let (one, other) = both(&cache, |c| set(c, 3, 30).len(), |c| set(c, 4, 40).len());

        assert_eq!((one, other), (1, 1), "each evicted one");
        assert_eq!(cache.len(), 2);
        assert_eq!((get(&cache, 3), get(&cache, 4)), (Some(30), Some(40)));
    });
}

#[test]
fn loom_a_read_sees_the_old_value_the_new_one_or_none() {
    loom::model(|| {
        let cache = cache(4, &[1, 2]);

        let (seen, _) = both(
            &cache,
            |c| get(c, 2),
            |c| {
                delete(c, 2);
                set(c, 2, 5)
            },
        );

        assert!(matches!(seen, Some(0 | 5) | None));
        assert_eq!(get(&cache, 2), Some(5));
    });
}
