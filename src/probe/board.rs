//! What Python last published, and what is asked of native sources.
//!
//! One immutable snapshot, replaced as a whole: a request sees all of a
//! `publish` or none of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::family::Family;
use super::thread::Shared;

/// Whether a probe passes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Pass,
    /// It does not, and why; the reasons may be empty.
    Fail(Vec<String>),
}

/// The document of `/healthz`.
#[derive(Clone, Debug)]
pub struct Health {
    /// JSON text.
    pub document: String,
    /// Answered with 200 when true, else with 503.
    pub passes: bool,
}

/// Metrics that live in Rust and are served without Python.
///
/// `collect` runs on the probe thread at every scrape: it must not wait for the
/// interpreter, for a disk or for a lock that is held for long.
pub trait MetricsSource: Send + Sync {
    /// Appends the families as they stand at `now_ns` (monotonic).
    fn collect(&self, now_ns: u64, out: &mut Vec<Family>);
}

/// Something native that can fail `/livez` by itself, such as a watchdog.
pub trait LivenessGuard: Send + Sync {
    /// Appends the reasons for which this process should be restarted, if any.
    fn reasons(&self, now_ns: u64, out: &mut Vec<String>);
}

/// What one `publish` changes; `None` leaves the former value.
#[derive(Debug, Default)]
pub struct News {
    /// For `/livez`.
    pub live: Option<Verdict>,
    /// For `/readyz`.
    pub ready: Option<Verdict>,
    /// For `/startupz`.
    pub startup: Option<Verdict>,
    /// For `/healthz`.
    pub health: Option<Health>,
}

/// One consistent view of all that is published.
#[derive(Clone)]
pub(super) struct Snapshot {
    pub(super) live: Verdict,
    pub(super) ready: Verdict,
    pub(super) startup: Verdict,
    pub(super) health: Option<Arc<Health>>,
    groups: BTreeMap<String, Arc<Vec<Arc<Family>>>>,
    sources: Vec<Arc<dyn MetricsSource>>,
    guards: Vec<Arc<dyn LivenessGuard>>,
}

impl Snapshot {
    /// Alive, but neither started nor ready until somebody says so.
    fn first() -> Self {
        let starting = || Verdict::Fail(vec!["starting".to_owned()]);
        Self {
            live: Verdict::Pass,
            ready: starting(),
            startup: starting(),
            health: None,
            groups: BTreeMap::new(),
            sources: Vec::new(),
            guards: Vec::new(),
        }
    }

    /// Published and native families, each name once.
    pub(super) fn families(&self, now_ns: u64) -> Vec<Arc<Family>> {
        let mut native = Vec::new();
        for source in &self.sources {
            source.collect(now_ns, &mut native);
        }
        let published = self.groups.values().flat_map(|group| group.iter().cloned());
        merged(published.chain(native.into_iter().map(Arc::new)))
    }

    /// The published verdict, and what the guards see at this moment.
    pub(super) fn liveness(&self, now_ns: u64) -> Verdict {
        let mut reasons = Vec::new();
        for guard in &self.guards {
            guard.reasons(now_ns, &mut reasons);
        }
        match &self.live {
            Verdict::Pass if reasons.is_empty() => Verdict::Pass,
            Verdict::Pass => Verdict::Fail(reasons),
            Verdict::Fail(own) => Verdict::Fail(own.iter().cloned().chain(reasons).collect()),
        }
    }
}

/// Families of the same name joined, in order of name.
fn merged(all: impl Iterator<Item = Arc<Family>>) -> Vec<Arc<Family>> {
    let mut by_name: BTreeMap<String, Arc<Family>> = BTreeMap::new();
    for family in all {
        match by_name.get_mut(family.name()) {
            Some(first) => Arc::make_mut(first).absorb(&family),
            None => {
                by_name.insert(family.name().to_owned(), family);
            }
        }
    }
    by_name.into_values().collect()
}

/// The published state. Writers never wait for more than another's pointer swap.
pub struct Board {
    snapshot: Shared<Snapshot>,
    clock: fn() -> u64,
}

impl Board {
    /// `clock` gives monotonic nanoseconds and may be called on any thread.
    #[must_use]
    pub fn new(clock: fn() -> u64) -> Self {
        Self {
            snapshot: Shared::new(Snapshot::first()),
            clock,
        }
    }

    /// Makes all of `news` visible at once.
    pub fn publish(&self, news: News) {
        let News {
            live,
            ready,
            startup,
            health,
        } = news;
        let health = health.map(Arc::new);
        self.change(|next| {
            next.live = live.clone().unwrap_or_else(|| next.live.clone());
            next.ready = ready.clone().unwrap_or_else(|| next.ready.clone());
            next.startup = startup.clone().unwrap_or_else(|| next.startup.clone());
            next.health = health.clone().or_else(|| next.health.take());
        });
    }

