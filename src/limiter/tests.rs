//! What lateness costs, and what those leave behind who go.

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A limiter whose bucket is empty.
fn emptied(quota: Quota) -> Limiter {
    let burst = quota.burst();
    let limiter = Limiter::new(quota, 0);
    limiter.try_take(burst, 0).expect("full");
    limiter
}

/// The same, and its first in line asks for one token.
fn waiting(rate: f64, burst: u64) -> Limiter {
    let limiter = emptied(Quota::new(rate, burst).expect("in range"));
    ticket(&limiter, 1);
    limiter
}

/// Of one that stands in line for `tokens`.
fn ticket(limiter: &Limiter, tokens: u64) -> u64 {
    match limiter.join(1, tokens, 0, None) {
        Joined::Waiting(ticket) => ticket,
        other => panic!("{other:?} with an empty bucket"),
    }
}

fn forgiving(burst: u64) -> Quota {
    Quota::new(500.0, burst).expect("in range").forgiving()
}

#[test]
fn a_late_grant_delays_nobody_behind_it() {
    const MS: u64 = 1_000_000;
    for (late, forgiven) in [(0, 0), (MS / 3, MS / 3), (MS, MS), (MS * 7 / 4, MS)] {
        let limiter = emptied(forgiving(1));
        for _ in 0..2 {
            ticket(&limiter, 1);
        }

        let due = limiter.due_ns(1, 0).expect("two wait");
        limiter.serve(due + late);

        let next = limiter.due_ns(1, due + late).expect("one waits");
        assert!(
            next.abs_diff(2 * MS - forgiven) < 2_000,
            "{next} after {late}"
        );
        let grants = limiter.collect(1);
        assert_eq!(grants.len(), 1);
        assert_eq!(grants[0].taken_ns, due + late - forgiven);
    }
}

#[test]
fn lateness_is_not_forgiven_unless_asked_nor_for_who_did_not_wait() {
    let strict = waiting(500.0, 1);
    let due = strict.due_ns(1, 0).expect("one waits");
    strict.serve(due + 500_000);
    assert!(strict.wait_ns(1, due + 500_000) >= 2_000_000);

    let limiter = Limiter::new(forgiving(1), 0);
    assert_eq!(limiter.join(1, 1, 500_000, None), Joined::Granted);
    assert!(limiter.wait_ns(1, 500_000) >= 2_000_000);
}

#[test]
fn a_late_grant_that_is_given_back_leaves_the_bucket_full() {
    let limiter = emptied(forgiving(1));
    let ticket = ticket(&limiter, 1);
    let late = limiter.due_ns(1, 0).expect("one waits") + 800_000;

    limiter.serve(late);
    limiter.leave(ticket, late, || late);

    assert_eq!(limiter.wait_ns(1, late), 0);
    assert_eq!(limiter.try_take(1, late), Ok(()));
    assert!(limiter.wait_ns(1, late) >= 2_000_000);
}

#[test]
fn a_wait_behind_a_late_line_is_told_as_if_that_was_served_now() {
    let limiter = emptied(forgiving(1));
    ticket(&limiter, 1);
    let late = limiter.due_ns(1, 0).expect("one waits") + 800_000;

    let joined = limiter.join(2, 1, late, Some(1_300_000));

    assert!(matches!(joined, Joined::Waiting(_)), "{joined:?}");
    limiter.serve(late);
    limiter.serve(late + 1_300_000);
    assert_eq!(limiter.counts().waiting, 0);
}

#[test]
fn nobody_is_granted_by_a_reading_from_before_it_came() {
    let limiter = emptied(forgiving(2));
    let head = ticket(&limiter, 2);
    let came = limiter.due_ns(1, 0).expect("one waits") + 400_000;
    limiter.join(1, 2, came, None);

    limiter.leave(head, came + 200_000, || came + 200_000);

    assert_eq!(limiter.collect(1)[0].taken_ns, came);
}

#[test]
fn only_the_first_in_line_or_a_grant_that_leaves_moves_the_head() {
    let limiter = waiting(10.0, 1);
    let join = || ticket(&limiter, 1);
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
    let join = || ticket(&limiter, 1);

    limiter.leave(join(), 0, || 0);
    assert_eq!(limiter.wait_ns(1, 0), wait);

    let (granted, later) = (join(), SECOND / 4);
    limiter.serve(later);
    assert_eq!(limiter.counts().granted, 4);
    limiter.leave(granted, later, || later);
    assert_eq!(limiter.counts().granted, 3);
    assert_eq!(limiter.try_take(1, later), Ok(()));
}
