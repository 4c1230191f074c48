//! The ring under every interleaving of two producers and the writer: the code
//! that ships, over loom's memory. Three seeded bugs show that it would tell.
//!
//! The producers' mutex orders producers alone. The writer does not take it:
//! only the Release store of `head` hands it a record's bytes.
//!
//! Let producers begin. Of the accesses before a store loom remembers the last,
//! and `push` loads the head just before it stores it: a load that the writer
//! made earlier is forgotten, and no order is tried in which it comes later.
//! From a load back to the store before it nothing is forgotten.

use std::path::Path;
use std::sync::atomic::Ordering::{self, Relaxed, Release};

use loom::sync::Arc;
use loom::thread;

use super::{RECORD_HEADER, Ring, W_HEAD, checksum, on_heap, record_header};

/// Two records of one byte, and not three: the third must wait for the writer.
const ROOM: usize = 2 * (RECORD_HEADER + 1) + 5;

impl Ring {
    /// `push`, but the head moves by `order`, and before the bytes are there if
    /// `early`.
    fn push_wrongly(&self, payload: &[u8], early: bool, order: Ordering) {
        let _held = self.sealed.lock();
        let head = self.map.load(W_HEAD, Relaxed);
        let next = head + (RECORD_HEADER + payload.len()) as u64;
        if early {
            self.map.store(W_HEAD, next, order);
        }
        let length = payload.len() as u32;
        self.write(head, &record_header(length, checksum(payload), head));
        self.write(head + RECORD_HEADER as u64, payload);
        if !early {
            self.map.store(W_HEAD, next, order);
        }
    }
}

/// Every interleaving with at most two preemptions: enough for each seeded bug.
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

        // The last to be made, hence the last to begin.
        let other = Arc::clone(&ring);
        let writer = thread::spawn(move || {
            let mut taken = Vec::new();
            while take_one(&other, &mut taken) {}
            taken
        });
        let accepted = producers.map(|producer| producer.join().unwrap());
        let mut taken = writer.join().unwrap();
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

fn one_pushed_wrongly(early: bool, order: Ordering) {
    model(move || {
        let ring = ring();
        let other = Arc::clone(&ring);
        let producer = thread::spawn(move || other.push_wrongly(&[1], early, order));
        let writer = thread::spawn(move || take_one(&ring, &mut Vec::new()));
        producer.join().unwrap();
        writer.join().unwrap();
    });
}

#[test]
fn loom_the_seeded_bugs_push_rightly_without_their_bug() {
    one_pushed_wrongly(false, Release);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn loom_a_head_moved_before_the_bytes_is_caught() {
    one_pushed_wrongly(true, Release);
}

#[test]
#[should_panic(expected = "Causality violation")]
fn loom_a_head_without_release_is_caught() {
    one_pushed_wrongly(false, Relaxed);
}

#[test]
#[should_panic(expected = "Causality violation")]
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
