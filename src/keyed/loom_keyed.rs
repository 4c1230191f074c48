//! Every interleaving of the bound on keys and of a key's word.

use super::*;
use loom::sync::Arc;
use loom::thread;

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
    let taken = buckets.try_take(key, &mut Number(key), (1, now), &mut Vec::new());
    taken.expect("numbers are sure")
}

fn buckets(max_keys: u64) -> Arc<KeyedBuckets<u64>> {
    let quota = Quota::new(1.0, 1).expect("in range");
    Arc::new(KeyedBuckets::new(quota, max_keys, 0))
}

#[test]
fn one_key_is_not_taken_from_twice() {
    loom::model(|| {
        let buckets = buckets(2);
        let mine = Arc::clone(&buckets);

        let other = thread::spawn(move || take(&mine, 1, 0));
        let first = take(&buckets, 1, 0);
        let second = other.join().expect("no panic");

        assert!((first == Taken::Granted) ^ (second == Taken::Granted));
    });
}

#[test]
fn keys_of_two_threads_keep_to_the_bound() {
    loom::model(|| {
        let buckets = buckets(1);
        let mine = Arc::clone(&buckets);

        let other = thread::spawn(move || take(&mine, 1, 0));
        let first = take(&buckets, 2, 0);
        let second = other.join().expect("no panic");

        let kept = u64::from(first == Taken::Granted) + u64::from(second == Taken::Granted);
        assert!(kept <= 1);
        assert_eq!(buckets.len() as u64, kept);
    });
}

#[test]
fn a_key_is_not_forgotten_beside_one_who_takes_from_it() {
    loom::model(|| {
        const SECOND: u64 = 1_000_000_001;
        let buckets = buckets(1);
        assert_eq!(take(&buckets, 1, 0), Taken::Granted);
        let mine = Arc::clone(&buckets);

        // Full again: another key may push it out, or it is taken from first.
        let other = thread::spawn(move || take(&mine, 2, SECOND));
        let again = take(&buckets, 1, SECOND);
        other.join().expect("no panic");

        if again == Taken::Granted {
            assert_ne!(take(&buckets, 1, SECOND), Taken::Granted);
        }
    });
}
