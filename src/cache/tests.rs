//! What the cache promises, call by call.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use super::*;

mod large;
mod references;

const POLICIES: [Eviction; 4] = [
    Eviction::S3Fifo,
    Eviction::Lru,
    Eviction::Lfu,
    Eviction::Fifo,
];

const SMALL: Budget = Budget {
    slots: 3,
    removals: 2,
};

/// A key that is compared as foreign code would: by asking.
type Key = std::rc::Rc<(u64, u32)>;

/// Comparing this one fails.
const FAILING: u32 = 4_000_000_000;

/// Looks for a number; every key of `hash % 7` collides.
struct Ask<'a> {
    key: Key,
    /// Runs before each answer, with no lock held.
    meanwhile: Option<&'a dyn Fn()>,
}

impl Probe<Key> for Ask<'_> {
    type Error = &'static str;

    fn is(&self, held: &Key) -> bool {
        Key::ptr_eq(&self.key, held)
    }

    fn same(one: &Key, other: &Key) -> bool {
        Key::ptr_eq(one, other)
    }

    fn plainly_equals(&self, held: &Key) -> Option<bool> {
        // Odd keys are plain, even ones only foreign code can compare.
        (self.key.1 % 2 == 1).then(|| self.key.1 == held.1)
    }

    fn share(&self, held: &Key) -> Key {
        Key::clone(held)
    }

    fn ask(&self, held: &Key) -> Result<bool, &'static str> {
        if let Some(meanwhile) = self.meanwhile {
            meanwhile();
        }
        if self.key.1 == FAILING {
            return Err("no comparison");
        }
        Ok(self.key.1 == held.1)
    }
}

fn key(number: u32) -> Ask<'static> {
    Ask {
        key: Key::new((u64::from(number % 7), number)),
        meanwhile: None,
    }
}

fn entry(key: &Ask<'_>, value: u32, deadline: u64) -> Entry<Key, u32> {
    Entry {
        key: Key::clone(&key.key),
        value,
        deadline,
        grace: 0,
        weight: 0,
        traced: false,
    }
}

fn bounds(max_size: Option<usize>, eviction: Eviction) -> Bounds {
    Bounds {
        max_size,
        max_weight: None,
        eviction,
        shards: None,
    }
}

/// The cache as tests use it: numbers by number.
struct Numbers(Cache<Key, u32>);

impl Numbers {
    fn new(max_size: Option<usize>, eviction: Eviction) -> Self {
        Self(Cache::new(bounds(max_size, eviction)))
    }

    fn set(&self, number: u32, value: u32, deadline: u64, now: u64) -> Vec<Gone<Key, u32>> {
        let key = key(number);
        let mut gone = Leaving::default();
        let entry = entry(&key, value, deadline);
        let set = self.0.set(key.key.0, &key, entry, now, &mut gone);
        set.expect("the key can be compared");
        gone.into_iter().collect()
    }

    fn get(&self, number: u32, now: u64) -> Option<u32> {
        let key = key(number);
        let read = self.0.get(key.key.0, &key, || now, |value| *value);
        match read.expect("the key can be compared") {
            Read::Hit(value) => Some(value),
            Read::Stale(_) | Read::Miss | Read::Expired(_) => None,
        }
    }

    fn get_at_once(&self, number: u32, now: u64) -> Option<Read<Key, u32, u32>> {
        let key = key(number);
        self.0.get_at_once(key.key.0, &key, || now, |value| *value)
    }

    fn delete(&self, number: u32, now: u64) -> bool {
        let key = key(number);
        let gone = self.0.delete(key.key.0, &key, now);
        gone.expect("the key can be compared")
            .is_some_and(|gone| gone.cause == Cause::Deleted)
    }

    fn touch(&self, number: u32, deadline: u64, now: u64) -> bool {
        let key = key(number);
        let touched = self.0.touch(key.key.0, &key, deadline, now);
        touched.expect("the key can be compared")
    }

    fn live(&self, now: u64) -> HashMap<u32, u32> {
        let mut all = HashMap::new();
        for at in 0..self.0.shard_count() {
            self.0.each(at, now, |key, value, _| {
                assert!(all.insert(key.1, *value).is_none(), "one entry per key");
            });
        }
        all
    }

    fn sweep(&self, now: u64, budget: Budget) -> usize {
        let mut calls = 0;
        for at in 0..self.0.shard_count() {
            let mut gone = Leaving::default();
            while !self.0.sweep(at, now, budget, &mut gone) {
                calls += 1;
            }
        }
        calls
    }
}

