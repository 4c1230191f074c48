//! The laws of the cache, against plain references.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

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

#[derive(Clone, Debug)]
enum Step {
    Set { key: u32, ttl: u64 },
    Get { key: u32 },
    Delete { key: u32 },
    Touch { key: u32, ttl: u64 },
    Wait { time: u64 },
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..40_u32;
    let ttl = 1..60_u64;
    prop_oneof![
        6 => (key.clone(), ttl.clone()).prop_map(|(key, ttl)| Step::Set { key, ttl: ttl * 2 }),
        6 => key.clone().prop_map(|key| Step::Get { key }),
        2 => key.clone().prop_map(|key| Step::Delete { key }),
        1 => (key, ttl).prop_map(|(key, ttl)| Step::Touch { key, ttl: ttl * 2 }),
        2 => (1..20_u64).prop_map(|time| Step::Wait { time: time * 2 }),
        1 => Just(Step::Sweep),
    ]
}

const SMALL: Budget = Budget {
    slots: 3,
    removals: 2,
};

/// A cache of any bound next to a map of deadlines. What the cache holds must be
/// in the map with the same value; without a bound the reverse holds too.
fn agrees_with_a_map_of_deadlines(cache: &Numbers, bound: Option<usize>, steps: Vec<Step>) {
    let mut model: HashMap<u32, (u32, u64)> = HashMap::new();
    let mut now = 0;
    for (serial, step) in (0_u32..).zip(steps) {
        let before = cache.live(now);
        match step {
            Step::Set { key, ttl } => {
                cache.set(key, serial, now + ttl, now);
                model.insert(key, (serial, now + ttl));
                assert_eq!(cache.get(key, now), Some(serial), "what is set is there");
            }
            Step::Get { key } => {
                if let Some(at_once) = cache.get_at_once(key, now) {
                    let expected = before.get(&key).map_or(Read::Miss, |v| Read::Hit(*v));
                    assert_eq!(at_once, expected);
                }
                assert_eq!(cache.get(key, now), before.get(&key).copied());
            }
            Step::Delete { key } => {
                assert_eq!(cache.delete(key, now), before.contains_key(&key));
                model.remove(&key);
            }
            Step::Touch { key, ttl } => {
                let live = before.contains_key(&key);
                assert_eq!(cache.touch(key, now + ttl, now), live);
                model
                    .entry(key)
                    .and_modify(|held| held.1 = if live { now + ttl } else { held.1 });
            }
            Step::Wait { time } => now += time,
            Step::Sweep => {
                // The first may only end a pass that `set` began.
                cache.sweep(now, SMALL);
                cache.sweep(now, SMALL);
                let live = cache.live(now).len();
                assert_eq!(cache.0.len(), live, "a whole pass leaves what lives");
            }
        }
        model.retain(|_, held| held.1 > now);
        let live = cache.live(now);
        assert!(bound.is_none_or(|bound| cache.0.len() <= bound));
        for (key, value) in &live {
            assert_eq!(model.get(key).map(|held| held.0), Some(*value));
        }
        if bound.is_none() {
            assert_eq!(live.len(), model.len());
        }
    }
}

