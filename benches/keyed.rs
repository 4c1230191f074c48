//! What a key costs without Python: found again, new, and crowded out.

use criterion::{Criterion, criterion_group, criterion_main};
use mtaio::bucket::Quota;
use mtaio::keyed::{KeyedBuckets, Seek, Taken};
use std::hint::black_box;

struct Number(u64);

impl Seek<u64> for Number {
    fn same(&mut self, other: &u64) -> Option<bool> {
        Some(*other == self.0)
    }

    fn make(&mut self) -> u64 {
        self.0
    }
}

fn take(buckets: &KeyedBuckets<u64>, key: u64, now: u64) -> Taken {
    let hash = key.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let hash = hash ^ (hash >> 32);
    let mut dropped = Vec::new();
    let taken = buckets.try_take(hash, &mut Number(key), (1, now), &mut dropped);
    taken.expect("numbers are sure")
}

fn keys(c: &mut Criterion) {
    const KEYS: u64 = 100_000;
    let quota = |burst| Quota::new(1e-6, burst).expect("in range");
    let known = KeyedBuckets::new(quota(1 << 30), 2 * KEYS, 0);
    let mut key = 0;
    for key in 0..KEYS {
        take(&known, key, 0);
    }
    c.bench_function("keyed: one known key", |b| {
        b.iter(|| take(&known, black_box(7), 0));
    });
    c.bench_function("keyed: 100,000 known keys in turn", |b| {
        b.iter(|| {
            key = (key + 1) % KEYS;
            take(&known, black_box(key), 0)
        });
    });
    let fast = Quota::new(1e9, 1).expect("in range");
    let forgetting = KeyedBuckets::new(fast, 1000, 0);
    c.bench_function("keyed: a new key, old ones full again", |b| {
        b.iter(|| {
            key += 1;
            take(&forgetting, black_box(key), 100 * key)
        });
    });
    let crowded = KeyedBuckets::new(quota(1), 1000, 0);
    c.bench_function("keyed: a new key, all owe", |b| {
        b.iter(|| {
            key += 1;
            take(&crowded, black_box(key), 0)
        });
    });
}

criterion_group!(benches, keys);
criterion_main!(benches);