#[test]
fn an_error_of_foreign_equality_reaches_the_caller_and_changes_nothing() {
    let cache = Numbers::new(None, Eviction::Lru);
    let probe = key(FAILING);
    let twin = probe.key.0 as u32;
    cache.set(twin, 1, 100, 0);
    let mut gone = Leaving::default();

    let set = cache
        .0
        .set(probe.key.0, &probe, entry(&probe, 2, 100), 0, &mut gone);

    assert_eq!(set, Err("no comparison"));
    assert_eq!(gone.into_iter().count(), 0);
    assert_eq!(cache.live(0), HashMap::from([(twin, 1)]));
}

#[test]
fn what_foreign_equality_does_to_the_cache_meanwhile_is_seen() {
    let cache = Numbers::new(None, Eviction::Lru);
    cache.set(2, 20, 100, 0);
    let changes = RefCell::new(vec![30, 20]);
    let meanwhile = || {
        // Deletes and sets the very key that is being compared.
        if let Some(value) = changes.borrow_mut().pop() {
            cache.delete(2, 0);
            cache.set(2, value + 1, 100, 0);
        }
    };
    let probe = Ask {
        key: Key::new((2, 2)),
        meanwhile: Some(&meanwhile),
    };

    let read = cache.0.get(2, &probe, || 0, |value| *value);

    assert_eq!(
        read,
        Ok(Read::Hit(31)),
        "the value of the key held at the end"
    );
    assert_eq!(cache.live(0).len(), 1);
}

#[test]
fn a_key_set_while_its_equal_is_being_compared_is_not_held_twice() {
    let cache = Numbers::new(None, Eviction::Lru);
    cache.set(2, 1, 100, 0);
    let set_twin = Cell::new(true);
    let meanwhile = || {
        if set_twin.take() {
            cache.set(16, 5, 100, 0);
        }
    };
    let probe = Ask {
        key: Key::new((2, 16)),
        meanwhile: Some(&meanwhile),
    };
    let mut gone = Leaving::default();

    let set = cache.0.set(2, &probe, entry(&probe, 6, 100), 0, &mut gone);

    assert_eq!(set, Ok(()));
    assert_eq!(cache.live(0), HashMap::from([(2, 1), (16, 6)]));
}

#[test]
fn a_read_at_once_answers_where_nothing_foreign_is_needed_and_counts_that_alone() {
    let cache = Numbers::new(None, Eviction::Lru);
    for number in [1, 2, 3] {
        cache.set(number, 10 * number, 100, 0);
    }

    assert_eq!(cache.get_at_once(1, 99), Some(Read::Hit(10)));
    assert_eq!(cache.get_at_once(1, 100), None, "it has to leave");
    assert_eq!(cache.get_at_once(5, 0), Some(Read::Miss));
    assert_eq!(cache.get_at_once(2, 0), None, "only foreign code can tell");

    let counted = cache.0.counters();
    assert_eq!((counted.hits, counted.misses), (1, 1));
    assert_eq!(cache.0.len(), 3);
}

#[test]
fn what_lives_for_ever_asks_for_no_time() {
    let cache = Numbers::new(None, Eviction::Lru);
    cache.set(1, 10, u64::MAX, 0);
    let probe = key(1);

    let read = cache.0.get(1, &probe, || panic!("asked"), |value| *value);

    assert_eq!(read, Ok(Read::Hit(10)));
}

#[test]
fn a_sweep_does_no_more_than_its_budget_and_goes_on_where_it_was() {
    let cache = Numbers::new(Some(1000), Eviction::S3Fifo);
    for key in 0..1000 {
        cache.set(key, key, 10, 0);
    }
    let budget = Budget {
        slots: 100,
        removals: 30,
    };
    let mut gone = Leaving::default();

    assert!(cache.0.sweep(0, 9, budget, &mut gone), "nothing is expired");
    assert!(!cache.0.sweep(0, 10, budget, &mut gone));
    assert_eq!(gone.into_iter().count(), 30);
    // Then the slots go, but for those few of which memory is not given back.
    let calls = 970_usize.div_ceil(30) + (1000_usize - 63).div_ceil(100);
    assert_eq!(cache.sweep(10, budget), calls - 1);
    assert_eq!(cache.0.len(), 0);
}

