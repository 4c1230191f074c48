//! How producers wake the writer, once, and only when it sleeps.
//!
//! ```text
//!            ring               answer
//!   AWAKE ─────────▶ RUNG ───────────────▶ AWAKE
//!     │ sleep                 ring, unpark
//!     └──────────▶ ASLEEP ─────────────────▶ RUNG
//! ```
//!
//! Every step is a read-modify-write of one word, so they have one order: a
//! producer whose `ring` comes before `answer` is seen by the writer's look
//! into the ring; one whose `ring` comes after makes `sleep` fail or sees
//! ASLEEP and wakes. No wake-up is lost, which loom checks below.

use crate::sync::{AtomicU64, Ordering};

const AWAKE: u64 = 0;
const ASLEEP: u64 = 1;
const RUNG: u64 = 2;

/// See the module.
pub(super) struct Doorbell(AtomicU64);

impl Doorbell {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(AWAKE))
    }

    /// After a record was put in: true when the writer must be unparked.
    #[inline]
    pub(super) fn ring(&self) -> bool {
        self.0.swap(RUNG, Ordering::AcqRel) == ASLEEP
    }

    /// Before the writer looks into the ring.
    pub(super) fn answer(&self) {
        self.0.swap(AWAKE, Ordering::AcqRel);
    }

    /// After it found nothing: true when it may park until `is_asleep` is false.
    pub(super) fn sleep(&self) -> bool {
        self.0
            .compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// False once somebody rang.
    pub(super) fn is_asleep(&self) -> bool {
        self.0.load(Ordering::Acquire) == ASLEEP
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::Doorbell;
    use crate::sync::{AtomicU64, Ordering};
    use loom::sync::Arc;
    use loom::thread;

    struct Model {
        bell: Doorbell,
        head: AtomicU64,
    }

    /// The writer sees all records, or loom reports that it parks for ever.
    fn write_until(model: &Model, records: u64) {
        loop {
            model.bell.answer();
            if model.head.load(Ordering::Acquire) == records {
                return;
            }
            if model.bell.sleep() {
                while model.bell.is_asleep() {
                    thread::park();
                }
            }
        }
    }

    fn produce(model: &Model, writer: &thread::Thread) {
        model.head.fetch_add(1, Ordering::Release);
        if model.bell.ring() {
            writer.unpark();
        }
    }

    #[test]
    fn loom_no_wake_up_is_lost() {
        loom::model(|| {
            let model = Arc::new(Model {
                bell: Doorbell::new(),
                head: AtomicU64::new(0),
            });
            let writers = Arc::clone(&model);
            let writer = thread::spawn(move || write_until(&writers, 2));
            let (other, handle) = (Arc::clone(&model), writer.thread().clone());
            let producer = thread::spawn(move || produce(&other, &handle));
            produce(&model, writer.thread());
            producer.join().unwrap();
            writer.join().unwrap();
        });
    }
}
