//! What a token costs without Python: taken, refused, and waited for.

use criterion::{Criterion, criterion_group, criterion_main};
use mtaio::bucket::{Quota, TokenBucket};
use mtaio::limiter::{Joined, Limiter};
use std::hint::black_box;

fn take(c: &mut Criterion) {
    let quota = || Quota::new(1e9, 1 << 30).expect("in range");
    let bucket = TokenBucket::new(quota(), 0);
    let mut now = 0;
    c.bench_function("bucket: take", |b| {
        b.iter(|| {
            now += 10;
            bucket.try_take(black_box(1), black_box(now))
        });
    });
    let short = TokenBucket::new(Quota::new(1e-6, 1).expect("in range"), 0);
    short.try_take(1, 0).expect("full");
    c.bench_function("bucket: refuse", |b| {
        b.iter(|| short.try_take(black_box(1), black_box(1)));
    });
    c.bench_function("bucket: time to wait", |b| {
        b.iter(|| short.wait_ns(black_box(1), black_box(1)));
    });
}

fn queue(c: &mut Criterion) {
    let limiter = Limiter::new(Quota::new(1e6, 1).expect("in range"), 0);
    let mut now = 0;
    c.bench_function("limiter: join, serve, collect", |b| {
        b.iter(|| {
            let joined = limiter.join(1, 1, now, None);
            now += 1001;
            limiter.serve(now);
            assert!(joined == Joined::Granted || limiter.collect(1).len() == 1);
        });
    });
}

criterion_group!(benches, take, queue);
criterion_main!(benches);
