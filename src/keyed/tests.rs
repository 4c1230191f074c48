//! Many keys against a bucket each, in one thread and in several.

use super::*;
use crate::bucket::TokenBucket;
use proptest::prelude::*;
use std::collections::HashMap;

/// Finds by value; unsure of each candidate the first time, as a binding is of
/// keys whose `__eq__` is foreign.
struct Number {
    value: u64,
    sure_of: Vec<u64>,
}

impl Number {
    fn new(value: u64) -> Self {
        let sure_of = Vec::new();
        Self { value, sure_of }
    }
}

impl Seek<u64> for Number {
    fn same(&mut self, other: &u64) -> Option<bool> {
        if self.value.is_multiple_of(2) || self.sure_of.contains(other) {
            return Some(*other == self.value);
        }
        self.sure_of.push(*other);
        None
    }

    fn make(&mut self) -> u64 {
        self.value
    }
}

fn until_sure<T>(key: u64, mut work: impl FnMut(u64, &mut Number) -> Result<T, Unsure>) -> T {
    let mut seek = Number::new(key);
    loop {
        // Few hashes, so that keys collide.
        if let Ok(done) = work(key % 4, &mut seek) {
            return done;
        }
    }
}

fn take(buckets: &KeyedBuckets<u64>, key: u64, tokens: u64, now: u64) -> Taken {
    until_sure(key, |hash, seek| {
        buckets.try_take(hash, seek, (tokens, now), &mut Vec::new())
    })
}

fn quota() -> Quota {
    Quota::new(1000.0, 5).expect("in range")
}

proptest! {
    #[test]
    fn keys_do_as_a_bucket_each(
        steps in prop::collection::vec((0..12_u64, 1..=5_u64, 0..3_000_000_u64), 1..200)
    ) {
        let buckets = KeyedBuckets::new(quota(), 100, 0);
        let mut model: HashMap<u64, TokenBucket> = HashMap::new();
        let mut now = 0;

        for (key, tokens, ahead) in steps {
            now += ahead;
            let bucket = model.entry(key).or_insert_with(|| TokenBucket::new(quota(), 0));
            let wait = until_sure(key, |hash, seek| buckets.wait_ns(hash, seek, (tokens, now)));

            prop_assert_eq!(wait, bucket.wait_ns(u128::from(tokens), now));
            let granted = bucket.try_take(tokens, now).is_ok();
            prop_assert_eq!(take(&buckets, key, tokens, now) == Taken::Granted, granted);
        }
    }

    #[test]
    fn a_key_that_owes_is_kept_and_the_bound_too(
        steps in prop::collection::vec((0..40_u64, 0..2_000_000_u64), 1..200),
        max_keys in 1..20_u64,
    ) {
        let buckets = KeyedBuckets::new(quota(), max_keys, 0);
        let mut model: HashMap<u64, TokenBucket> = HashMap::new();
        let mut now = 0;

        for (key, ahead) in steps {
            now += ahead;
            let taken = take(&buckets, key, 3, now);
            let bucket = model.entry(key).or_insert_with(|| TokenBucket::new(quota(), 0));
            if taken == Taken::Granted {
                // Only possible if it was not forgotten while it owed.
                prop_assert!(bucket.try_take(3, now).is_ok());
            }
            let mut kept = 0;
            let counted = buckets.visit(|_| {
                kept += 1;
                Ok::<(), ()>(())
            });
            prop_assert!(counted.is_ok());
            prop_assert!(kept <= max_keys);
        }
    }

    /// Waiting for keys, leaving and collecting: each key's grants conform, its
    /// waiters go first come, first served, and nothing is left behind.
    #[test]
    fn lines_of_keys_are_served_in_order(
        steps in prop::collection::vec((0..6_u64, 1..=5_u64, 0..4_u8, 0..3_000_000_u64), 1..150)
    ) {
        let buckets = KeyedBuckets::new(quota(), 100, 0);
        let mut queues: HashMap<u64, Vec<u64>> = HashMap::new();
        let mut model: HashMap<u64, TokenBucket> = HashMap::new();
        let mut now = 0;

        for (key, tokens, what, ahead) in steps {
            now += ahead;
            buckets.serve(now);
            for grant in buckets.collect(1) {
                let queue = queues.iter_mut().find(|(_, queue)| queue.contains(&grant.ticket));
                let (key, queue) = queue.expect("known");
                prop_assert_eq!(queue.remove(0), grant.ticket);
                let taken = model[key].try_take(grant.tokens, grant.taken_ns);
                prop_assert!(taken.is_ok(), "more than conforms");
            }
            model.entry(key).or_insert_with(|| TokenBucket::new(quota(), 0));
            let queue = queues.entry(key).or_default();
            if what == 0 && !queue.is_empty() {
                let ticket = queue.remove(queue.len() / 2);
                buckets.leave(ticket, now, || now);
            } else {
                let ask = Ask { lane: 1, tokens, now, max_wait: None };
                let joined = until_sure(key, |hash, seek| {
                    buckets.join(hash, seek, &ask, &mut Vec::new())
                });
                match joined.expect("room") {
                    Joined::Waiting(ticket) => queue.push(ticket),
                    joined => {
                        prop_assert_eq!(joined, Joined::Granted);
                        prop_assert!(queue.is_empty(), "overtaken");
                        prop_assert!(model[&key].try_take(tokens, now).is_ok());
                    }
                }
            }
        }

        while let Some(due) = buckets.due_ns(now) {
            now += due;
            buckets.serve(now);
            for grant in buckets.collect(1) {
                let queue = queues.values_mut().find(|queue| queue.contains(&grant.ticket));
                prop_assert_eq!(queue.expect("known").remove(0), grant.ticket);
            }
        }
        buckets.collect(1);
        prop_assert!(queues.values().all(Vec::is_empty));
        prop_assert!(buckets.lines.lock().is_empty());
    }
}

