//! The ring under every interleaving of two producers and the writer: the code
//! that ships, over loom's memory. A seeded bug shows that it would tell.

use std::path::Path;

use loom::sync::Arc;
use loom::thread;

use super::{RECORD_HEADER, Ring, on_heap};

/// Two records of one byte, and not three: the third must wait for the writer.
const ROOM: usize = 2 * (RECORD_HEADER + 1) + 5;

/// Every interleaving with at most two preemptions: enough for the seeded bug.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(run);
}

fn ring() -> Arc<Ring> {
    Arc::new(on_heap(ROOM, Path::new("/log")))
}

fn take_one(ring: &Ring, taken: &mut Vec<u8>) -> bool {
    match ring.take(ring.tail(), taken).expect("no torn record") {
        Some(record) => {
            ring.commit(record.next);
            true
        }
        None => false,
    }
}

/// Those of `records` that went in.
fn push_all(ring: &Ring, records: &[u8]) -> Vec<u8> {
    let went_in = |record: &&u8| ring.push(&[**record], false).is_ok();
    records.iter().filter(went_in).copied().collect()
}

#[test]
fn loom_what_a_ring_accepts_comes_out_once_whole_and_in_order() {
    model(|| {
        let ring = ring();
        let producers = [vec![1, 2], vec![11]].map(|records| {
            let ring = Arc::clone(&ring);
            thread::spawn(move || push_all(&ring, &records))
        });

        let mut taken = Vec::new();
        take_one(&ring, &mut taken);
        let accepted = producers.map(|producer| producer.join().unwrap());
        while take_one(&ring, &mut taken) {}

        for (records, of) in accepted.iter().zip([0..10, 10..20]) {
            let found: Vec<u8> = taken.iter().copied().filter(|n| of.contains(n)).collect();
            assert_eq!(found, *records);
        }
    });
}

#[test]
fn loom_nothing_gets_into_a_sealed_ring_unseen() {
    model(|| {
        let ring = ring();
        let other = Arc::clone(&ring);
        let producer = thread::spawn(move || push_all(&other, &[1]));

        ring.seal();
        let mut taken = Vec::new();
        while take_one(&ring, &mut taken) {}

        assert_eq!(producer.join().unwrap(), taken);
    });
}

#[test]
#[should_panic]
fn loom_a_tail_moved_before_the_copy_is_caught() {
    model(|| {
        let ring = ring();
        push_all(&ring, &[1, 2]);
        let other = Arc::clone(&ring);
        let producer = thread::spawn(move || push_all(&other, &[3]));
        let tail = ring.tail();
        ring.commit(tail + RECORD_HEADER as u64 + 1);
        ring.take(tail, &mut Vec::new()).expect("no torn record");
        producer.join().unwrap();
    });
}