#[test]
fn few_of_many_left_give_the_memory_back_and_keep_their_order() {
    for policy in POLICIES {
        let cache = Numbers::new(Some(1000), policy);
        for key in 0..1000 {
            cache.set(key, key, u64::MAX, 0);
        }
        for key in (0..1000).filter(|key| key % 5 != 0) {
            cache.delete(key, 0);
        }
        let slots = cache.0.shards[0].lock().slab().slots();
        assert!(slots <= 4 * 200, "{slots} slots for 200 entries");
        assert_eq!(cache.live(0).len(), 200);

        for key in 1000..1801 {
            cache.set(key, key, u64::MAX, 0);
        }
        assert_eq!(cache.0.len(), 1000);
        let oldest = cache.get(0, 0);
        assert_eq!(oldest, None, "{policy:?}: the oldest leaves first");
    }
}

#[test]
fn reads_of_what_is_past_its_time_give_the_memory_back() {
    let cache = Numbers::new(Some(1000), Eviction::Lru);
    for key in 0..1000 {
        cache.set(key, key, if key < 900 { 10 } else { 100 }, 0);
    }

    assert!((0..900).all(|key| cache.get(key, 10).is_none()));

    let slots = cache.0.shards[0].lock().slab().slots();
    assert!(slots <= 4 * 100, "{slots} slots for 100 entries");
    assert_eq!(cache.live(10).len(), 100);
}

#[test]
fn stale_values_are_served_to_who_asks_and_until_their_grace_ends() {
    let cache = Numbers::new(None, Eviction::Lru);
    let key = key(4);
    let mut entry = entry(&key, 1, 10);
    entry.grace = 10;
    let mut gone = Leaving::default();
    assert_eq!(cache.0.set(4, &key, entry, 0, &mut gone), Ok(()));
    let stale = |now| cache.0.get_stale(4, &key, now, |value| *value);

    assert_eq!(stale(9), Ok(Read::Hit(1)));
    assert_eq!(stale(10), Ok(Read::Stale(1)));
    assert_eq!(cache.get(4, 10), None);
    assert_eq!(cache.sweep(19, SMALL), 0);
    assert_eq!(stale(19), Ok(Read::Stale(1)));
    assert!(matches!(stale(20), Ok(Read::Expired(_))));
    assert_eq!(cache.0.len(), 0);
}

#[test]
fn only_traced_entries_are_shown_to_the_collector() {
    let cache = Numbers::new(None, Eviction::Lru);
    for number in 0..100 {
        let key = key(number);
        let mut entry = entry(&key, number, u64::MAX);
        entry.traced = number % 10 == 0;
        let mut gone = Leaving::default();
        cache
            .0
            .set(key.key.0, &key, entry, 0, &mut gone)
            .expect("the key can be compared");
    }
    cache.delete(20, 0);
    let mut shown = Vec::new();

    let done: Result<(), ()> = cache.0.trace(|key, _| {
        shown.push(key.1);
        Ok(())
    });

    shown.sort_unstable();
    assert_eq!(done, Ok(()));
    assert_eq!(shown, [0, 10, 30, 40, 50, 60, 70, 80, 90]);
}

#[test]
fn an_entry_of_two_pointers_takes_24_bytes() {
    assert_eq!(size_of::<slab::Place<Key, Box<u32>>>(), 24);
}

#[test]
fn a_full_shard_of_pointers_is_below_48_bytes_an_entry() {
    let cache: Cache<Key, Box<u32>> = Cache::new(bounds(Some(LARGEST_SHARD), Eviction::S3Fifo));
    let fill = |numbers: std::ops::Range<usize>| {
        for number in numbers {
            let probe = Ask {
                key: Key::new((number as u64, number as u32)),
                meanwhile: None,
            };
            let entry = Entry {
                key: Key::clone(&probe.key),
                value: Box::new(1),
                deadline: u64::MAX,
                grace: 0,
                weight: 0,
                traced: false,
            };
            let mut gone = Leaving::default();
            let set = cache.set(probe.key.0, &probe, entry, 0, &mut gone);
            set.expect("the key can be compared");
        }
        cache.shards[0].lock().bytes() / LARGEST_SHARD
    };

    let filled = fill(0..LARGEST_SHARD);
    let churned = fill(LARGEST_SHARD..3 * LARGEST_SHARD);

    assert!(filled < 48, "{filled} bytes an entry");
    assert!(churned < 48, "{churned} bytes an entry after evictions");
}
