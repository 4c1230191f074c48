//! The bucket against big integers, over all rates, bursts and times.

use super::*;
use num_bigint::BigUint;
use proptest::prelude::*;
use std::sync::atomic::AtomicU64 as Count;

/// The quota in exact integers: in `ns * numerator`, a token costs
/// `1e9 * denominator`.
struct Exact {
    numerator: BigUint,
    token: BigUint,
    burst: BigUint,
}

impl Exact {
    fn new(quota: &Quota) -> Self {
        let bits = quota.rate.to_bits();
        let mantissa = BigUint::from(bits & ((1 << 52) - 1) | (1 << 52));
        let exponent = (bits >> 52) as i32 - 1075;
        let up = |power: i32| BigUint::from(1_u8) << power.max(0);
        Self {
            numerator: mantissa * up(exponent),
            token: BigUint::from(1_000_000_000_u64) * up(-exponent),
            burst: BigUint::from(quota.burst),
        }
    }

    fn time(&self, ns: u64) -> BigUint {
        &self.numerator * ns
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Go on (or back) by so much of a token's time, then take.
    Take(f64, f64),
    /// The same for one who has waited.
    TakeDue(f64, f64),
    /// Give back the grant at this place among those not given back.
    GiveBack(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ahead = prop_oneof![
        3 => Just(0.0),
        6 => 0.0..3.0_f64,
        2 => (0.0..20.0_f64).prop_map(f64::exp2),
        2 => -5.0..0.0_f64,
    ];
    let take = (ahead, 0.0..1.0_f64, any::<bool>()).prop_map(|(ahead, part, due)| {
        let step = if due { Step::TakeDue } else { Step::Take };
        step(ahead, part)
    });
    let back = any::<prop::sample::Index>().prop_map(Step::GiveBack);
    prop::collection::vec(prop_oneof![5 => take, 1 => back], 1..60)
}

fn quotas() -> impl Strategy<Value = Quota> {
    let rate = (-6.0..9.0_f64).prop_map(|power| 10_f64.powf(power).clamp(1e-6, 1e9));
    let rate = prop_oneof![8 => rate, 1 => Just(1e-6), 1 => Just(1e9), 1 => Just(3e8)];
    let burst = prop_oneof![1 => Just(1), 4 => 1..50_u64, 2 => 1..=MAX_BURST];
    (rate, burst, any::<bool>()).prop_map(|(rate, burst, forgiving)| {
        let quota = Quota::new(rate, burst).expect("in range");
        if forgiving { quota.forgiving() } else { quota }
    })
}

struct Grant {
    at: u64,
    tokens: u64,
}

struct Run {
    bucket: TokenBucket,
    now: u64,
    latest: u64,
    grants: Vec<Grant>,
}

impl Run {
    fn new(quota: Quota, start: u64) -> Self {
        Self {
            bucket: TokenBucket::new(quota, start),
            now: start,
            latest: start,
            grants: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Take(ahead, part) => self.take(*ahead, *part),
            Step::TakeDue(ahead, part) => self.take_due(*ahead, *part),
            Step::GiveBack(index) if !self.grants.is_empty() => {
                let grant = self.grants.remove(index.index(self.grants.len()));
                self.bucket.hold();
                self.bucket.give_back(grant.tokens, grant.at, self.latest);
                self.bucket.release();
            }
            Step::GiveBack(_) => {}
        }
    }

    fn take(&mut self, ahead: f64, part: f64) {
        let tokens = self.ask(ahead, part);
        if self.bucket.try_take(tokens, self.now).is_ok() {
            let at = self.now;
            self.grants.push(Grant { at, tokens });
        }
    }

    fn take_due(&mut self, ahead: f64, part: f64) {
        let tokens = self.ask(ahead, part);
        self.bucket.hold();
        let at = self.bucket.take_due(tokens, 0, self.now);
        self.bucket.release();
        let Some(at) = at else {
            // Who is due by an earlier reading is due by this one.
            assert!(self.bucket.try_take(tokens, self.now).is_err());
            return;
        };
        assert!(at <= self.now);
        let quota = self.bucket.quota();
        assert!(self.now - at <= quota.forgiven_ns && quota.forgiven_ns <= 1_000_000);
        assert!(quota.forgiven_ns as f64 * quota.rate <= 0.5e9);
        self.grants.push(Grant { at, tokens });
    }

    /// Move on as `Step` says. The tokens to ask.
    fn ask(&mut self, ahead: f64, part: f64) -> u64 {
        let token_ns = 1e9 / self.bucket.quota().rate();
        let moved = (ahead * token_ns).round();
        self.now = if moved < 0.0 {
            self.now.saturating_sub(-moved as u64)
        } else {
            self.now.saturating_add(moved as u64).min(1 << 62)
        };
        self.latest = self.latest.max(self.now);
        let burst = self.bucket.quota().burst();
        ((burst as f64).powf(part) as u64).clamp(1, burst)
    }

    /// `burst + rate * T` in every window, in exact integers.
    fn assert_conforms(&self) {
        let quota = self.bucket.quota();
        let exact = Exact::new(quota);
        // The nanosecond that a clock can't tell, at rates too fast for more.
        let blur = u64::from(quota.f < EXACT_FROM);
        for first in &self.grants {
            for last in self.grants.iter().filter(|last| last.at >= first.at) {
                let within = |grant: &&Grant| (first.at..=last.at).contains(&grant.at);
                let sum: BigUint = self
                    .grants
                    .iter()
                    .filter(within)
                    .map(|grant| BigUint::from(grant.tokens))
                    .sum();
                let most = &exact.burst * &exact.token + exact.time(last.at - first.at + blur);
                assert!(
                    sum.clone() * &exact.token <= most,
                    "{sum} tokens in {} ns, {quota:?}",
                    last.at - first.at
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_window_conforms(quota in quotas(), start in any::<u32>(), steps in steps()) {
        let mut run = Run::new(quota, u64::from(start));

        for step in &steps {
            run.step(step);
        }

        run.assert_conforms();
    }

    /// Without refunds, the exact GCRA fed with the same grants refuses too, or
    /// would have a moment ago: by a grain per token and a few for rounding.
    #[test]
    fn nothing_is_refused_without_need(quota in quotas(), steps in steps()) {
        let exact = Exact::new(&quota);
        let mut run = Run::new(quota, 0);
        let mut full_at = BigUint::ZERO;
        let mut granted = BigUint::ZERO;

        for step in &steps {
            let Step::Take(ahead, part) = step else { continue };
            let before = run.grants.len();
            run.take(*ahead, *part);
            let time = exact.time(run.now.min(MAX_AGE_NS));
            let burst = run.bucket.quota().burst();
            let tokens = ((burst as f64).powf(*part) as u64).clamp(1, burst);
            let base = full_at.clone().max(time.clone());
            let after = base + &exact.token * tokens;
            if run.grants.len() > before {
                granted += tokens;
                full_at = after;
            } else {
                let f = run.bucket.quota().f;
                let slack = if f < EXACT_FROM {
                    (&exact.token * 4_u8) >> f
                } else {
                    (&exact.token * (&granted + &exact.burst + 4_u8)) >> (f - 1)
                };
                prop_assert!(after + slack > time + &exact.burst * &exact.token);
            }
        }
    }

    /// What `wait_ns` says is the first moment that grants.
    #[test]
    fn a_wait_is_exact(quota in quotas(), start in any::<u32>(), steps in steps()) {
        let mut run = Run::new(quota, u64::from(start));
        for step in &steps {
            run.step(step);
        }
        let tokens = run.bucket.quota().burst().div_ceil(2);
        let refused = |now| {
            let full_at = run.bucket.full_at();
            let reading = run.bucket.quota().grains(run.bucket.age(now));
            run.bucket.quota().grant(full_at, tokens, reading).is_none()
        };
        // A clock behind the start reads as the start: it first has to get there.
        let now = run.now.max(run.bucket.start_ns);

        let wait = run.bucket.wait_ns(u128::from(tokens), now);

        prop_assume!(wait < u64::MAX);
        prop_assert!(!refused(now + wait));
        prop_assert!(wait == 0 || refused(now + wait - 1));
    }

    /// A queue is granted one after the other when its sum says.
    #[test]
    fn a_queue_waits_for_the_sum(quota in quotas(), parts in prop::collection::vec(0.0..1.0_f64, 1..20)) {
        let burst = quota.burst();
        let bucket = TokenBucket::new(quota, 0);
        bucket.try_take(burst, 0).expect("full");
        let queue: Vec<u64> = parts
            .iter()
            .map(|part| ((burst as f64).powf(*part) as u64).clamp(1, burst))
            .collect();
        let total: u128 = queue.iter().map(|tokens| u128::from(*tokens)).sum();
        let due = bucket.wait_ns(total, 0);
        prop_assume!(due < u64::MAX);

        let (mut now, length) = (0, queue.len() as u64);
        for tokens in queue {
            now += bucket.wait_ns(u128::from(tokens), now);
            prop_assert!(bucket.try_take(tokens, now).is_ok());
        }

        // Each wakes at a whole nanosecond, so up to one later than the sum.
        prop_assert!((due..=due + length).contains(&now));
    }

    /// Given back at once, it is as if never taken.
    #[test]
    fn a_refund_at_once_leaves_no_trace(quota in quotas(), steps in steps(), part in 0.0..1.0_f64) {
        let mut run = Run::new(quota, 0);
        for step in &steps {
            run.step(step);
        }
        let burst = run.bucket.quota().burst();
        let tokens = ((burst as f64).powf(part) as u64).clamp(1, burst);
        let now = run.latest;
        let wait = |run: &Run| run.bucket.wait_ns(u128::from(burst), now);
        let before = wait(&run);
        prop_assume!(run.bucket.try_take(tokens, now).is_ok());

        run.bucket.give_back(tokens, now, now);

        prop_assert_eq!(wait(&run), before);
    }
}

#[test]
fn the_rate_is_kept_to_a_grain_per_token() {
    for rate in [1e-6, 0.1, 1.0, 3.0, 500.0, 20_000.0, 1e6] {
        let quota = Quota::new(rate, 1).expect("in range");
        let per_second = quota.grains(1_000_000_000_000) as f64 / (f64::from(quota.f)).exp2() / 1e3;
        let lost = 1.0 - per_second / rate;
        assert!((-1e-9..=2.1e-3).contains(&lost), "{rate}: {lost}");
    }
}

#[test]
fn a_token_never_comes_back_sooner_than_the_rate_says() {
    for rate in [1_u32, 3, 500, 20_000, 1_000_000] {
        for reading in 0..2_000 {
            let now = reading * 7_919;
            let bucket = TokenBucket::new(Quota::new(f64::from(rate), 1).expect("in range"), 0);
            bucket.try_take(1, now).expect("full");

            let wait = bucket.wait_ns(1, now);

            assert!(wait * u64::from(rate) >= 1_000_000_000, "{rate}/s at {now}");
        }
    }
}

#[test]
fn a_bucket_stays_held_whatever_is_taken_and_given_back() {
    let bucket = TokenBucket::new(Quota::new(1.0, 3).expect("in range"), 0);
    bucket.hold();

    assert_eq!(bucket.try_take(1, 0), Err(Refused::Held));
    assert!(bucket.take_held(1, 0));
    assert_eq!(bucket.try_take(1, 0), Err(Refused::Held));
    bucket.give_back(1, 0, 0);
    assert_eq!(bucket.try_take(1, 0), Err(Refused::Held));
    bucket.release();
    assert_eq!(bucket.try_take(3, 0), Ok(()));
}

#[test]
fn a_century_does_not_overflow() {
    const CENTURY: u64 = 100 * 365 * 24 * 3600 * 1_000_000_000;
    for rate in [1e-6, 1.0, 1e9] {
        for burst in [1, 1000, MAX_BURST] {
            let bucket = TokenBucket::new(Quota::new(rate, burst).expect("in range"), 0);
            for now in [0, CENTURY, u64::MAX, 0, CENTURY / 2] {
                let _ = bucket.try_take(burst, now);
                assert!(bucket.full_at() < HELD);
                let _ = bucket.wait_ns(u128::MAX, now);
            }
        }
    }
}

#[test]
fn a_quota_out_of_range_is_refused() {
    for rate in [0.0, -1.0, 9e-7, 1.1e9, f64::NAN, f64::INFINITY] {
        assert_eq!(Quota::new(rate, 1).err(), Some(QuotaError::Rate));
    }
    for burst in [0, MAX_BURST + 1, u64::MAX] {
        assert_eq!(Quota::new(1.0, burst).err(), Some(QuotaError::Burst));
    }
}

#[test]
fn threads_draining_one_bucket_get_its_burst_exactly() {
    let bucket = TokenBucket::new(Quota::new(1e-6, 100_000).expect("in range"), 0);
    let taken = Count::new(0);

    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while bucket.try_take(1, 0).is_ok() {
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });

    assert_eq!(taken.into_inner(), 100_000);
}
