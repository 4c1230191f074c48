//! One look at this machine, and the notes of a loop and of the collector.

use std::path::PathBuf;

use criterion::{Criterion, criterion_group, criterion_main};
use mtaio::metrics::{GcPauses, LoopLag, Moment, Service, Settings};

const SECOND: u64 = 1_000_000_000;

fn service(interval_ns: u64) -> Service {
    let settings = Settings {
        interval_ns,
        history_size: 3600,
        root: None,
        disk_path: PathBuf::from("/"),
    };
    Service::new(&settings, 0)
}

fn sample(c: &mut Criterion) {
    let service = service(SECOND);
    let mut at_ns = SECOND;
    let mut next = || {
        at_ns += SECOND;
        Moment {
            at_ns,
            timestamp: 0.0,
        }
    };
    c.bench_function("metrics/sample", |b| b.iter(|| service.fresh(next())));
    c.bench_function("metrics/latest", |b| b.iter(|| service.latest().get()));
}

fn notes(c: &mut Criterion) {
    let lag = LoopLag::new("main");
    let pauses = GcPauses::default();
    let mut now = 1;
    c.bench_function("metrics/beat", |b| {
        b.iter(|| {
            now += 1;
            lag.beat(now, now);
        });
    });
    c.bench_function("metrics/pause", |b| {
        b.iter(|| {
            now += 1;
            pauses.begin(now);
            pauses.end(now + 1);
        });
    });
}

criterion_group!(benches, sample, notes);
criterion_main!(benches);
