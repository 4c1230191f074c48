//! The open connections: bounded, and the one idle for longest gives way.
//!
//! Refusing at the limit would let whoever holds connections open silence the
//! probes; so a new one is always taken, at the cost of the stalest.

use std::collections::HashMap;
use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::task::{AbortHandle, Id, JoinError, JoinSet};

/// When a connection last sent a whole request, as a count that only grows.
#[derive(Clone)]
pub(super) struct Activity {
    clock: Arc<AtomicU64>,
    last: Arc<AtomicU64>,
}

impl Activity {
    // Relaxed everywhere: one thread counts and compares; nothing else is
    // published through these numbers.
    pub(super) fn touch(&self) {
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        self.last.store(now, Ordering::Relaxed);
    }
}

struct Entry {
    task: AbortHandle,
    activity: Activity,
}

/// The connections of one server, kept by its accept loop.
pub(super) struct Connections {
    clock: Arc<AtomicU64>,
    open: HashMap<Id, Entry>,
    tasks: JoinSet<()>,
    most: usize,
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        Self {
            clock: Arc::default(),
            open: HashMap::new(),
            tasks: JoinSet::new(),
            most,
        }
    }

    /// For a connection about to be served: it counts as active now.
    pub(super) fn activity(&self) -> Activity {
        let activity = Activity {
            clock: Arc::clone(&self.clock),
            last: Arc::default(),
        };
        activity.touch();
        activity
    }

    /// Makes room for one more.
    pub(super) fn make_room(&mut self) {
        while self.open.len() >= self.most {
            self.drop_stalest();
        }
    }

    /// Ends the connection whose last request is longest ago.
    pub(super) fn drop_stalest(&mut self) {
        let stalest = self
            .open
            .iter()
            .min_by_key(|(_, entry)| entry.activity.last.load(Ordering::Relaxed))
            .map(|(id, _)| *id);
        if let Some(entry) = stalest.and_then(|id| self.open.remove(&id)) {
            entry.task.abort();
        }
    }

    /// Serves a connection until `task` ends.
    pub(super) fn add<F>(&mut self, task: F, activity: Activity)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let task = self.tasks.spawn(task);
        self.open.insert(task.id(), Entry { task, activity });
    }

    /// Waits until a connection has ended, and forgets it.
    pub(super) async fn ended(&mut self) {
        match self.tasks.join_next_with_id().await {
            Some(ended) => self.forget(ended),
            None => pending().await,
        }
    }

    /// The same without waiting: whether one had ended.
    pub(super) fn try_ended(&mut self) -> bool {
        let ended = self.tasks.try_join_next_with_id();
        let any = ended.is_some();
        if let Some(ended) = ended {
            self.forget(ended);
        }
        any
    }

    fn forget(&mut self, ended: Result<(Id, ()), JoinError>) {
        let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
        self.open.remove(&id);
    }

    /// Waits until all have ended. What is left is cut off when `self` is dropped.
    pub(super) async fn all_ended(&mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

/// The sockets that a forked child inherits and must close.
///
/// A socket is entered after it is opened and struck out before it is closed,
/// so a number in here is never that of something else; at worst the child
/// keeps one socket a little longer. Atomics, since a lock could be held at the
/// instant of the fork.
pub(super) struct Inherited(Box<[AtomicI64]>);

const EMPTY: i64 = -1;

impl Inherited {
    pub(super) fn new(most: usize) -> Self {
        Self((0..most).map(|_| AtomicI64::new(EMPTY)).collect())
    }

    /// Enters a socket until the mark is dropped.
    pub(super) fn enter(self: &Arc<Self>, socket: i64) -> Mark {
        let swap = |slot: &AtomicI64| {
            slot.compare_exchange(EMPTY, socket, Ordering::SeqCst, Ordering::SeqCst)
        };
        let slot = self.0.iter().position(|slot| swap(slot).is_ok());
        Mark {
            all: Arc::clone(self),
            slot,
        }
    }

    /// The sockets open at this moment; each is given out once.
    pub(super) fn take(&self) -> impl Iterator<Item = i64> {
        let swapped = self.0.iter().map(|slot| slot.swap(EMPTY, Ordering::SeqCst));
        swapped.filter(|socket| *socket != EMPTY)
    }
}

/// Strikes its socket out when dropped: declare it after the socket it names,
/// so that it is dropped first.
pub(super) struct Mark {
    all: Arc<Inherited>,
    slot: Option<usize>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Some(slot) = self.slot {
            self.all.0[slot].store(EMPTY, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_listed_while_its_mark_lives() {
        let all = Arc::new(Inherited::new(2));
        let (first, second) = (all.enter(7), all.enter(8));
        drop(first);
        let third = all.enter(9);
        let beyond = all.enter(10);

        assert_eq!(all.take().collect::<Vec<_>>(), [9, 8]);
        drop((second, third, beyond));
        assert_eq!(all.take().count(), 0);
    }

    #[test]
    fn the_stalest_connection_gives_way() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut connections = Connections::new(2);
            let (of_old, of_new) = (connections.activity(), connections.activity());
            connections.add(pending(), of_old.clone());
            connections.add(pending(), of_new.clone());

            of_old.touch();
            connections.make_room();

            connections.ended().await;
            let left = connections.open.values().next().unwrap();
            assert!(Arc::ptr_eq(&left.activity.last, &of_old.last));
        });
    }
}
