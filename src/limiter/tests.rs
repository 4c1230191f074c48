//! When the processor is waited on, and for how long at most.

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A limiter whose bucket is empty and whose first in line asks for one token.
fn waiting(rate: f64, burst: u64) -> Limiter {
    let limiter = Limiter::new(Quota::new(rate, burst).expect("in range"), 0);
    limiter.try_take(burst, 0).expect("full");
    let joined = limiter.join(1, 1, 0, None);
    assert!(matches!(joined, Joined::Waiting(_)));
    limiter
}

#[test]
fn a_spin_ends_with_the_wait_and_is_short() {
    for rate in [30.0, 500.0, 3_000.0, 20_000.0, 1e6] {
        let limiter = waiting(rate, 1);
        let interval = SECOND as f64 / rate;
        let most = MOST_SPIN_NS.min((interval / 2.0) as u64);

        for step in 0..=100 {
            let now = (interval / 100.0 * f64::from(step)) as u64;
            let wait = limiter.due_ns(1, now).expect("one waits");
            let spin = limiter.spin_ns(now);

            assert_eq!(spin, (wait <= most).then_some(wait), "{rate}/s at {now}");
        }
    }
}

#[test]
fn nobody_spins_where_a_late_grant_costs_little() {
    let seldom = waiting(10.0, 1);
    let roomy = waiting(500.0, 10);
    let idle = Limiter::new(Quota::new(500.0, 1).expect("in range"), 0);

    for limiter in [&seldom, &roomy] {
        let due = limiter.due_ns(1, 0).expect("one waits");
        assert_eq!(limiter.spin_ns(due - 1), None);
        assert!(!limiter.is_tight());
    }
    assert_eq!(idle.spin_ns(0), None);
}

#[test]
fn only_the_first_in_line_or_a_grant_that_leaves_moves_the_head() {
    let limiter = waiting(10.0, 1);
    let join = || match limiter.join(1, 1, 0, None) {
        Joined::Waiting(ticket) => ticket,
        other => panic!("{other:?} with an empty bucket"),
    };
    let (second, third, last) = (join(), join(), join());

    assert!(!limiter.leave(last, 0, || 0));
    assert!(!limiter.leave(last, 0, || 0));
    let due = limiter.due_ns(1, 0).expect("some wait");
    limiter.serve(due);
    assert!(limiter.leave(second, due, || due));
    assert_eq!(limiter.counts().waiting, 1);
    limiter.serve(2 * due);
    assert!(limiter.leave(third, 2 * due, || 2 * due));
}

#[test]
fn one_who_leaves_leaves_no_trace() {
    let limiter = waiting(10.0, 2);
    let wait = limiter.wait_ns(1, 0);
    let join = || match limiter.join(1, 1, 0, None) {
        Joined::Waiting(ticket) => ticket,
        other => panic!("{other:?} with an empty bucket"),
    };

    limiter.leave(join(), 0, || 0);
    assert_eq!(limiter.wait_ns(1, 0), wait);

    let (granted, later) = (join(), SECOND / 4);
    limiter.serve(later);
    assert_eq!(limiter.counts().granted, 4);
    limiter.leave(granted, later, || later);
    assert_eq!(limiter.counts().granted, 3);
    assert_eq!(limiter.try_take(1, later), Ok(()));
}