    /// Replaces the families of `group`; none removes the group.
    pub fn publish_metrics(&self, group: &str, families: Vec<Arc<Family>>) {
        let families = Arc::new(families);
        self.change(|next| {
            if families.is_empty() {
                next.groups.remove(group);
            } else {
                next.groups.insert(group.to_owned(), Arc::clone(&families));
            }
        });
    }

    /// Serves `source` at every scrape from now on.
    pub fn add_source(&self, source: &Arc<dyn MetricsSource>) {
        self.change(|next| next.sources.push(Arc::clone(source)));
    }

    /// Asks `guard` at every `/livez` from now on.
    pub fn add_guard(&self, guard: &Arc<dyn LivenessGuard>) {
        self.change(|next| next.guards.push(Arc::clone(guard)));
    }

    /// No longer serves `source`, told by its address.
    pub fn remove_source(&self, source: &Arc<dyn MetricsSource>) {
        self.change(|next| next.sources.retain(|known| !Arc::ptr_eq(known, source)));
    }

    /// No longer asks `guard`, told by its address.
    pub fn remove_guard(&self, guard: &Arc<dyn LivenessGuard>) {
        self.change(|next| next.guards.retain(|known| !Arc::ptr_eq(known, guard)));
    }

    /// All families, as a scrape at this moment would serve them.
    #[must_use]
    pub fn families(&self) -> Vec<Arc<Family>> {
        self.snapshot().families(self.now_ns())
    }

    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.get()
    }

    pub(super) fn now_ns(&self) -> u64 {
        (self.clock)()
    }

    fn change(&self, edit: impl Fn(&mut Snapshot)) {
        self.snapshot.update(|current| {
            let mut next = current.clone();
            edit(&mut next);
            next
        });
    }

    /// Call in a forked child before anything else.
    pub fn after_fork_in_child(&self) {
        self.snapshot.reset_in_child();
    }
}

#[cfg(test)]
mod tests {
    use super::super::family::Kind;
    use super::*;

    struct Fixed(&'static str, f64);

    impl MetricsSource for Fixed {
        fn collect(&self, _now_ns: u64, out: &mut Vec<Family>) {
            let family = Family::new(Kind::Gauge, "depth", "", "").unwrap();
            out.push(family.with(&[("queue", self.0)], self.1).unwrap());
        }
    }

    struct Stuck;

    impl LivenessGuard for Stuck {
        fn reasons(&self, _now_ns: u64, out: &mut Vec<String>) {
            out.push("stuck".to_owned());
        }
    }

    fn board() -> Board {
        Board::new(|| 0)
    }

    #[test]
    fn a_new_process_is_alive_but_not_ready() {
        let snapshot = board().snapshot();

        assert_eq!(snapshot.liveness(0), Verdict::Pass);
        assert_eq!(snapshot.ready, Verdict::Fail(vec!["starting".to_owned()]));
        assert_eq!(snapshot.startup, Verdict::Fail(vec!["starting".to_owned()]));
    }

    #[test]
    fn what_is_not_in_the_news_stays() {
        let board = board();
        board.publish(News {
            ready: Some(Verdict::Pass),
            ..News::default()
        });
        board.publish(News {
            live: Some(Verdict::Fail(vec![])),
            ..News::default()
        });

        assert_eq!(board.snapshot().ready, Verdict::Pass);
        assert_eq!(board.snapshot().live, Verdict::Fail(vec![]));
    }

    #[test]
    fn a_guard_fails_liveness_until_it_is_removed() {
        let (board, guard) = (board(), Arc::new(Stuck) as Arc<dyn LivenessGuard>);
        board.add_guard(&guard);

        let during = board.snapshot().liveness(0);
        board.remove_guard(&guard);

        assert_eq!(during, Verdict::Fail(vec!["stuck".to_owned()]));
        assert_eq!(board.snapshot().liveness(0), Verdict::Pass);
    }

    #[test]
    fn families_of_one_name_are_served_once_with_all_series() {
        let board = board();
        for fixed in [Fixed("a", 1.0), Fixed("b", 2.0), Fixed("a", 3.0)] {
            board.add_source(&(Arc::new(fixed) as Arc<dyn MetricsSource>));
        }

        let families = board.families();

        assert_eq!(families.len(), 1);
        let labels: Vec<_> = families[0].series().keys().map(|l| &l[0].1).collect();
        assert_eq!(labels, ["a", "b"]);
    }

    #[test]
    fn a_group_is_replaced_whole() {
        let board = board();
        let family = |name| {
            let family = Family::new(Kind::Gauge, name, "", "").unwrap();
            vec![Arc::new(family.with(&[], 1.0).unwrap())]
        };
        board.publish_metrics("x", family("old"));
        board.publish_metrics("y", family("other"));
        board.publish_metrics("x", family("new"));

        let names = |b: &Board| -> Vec<String> {
            b.families().iter().map(|f| f.name().to_owned()).collect()
        };
        assert_eq!(names(&board), ["new", "other"]);
        board.publish_metrics("x", vec![]);
        assert_eq!(names(&board), ["other"]);
    }
}