const POLICIES: [Eviction; 4] = [
    Eviction::S3Fifo,
    Eviction::Lru,
    Eviction::Lfu,
    Eviction::Fifo,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_unbounded_cache_is_a_map_of_deadlines(steps in prop::collection::vec(step(), 1..300)) {
        let cache = Numbers::new(None, Eviction::S3Fifo);
        agrees_with_a_map_of_deadlines(&cache, None, steps);
    }

    #[test]
    fn a_bounded_cache_never_lies_and_never_overflows(
        steps in prop::collection::vec(step(), 1..300),
        size in 1..20_usize,
        shards in 1..4_usize,
        policy in 0..4_usize,
    ) {
        let mut bounds = bounds(Some(size), POLICIES[policy]);
        bounds.shards = Some(shards);
        agrees_with_a_map_of_deadlines(&Numbers(Cache::new(bounds)), Some(size), steps);
    }

    #[test]
    fn each_policy_evicts_as_its_reference(
        uses in prop::collection::vec(usage(), 1..600),
        size in prop_oneof![1..12_usize, 80..150_usize],
    ) {
        for policy in POLICIES {
            let cache = Numbers::new(Some(size), policy);
            let mut reference = Reference::new(policy, size);
            for &usage in &uses {
                match usage {
                    Use::Read(key) => {
                        let read = cache.get(key, 0).is_some();
                        prop_assert_eq!(read, reference.touch(key));
                    }
                    Use::Write(key) => {
                        cache.set(key, key, u64::MAX, 0);
                        reference.set(key);
                    }
                    Use::DeleteMost => for key in (0..300).filter(|key| key % 7 != 0) {
                        prop_assert_eq!(cache.delete(key, 0), reference.delete(key));
                    },
                }
            }
            let mut kept: Vec<u32> = cache.live(0).into_keys().collect();
            kept.sort_unstable();
            prop_assert_eq!(kept, reference.keys(), "{:?}", policy);
        }
    }

    #[test]
    fn weight_is_the_sum_of_what_is_held_and_below_the_bound(
        sets in prop::collection::vec((0..20_u32, 0..12_u64), 1..200),
        policy in 0..4_usize,
    ) {
        let mut bounds = bounds(None, POLICIES[policy]);
        bounds.max_weight = Some(10);
        let cache: Cache<Key, u32> = Cache::new(bounds);
        let mut weights = HashMap::new();
        for (number, weight) in sets {
            let key = key(number);
            let mut entry = entry(&key, number, u64::MAX);
            entry.weight = weight;
            let mut gone = Leaving::default();
            cache.set(key.key.0, &key, entry, 0, &mut gone).expect("the key can be compared");
            weights.insert(number, weight);
            let mut sum = 0;
            cache.each(0, 0, |key, _, _| sum += weights[&key.1]);
            prop_assert_eq!(cache.weight(), sum);
            prop_assert!(sum <= 10);
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Use {
    Read(u32),
    Write(u32),
    /// Leaves so few that the slots are made dense again.
    DeleteMost,
}

fn usage() -> impl Strategy<Value = Use> {
    prop_oneof![
        40 => (0..300_u32).prop_map(Use::Read),
        20 => (0..300_u32).prop_map(Use::Write),
        // Few keys that are used again and again.
        20 => (0..20_u32).prop_map(Use::Read),
        20 => (0..20_u32).prop_map(Use::Write),
        1 => Just(Use::DeleteMost),
    ]
}

/// Ten lines of each policy: lists of key and uses, the next to leave first.
struct Reference {
    policy: Eviction,
    size: usize,
    held: Vec<(u32, u32)>,
    /// S3-FIFO alone: the small queue, and the hashes of those who left it.
    small: Vec<(u32, u32)>,
    ghost: ghost::Ghost,
}

impl Reference {
    fn new(policy: Eviction, size: usize) -> Self {
        Self {
            policy,
            size,
            held: Vec::new(),
            small: Vec::new(),
            ghost: ghost::Ghost::default(),
        }
    }

    fn keys(&self) -> Vec<u32> {
        let all = self.held.iter().chain(&self.small);
        let mut keys: Vec<u32> = all.map(|held| held.0).collect();
        keys.sort_unstable();
        keys
    }

    fn touch(&mut self, key: u32) -> bool {
        let mut all = self.held.iter_mut().chain(&mut self.small);
        let Some(found) = all.find(|held| held.0 == key) else {
            return false;
        };
        found.1 += 1;
        if matches!(self.policy, Eviction::Lru | Eviction::Lfu) {
            let at = self.held.iter().position(|held| held.0 == key);
            let recent = self.held.remove(at.expect("it was found"));
            self.held.push(recent);
        }
        true
    }

    fn delete(&mut self, key: u32) -> bool {
        let before = self.held.len() + self.small.len();
        self.held.retain(|held| held.0 != key);
        self.small.retain(|held| held.0 != key);
        self.held.len() + self.small.len() < before
    }

    fn set(&mut self, key: u32) {
        if self.touch(key) {
            return;
        }
        let full = self.held.len() + self.small.len() == self.size;
        match self.policy {
            Eviction::S3Fifo => self.set_s3fifo(key, full),
            Eviction::Lfu if full => {
                let uses = |at: &usize| (self.held[*at].1, *at);
                let rarest = (0..self.size).min_by_key(uses).unwrap_or(0);
                self.held.remove(rarest);
                self.held.push((key, 1));
            }
            _ => {
                self.held.drain(..usize::from(full));
                self.held.push((key, 1));
            }
        }
    }

    fn set_s3fifo(&mut self, key: u32, full: bool) {
        if full {
            self.evict_s3fifo();
        }
        if self.ghost.take(hash_of(key)) {
            self.held.push((key, 0));
        } else {
            self.small.push((key, 0));
        }
    }

    /// As the paper draws it, with a small queue of a 32nd, one read to pass
    /// it, seven reads told apart and 256 second chances at once; the ghost is the cache's own, which has
    /// tests of its own.
    fn evict_s3fifo(&mut self) {
        for chance in 0..=256 {
            let small = self.small.len() * 32 >= self.size;
            let queue = if small {
                &mut self.small
            } else {
                &mut self.held
            };
            let (last, reads) = queue.remove(0);
            if reads == 0 || chance == 256 {
                if small {
                    self.remember(last);
                }
                return;
            }
            let left = if small { 0 } else { reads.min(7) - 1 };
            self.held.push((last, left));
        }
    }

    fn remember(&mut self, key: u32) {
        let main_room = self.size - 1 - (self.size - 1) / 32;
        if self.ghost.capacity() * 2 <= main_room {
            self.ghost = ghost::Ghost::new(main_room);
        }
        self.ghost.insert(hash_of(key));
    }
}

/// The hash by which the cache knows a number.
fn hash_of(number: u32) -> u32 {
    fold(key(number).key.0)
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

/// More than one table of the index, and more than the first row of the arrays.
const MANY: u32 = 150_000;

/// A key that nothing foreign compares, with a hash of its own.
fn plain(number: u32) -> Ask<'static> {
    let odd = 2 * number + 1;
    Ask {
        key: Key::new((u64::from(odd), odd)),
        meanwhile: None,
    }
}

fn set_plain(cache: &Cache<Key, u32>, number: u32, deadline: u64, weight: u64) -> usize {
    let key = plain(number);
    let mut entry = entry(&key, number, deadline);
    entry.weight = weight;
    let mut gone = Leaving::default();
    let set = cache.set(key.key.0, &key, entry, 0, &mut gone);
    set.expect("the key can be compared");
    gone.into_iter().count()
}

fn get_plain(cache: &Cache<Key, u32>, number: u32) -> Option<u32> {
    let key = plain(number);
    match cache.get(key.key.0, &key, || 0, |value| *value) {
        Ok(Read::Hit(value)) => Some(value),
        _ => None,
    }
}

/// What all of `large` weigh, and each: those that live on more than the others.
const FULL_WEIGHT: u64 = MANY as u64 + 2 * MANY.div_ceil(7) as u64;

fn weight_of(number: u32) -> u64 {
    if number.is_multiple_of(7) { 3 } else { 1 }
}

/// A cache of one shard that is full of `MANY` entries, each seventh past time 10.
fn large(policy: Eviction) -> Cache<Key, u32> {
    let mut bounds = bounds(None, policy);
    bounds.max_weight = Some(FULL_WEIGHT);
    let cache = Cache::new(bounds);
    for number in 0..MANY {
        let deadline = if number % 7 == 0 { 20 } else { 10 };
        assert_eq!(set_plain(&cache, number, deadline, weight_of(number)), 0);
    }
    assert_eq!(cache.shard_count(), 1);
    cache
}

fn bytes(cache: &Cache<Key, u32>) -> usize {
    cache.shards[0].lock().bytes()
}

#[test]
fn a_large_shard_sweeps_in_bounded_steps_and_gives_its_memory_back_by_the_way() {
    let cache = large(Eviction::S3Fifo);
    let full = bytes(&cache);
    let budget = Budget {
        slots: 4096,
        removals: 512,
    };
    let sweep = |now| {
        let mut gone = Leaving::default();
        let done = cache.sweep(0, now, budget, &mut gone);
        (done, gone.into_iter().count())
    };

    let (mut done, mut calls) = (false, 0);
    while !done {
        let removed;
        (done, removed) = sweep(10);
        assert!(removed <= 512);
        calls += 1;
    }

    let kept: Vec<u32> = (0..MANY).filter(|number| number % 7 == 0).collect();
    assert!(calls < 3 * MANY / 512, "{calls} calls");
    assert_eq!(cache.len(), kept.len());
    assert!(
        kept.iter()
            .all(|&number| get_plain(&cache, number) == Some(number))
    );
    let weight: u64 = kept.iter().map(|&number| weight_of(number)).sum();
    assert_eq!(cache.weight(), weight);
    assert!(bytes(&cache) * 3 < full * 2, "{} of {full}", bytes(&cache));
    while !sweep(20).0 {}
    assert_eq!((cache.len(), cache.weight()), (0, 0));
    // What S3-FIFO remembers of those who were evicted is none here.
    assert!(bytes(&cache) < 20_000, "{} for none", bytes(&cache));
}

#[test]
fn a_sweep_moves_no_more_than_its_budget() {
    let cache = Numbers::new(Some(1000), Eviction::Lru);
    for key in 0..1000 {
        cache.set(key, key, if key < 900 { 10 } else { 100 }, 0);
    }
    let sweep = |slots, removals| {
        let budget = Budget { slots, removals };
        cache.0.sweep(0, 10, budget, &mut Leaving::default());
        cache.0.shards[0].lock().slab().slots()
    };

    assert_eq!(
        sweep(1000, 1000),
        1000,
        "all that is past its time left first"
    );
    assert_eq!(sweep(100, 5), 995, "the last are held, so each has to move");
    assert_eq!(sweep(5, 100), 990);
}

#[test]
fn what_moves_while_a_sweep_is_under_way_is_swept_as_well() {
    let cache = Numbers::new(Some(1000), Eviction::Lru);
    for key in 0..1000 {
        cache.set(key, key, if key < 900 { 100 } else { 10 }, 0);
    }
    let budget = Budget {
        slots: 400,
        removals: 400,
    };
    assert!(!cache.0.sweep(0, 10, budget, &mut Leaving::default()));

    for key in (0..800).rev() {
        assert!(cache.delete(key, 10));
    }
    cache.sweep(10, budget);

    assert_eq!(cache.0.len(), 100);
    assert_eq!(cache.live(10).len(), 100);
}

#[test]
fn a_value_of_another_weight_keeps_its_place_while_it_fits() {
    let mut bounds = bounds(None, Eviction::Fifo);
    bounds.max_weight = Some(10);
    let cache = Cache::new(bounds);
    for (number, weight) in [(1, 6), (2, 3)] {
        set_plain(&cache, number, 10, weight);
    }

    assert_eq!(set_plain(&cache, 1, 10, 7), 1, "the old value alone leaves");
    assert_eq!(set_plain(&cache, 3, 10, 1), 1);

    assert_eq!(get_plain(&cache, 1), None, "still the first to leave");
    assert_eq!(cache.weight(), 4);
}

#[test]
fn the_first_weight_among_many_entries_of_none_makes_no_room_for_all_at_once() {
    let mut bounds = bounds(None, Eviction::Lru);
    bounds.max_weight = Some(10);
    let cache = Cache::new(bounds);
    (0..1000).for_each(|number| _ = set_plain(&cache, number, 10, 0));
    let before = bytes(&cache);

    set_plain(&cache, 1000, 10, 1);

    let more = bytes(&cache) - before;
    assert!(more < 8 * 1000, "{more} bytes for one entry");
}

#[test]
fn weights_are_exact_up_to_the_largest_number() {
    let mut bounds = bounds(None, Eviction::Lru);
    bounds.max_weight = Some(u64::MAX);
    let cache = Cache::new(bounds);
    let largest = u64::MAX;

    for (number, weight, gone, sum) in [
        (1, largest, 0, largest),
        (1, largest - 1, 1, largest - 1),
        (2, 1, 0, largest),
        (2, 2, 2, 2),
        (3, largest - 1, 1, largest - 1),
        (3, largest, 1, largest),
    ] {
        assert_eq!(set_plain(&cache, number, 10, weight), gone, "{weight}");
        assert_eq!(cache.weight(), sum);
    }
}

#[test]
fn one_heavy_entry_evicts_all_of_a_large_shard_and_leaves_nothing_behind() {
    for policy in POLICIES {
        let cache = large(policy);
        let full = bytes(&cache);

        let heavy = FULL_WEIGHT - 5;
        let evicted = set_plain(&cache, MANY, 10, heavy);

        assert_eq!(evicted + cache.len(), MANY as usize + 1, "{policy:?}");
        assert!((heavy + 3..=heavy + 5).contains(&cache.weight()));
        assert_eq!(get_plain(&cache, MANY), Some(MANY));
        // S3-FIFO has a ghost of 2 bytes for each that was held.
        let ghost = 3 * MANY as usize;
        assert!(
            bytes(&cache) < ghost + 20_000,
            "{} of {full}",
            bytes(&cache)
        );
    }
}

#[test]
fn who_moves_takes_no_weight_or_grace_from_who_was_there() {
    let cache = Cache::new(bounds(Some(100), Eviction::Lru));
    let last = plain(99);
    (0..100).for_each(|number| _ = set_plain(&cache, number, 10, 0));
    let key = plain(5);
    let mut entry = entry(&key, 5, 10);
    (entry.weight, entry.grace) = (7, 10);
    let set = cache.set(key.key.0, &key, entry, 0, &mut Leaving::default());
    assert_eq!((set, cache.weight()), (Ok(()), 7));

    // Key 5 leaves last but one, so the place of it is filled first.
    for number in (0..5).chain(6..76).chain([5, 76]) {
        let key = plain(number);
        assert!(
            cache
                .delete(key.key.0, &key, 0)
                .is_ok_and(|gone| gone.is_some())
        );
    }
    assert!(cache.shards[0].lock().slab().slots() < 100, "some moved");

    let stale = cache.get_stale(last.key.0, &last, 10, |value| *value);
    assert!(matches!(stale, Ok(Read::Expired(_))), "{stale:?}");
    (77..99).for_each(|number| {
        let key = plain(number);
        assert!(
            cache
                .delete(key.key.0, &key, 0)
                .is_ok_and(|gone| gone.is_some())
        );
    });
    assert_eq!((cache.len(), cache.weight()), (0, 0));
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
