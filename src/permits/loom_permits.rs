//! Every interleaving of taking, giving back and joining the line.

use super::*;
use loom::sync::Arc;
use loom::thread;

#[test]
fn a_permit_given_back_reaches_the_one_who_joins() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(1));
        assert!(permits.try_take());
        let mine = Arc::clone(&permits);

        let joiner = thread::spawn(move || mine.join(7, 0));
        let given = permits.give_back().expect("taken");
        if given.wanted {
            permits.serve(0);
        }
        let ticket = joiner.join().expect("no panic");

        // Taken at once, or granted to the ticket: never left waiting.
        let granted = permits.collect(7);
        assert_eq!(ticket, granted.first().map(|grant| grant.ticket));
        assert_eq!(permits.counts().in_use, 1);
        assert_eq!(permits.counts().waiting, 0);
    });
}

#[test]
fn a_waiter_that_leaves_beside_its_grant_loses_no_permit() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(1));
        assert!(permits.try_take());
        let ticket = permits.join(7, 0).expect("none free");
        let mine = Arc::clone(&permits);

        let leaver = thread::spawn(move || mine.leave(ticket, 0));
        if permits.give_back().expect("taken").wanted {
            permits.serve(0);
        }
        leaver.join().expect("no panic");

        assert!(permits.collect(7).is_empty());
        assert_eq!(permits.counts().in_use, 0);
        assert!(permits.try_take());
    });
}

#[test]
fn two_takers_never_share_a_permit() {
    loom::model(|| {
        let permits = Arc::new(Permits::new(1));
        let mine = Arc::clone(&permits);

        let other = thread::spawn(move || mine.try_take());
        let first = permits.try_take();

        assert!(first ^ other.join().expect("no panic"));
    });
}
