//! Deadlines, policies and weights against plain references.

use proptest::prelude::*;

use super::*;

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
