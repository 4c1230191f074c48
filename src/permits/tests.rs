//! Permits in one thread: counts, order, and leaving at any place.

use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;

#[derive(Debug, Clone)]
enum Step {
    Try,
    Join(u64),
    GiveBack,
    Leave(prop::sample::Index),
    Collect(u64),
    DropLane(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Try),
        4 => (0..3_u64).prop_map(Step::Join),
        4 => Just(Step::GiveBack),
        2 => any::<prop::sample::Index>().prop_map(Step::Leave),
        3 => (0..3_u64).prop_map(Step::Collect),
        1 => (0..3_u64).prop_map(Step::DropLane),
    ]
}

/// What `Permits` must do: who holds, who is granted, who waits, in order.
#[derive(Default)]
struct Model {
    held: u64,
    granted: Vec<(u64, u64)>,
    waiting: VecDeque<(u64, u64)>,
}

impl Model {
    fn in_use(&self) -> u64 {
        self.held + self.granted.len() as u64
    }

    /// Whether who waits in `lane` stands behind another lane's, or its grants.
    fn waits_for_others(&self, lane: u64) -> bool {
        let first = self.waiting.front();
        let granted = self.granted.iter().any(|(of, _)| *of != lane);
        first.is_some_and(|(of, _)| *of != lane || granted)
    }

    fn serve(&mut self, limit: u64) {
        while self.in_use() < limit {
            let Some(first) = self.waiting.pop_front() else {
                break;
            };
            self.granted.push(first);
        }
    }
}

proptest! {
    #[test]
    fn permits_do_as_the_model(limit in 1..4_u64, steps in prop::collection::vec(step(), 1..80)) {
        let permits = Permits::new(limit);
        let mut model = Model::default();

        for step in steps {
            match step {
                Step::Try => {
                    let free = model.in_use() < limit && model.waiting.is_empty();
                    prop_assert_eq!(permits.try_take(), free);
                    model.held += u64::from(free);
                }
                Step::Join(lane) => match permits.join(lane, 0) {
                    None => model.held += 1,
                    Some(ticket) => model.waiting.push_back((lane, ticket)),
                },
                Step::GiveBack if model.held > 0 => {
                    let given = permits.give_back().expect("held");
                    prop_assert_eq!(given.wanted, !model.waiting.is_empty());
                    permits.serve(0);
                    model.held -= 1;
                }
                // Giving back what a grant holds is the caller's mistake.
                Step::GiveBack if model.in_use() == 0 => {
                    prop_assert_eq!(permits.give_back(), Err(NotTaken));
                }
                Step::GiveBack => {}
                Step::Leave(index) => {
                    let mut all: Vec<_> = model.granted.clone();
                    all.extend(&model.waiting);
                    if !all.is_empty() {
                        let (_, ticket) = all[index.index(all.len())];
                        let granted = model.granted.iter().any(|(_, other)| *other == ticket);
                        prop_assert_eq!(permits.leave(ticket, 0), granted);
                        prop_assert!(!permits.leave(ticket, 0));
                        model.granted.retain(|(_, other)| *other != ticket);
                        model.waiting.retain(|(_, other)| *other != ticket);
                    }
                }
                Step::Collect(lane) => {
                    let got: Vec<_> = permits.collect(lane).iter().map(|g| (g.lane, g.ticket)).collect();
                    let (mine, others): (Vec<_>, Vec<_>) =
                        model.granted.iter().partition(|(of, _)| *of == lane);
                    prop_assert_eq!(&got, &mine);
                    model.granted = others;
                    model.held += mine.len() as u64;
                }
                Step::DropLane(lane) => {
                    permits.drop_lane(lane, 0);
                    model.granted.retain(|(of, _)| *of != lane);
                    model.waiting.retain(|(of, _)| *of != lane);
                }
            }
            model.serve(limit);
            let counts = permits.counts();
            prop_assert_eq!(counts.in_use, model.in_use());
            prop_assert_eq!(counts.waiting, model.waiting.len());
            prop_assert!(counts.in_use <= limit);
            for lane in 0..3 {
                prop_assert_eq!(permits.due_ns(lane).is_some(), model.waits_for_others(lane));
            }
        }
        for lane in 0..3 {
            permits.drop_lane(lane, 0);
        }
        permits.free_all();
        prop_assert_eq!(permits.counts().in_use, 0);
        prop_assert!((0..limit).all(|_| permits.try_take()) && !permits.try_take());
    }
}
