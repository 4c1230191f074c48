//! What a line costs: put into the ring, and through to the file.

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mtaio::log::{Config, Log, Mode, Policy, default_ring_folder, format, json};

const LINE: &[u8] = b"2026-11-24 03:00:00,123 - app.module - INFO - request 1234 served in 12ms\n";

fn open(folder: &tempfile::TempDir, policy: Policy) -> Log {
    Log::open(Config {
        path: folder.path().join("app.log"),
        mode: Mode::Append,
        delay: false,
        policy,
        ring_bytes: 4 << 20,
        rings: default_ring_folder(),
        fsync: false,
        gather: Duration::from_millis(2),
        wall: SystemTime::now,
        observer: Arc::new(|_| ()),
    })
    .expect("a temporary folder can be written")
}

fn finish(log: &Log) {
    let life = log.life().expect("the log is open");
    assert!(life.close().wait(Duration::from_secs(30)));
}

/// Pushes `LINE`, waiting for the writer where the ring is full.
fn push(log: &Log) {
    let life = log.life().expect("the log is open");
    while life.push(black_box(LINE)).is_err() {
        life.wait_for_room(LINE, Duration::from_secs(1));
    }
}

fn lines(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    group.throughput(Throughput::Elements(1));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let log = open(&folder, Policy::default());
    group.bench_function("push", |b| b.iter(|| push(&log)));
    finish(&log);

    group.throughput(Throughput::Elements(100_000));
    group.sample_size(10);
    group.bench_function("end_to_end_100k_rotating", |b| {
        b.iter(|| {
            let folder = tempfile::tempdir().expect("a temporary folder can be made");
            let policy = Policy {
                max_bytes: 1_000_000,
                backup_count: 100,
                ..Policy::default()
            };
            let log = open(&folder, policy);
            (0..100_000).for_each(|_| push(&log));
            finish(&log);
        });
    });
    group.finish();
}

fn text(c: &mut Criterion) {
    let mut group = c.benchmark_group("log_text");
    let mut out = Vec::with_capacity(1024);
    let text = std::str::from_utf8(LINE).expect("a literal");
    group.bench_function("json_string", |b| {
        b.iter(|| {
            out.clear();
            json::put_string(&mut out, black_box(text));
        });
    });
    group.bench_function("escape_controls", |b| {
        b.iter(|| {
            out.clear();
            format::escape_controls(black_box(LINE), &mut out);
        });
    });
    group.finish();
}

criterion_group!(benches, lines, text);
criterion_main!(benches);
