//! The core cache without Python: what a lookup and an evicting insert cost.

use std::convert::Infallible;
use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use mtaio::cache::{Bounds, Cache, Entry, Eviction, Leaving, Probe};

const ENTRIES: u64 = 50_000;

/// A number as its own hash.
struct Number(u64);

impl Probe<u64> for Number {
    type Error = Infallible;

    fn is(&self, held: &u64) -> bool {
        self.0 == *held
    }

    fn same(one: &u64, other: &u64) -> bool {
        one == other
    }

    fn plainly_equals(&self, held: &u64) -> Option<bool> {
        Some(self.0 == *held)
    }

    fn share(&self, held: &u64) -> u64 {
        *held
    }

    fn ask(&self, held: &u64) -> Result<bool, Infallible> {
        Ok(self.0 == *held)
    }
}

fn set(cache: &Cache<u64, u64>, key: u64) {
    let entry = Entry {
        key,
        value: key,
        deadline: u64::MAX,
        grace: 0,
        weight: 0,
        traced: false,
    };
    let mut gone = Leaving::default();
    let Ok(()) = cache.set(key, &Number(key), entry, 0, &mut gone);
}

fn filled(eviction: Eviction) -> Cache<u64, u64> {
    let cache = Cache::new(Bounds {
        max_size: Some(ENTRIES as usize),
        max_weight: None,
        eviction,
        shards: None,
    });
    (0..ENTRIES).for_each(|key| set(&cache, key));
    cache
}

fn benches(c: &mut Criterion) {
    let policies = [
        ("s3fifo", Eviction::S3Fifo),
        ("lru", Eviction::Lru),
        ("lfu", Eviction::Lfu),
        ("fifo", Eviction::Fifo),
    ];
    for (name, eviction) in policies {
        let cache = filled(eviction);
        let mut next = 0_u64;
        c.bench_function(&format!("{name}: get hit"), |b| {
            b.iter(|| {
                // A stride coprime to the size visits every entry, in no order.
                next = (next + 7919) % ENTRIES;
                black_box(cache.get(next, &Number(next), || 0, |value| *value))
            });
        });
        let mut absent = ENTRIES;
        c.bench_function(&format!("{name}: get miss"), |b| {
            b.iter(|| {
                absent += 1;
                black_box(cache.get(absent, &Number(absent), || 0, |value| *value))
            });
        });
        let mut fresh = 2 * ENTRIES;
        c.bench_function(&format!("{name}: set, evicting"), |b| {
            b.iter(|| {
                fresh += 1;
                set(&cache, fresh);
            });
        });
    }
}

criterion_group!(cache, benches);
criterion_main!(cache);
