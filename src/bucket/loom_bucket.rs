//! Every interleaving of the bucket's word.

use super::*;
use loom::sync::Arc;
use loom::thread;

fn bucket(burst: u64) -> Arc<TokenBucket> {
    Arc::new(TokenBucket::new(
        Quota::new(1.0, burst).expect("in range"),
        0,
    ))
}

/// Run two closures in two threads; how many tokens they took together.
fn both(
    one: impl FnOnce() -> u64 + 'static + Send,
    other: impl FnOnce() -> u64 + 'static + Send,
) -> u64 {
    let one = thread::spawn(one);
    other() + one.join().expect("no panic")
}

const SECOND: u64 = 1_000_000_000;

#[test]
fn two_takers_never_share_a_token() {
    loom::model(|| {
        let bucket = bucket(3);
        let mine = Arc::clone(&bucket);

        let taken = both(
            move || 2 * u64::from(mine.try_take(2, 0).is_ok()),
            move || 2 * u64::from(bucket.try_take(2, 0).is_ok()),
        );

        assert_eq!(taken, 2);
    });
}

#[test]
fn readings_out_of_order_conform() {
    loom::model(|| {
        let bucket = bucket(1);
        let mine = Arc::clone(&bucket);

        // One reads the clock a second after the other.
        let early = thread::spawn(move || mine.try_take(1, 0).is_ok());
        let late = bucket.try_take(1, 2 * SECOND).is_ok();
        let early = early.join().expect("no panic");

        assert!(late);
        // In order, both conform; else the early one comes too late to.
        let full = bucket.wait_ns(1, 2 * SECOND);
        assert!(full >= SECOND, "the late grant counts whatever the order");
        assert!(!early || full < 2 * SECOND);
    });
}

#[test]
fn a_refund_beside_a_taker_is_given_back_once() {
    loom::model(|| {
        let bucket = bucket(2);
        bucket.try_take(1, 0).expect("full");
        let mine = Arc::clone(&bucket);

        let refund = thread::spawn(move || {
            mine.hold();
            mine.give_back(1, 0, 0);
            mine.release();
        });
        let first = bucket.try_take(1, 0).is_ok();
        refund.join().expect("no panic");
        let mut left = 0;
        while bucket.try_take(1, 0).is_ok() {
            left += 1;
        }

        assert_eq!(u64::from(first) + left, 2);
    });
}

#[test]
fn a_late_refund_gives_back_only_what_time_has_not() {
    loom::model(|| {
        let bucket = bucket(1);
        bucket.try_take(1, 0).expect("full");
        let mine = Arc::clone(&bucket);

        let refund = thread::spawn(move || {
            mine.hold();
            mine.give_back(1, 0, 2 * SECOND);
            mine.release();
        });
        let mut taken = u64::from(bucket.try_take(1, 2 * SECOND).is_ok());
        refund.join().expect("no panic");
        taken += u64::from(bucket.try_take(1, 2 * SECOND).is_ok());

        assert_eq!(taken, 1);
    });
}

#[test]
fn none_overtakes_the_one_it_is_held_for() {
    loom::model(|| {
        let bucket = bucket(1);
        let mine = Arc::clone(&bucket);
        bucket.hold();

        let overtaker = thread::spawn(move || mine.try_take(1, 0));
        let head = bucket.take_held(1, 0);
        bucket.release();

        assert!(head);
        assert!(overtaker.join().expect("no panic").is_err());
    });
}

/// The seeded bug: the same step without comparing before the swap.
fn take_without_comparing(bucket: &TokenBucket, tokens: u64, now: u64) -> bool {
    let reading = bucket.quota.grains(bucket.age(now));
    let state = bucket.state.load(Ordering::Relaxed);
    match bucket.quota.grant(state & !HELD, tokens, reading) {
        Some(next) => {
            bucket.state.store(next, Ordering::Relaxed);
            true
        }
        None => false,
    }
}

#[test]
#[should_panic(expected = "a token was granted twice")]
fn the_model_finds_a_swap_that_does_not_compare() {
    loom::model(|| {
        let bucket = bucket(1);
        let mine = Arc::clone(&bucket);

        let taken = both(
            move || u64::from(take_without_comparing(&mine, 1, 0)),
            move || u64::from(take_without_comparing(&bucket, 1, 0)),
        );

        assert!(taken <= 1, "a token was granted twice");
    });
}