#[test]
fn dropping_a_lane_leaves_the_others_in_line() {
    let buckets = KeyedBuckets::new(quota(), 100, 0);
    assert_eq!(take(&buckets, 2, 5, 0), Taken::Granted);
    let join = |lane| {
        let ask = Ask {
            lane,
            tokens: 5,
            now: 0,
            max_wait: None,
        };
        until_sure(2, |hash, seek| {
            buckets.join(hash, seek, &ask, &mut Vec::new())
        })
    };
    join(1);
    let Some(Joined::Waiting(ticket)) = join(2) else {
        panic!("nothing was left")
    };

    buckets.drop_lane(1, 0, || 0);

    // 5 tokens come in 5 ms: the first place in line.
    assert!(buckets.due_ns(0).expect("one waits") < 5_001_000);
    assert_eq!(buckets.serve(5_001_000), [2]);
    assert_eq!(buckets.collect(2)[0].ticket, ticket);
}

#[test]
fn a_grant_that_goes_before_it_is_collected_is_not_looked_for() {
    for closed in [false, true] {
        let buckets = KeyedBuckets::new(quota(), 100, 0);
        assert_eq!(take(&buckets, 2, 5, 0), Taken::Granted);
        let ask = Ask {
            lane: 1,
            tokens: 5,
            now: 0,
            max_wait: None,
        };
        let joined = until_sure(2, |hash, seek| {
            buckets.join(hash, seek, &ask, &mut Vec::new())
        });
        let Some(Joined::Waiting(ticket)) = joined else {
            panic!("nothing was left")
        };
        assert_eq!(buckets.serve(5_001_000), [1]);

        if closed {
            buckets.drop_lane(1, 5_001_000, || 5_001_000);
        } else {
            buckets.leave(ticket, 5_001_000, || 5_001_000);
        }

        assert!(buckets.serve(5_001_000).is_empty());
        assert!(buckets.collect(1).is_empty());
        assert!(buckets.lines.lock().is_empty());
        assert_eq!(take(&buckets, 2, 5, 5_001_000), Taken::Granted);
    }
}

#[test]
fn threads_on_the_same_keys_get_each_burst_exactly() {
    let quota = Quota::new(1e-6, 1000).expect("in range");
    let buckets = KeyedBuckets::new(quota, 8000, 0);
    let taken = std::sync::atomic::AtomicU64::new(0);

    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for turn in 0..3000 {
                    for key in 0..10 {
                        if take(&buckets, key * 2, 1, turn) == Taken::Granted {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });

    assert_eq!(taken.into_inner(), 10_000);
    assert_eq!(buckets.counts().granted, 10_000);
}
