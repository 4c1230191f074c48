//! A log file that many threads and processes share, written by native threads.
//!
//! ```text
//! push ─▶ ring (shared memory) ─▶ writer thread ─▶ file ─▶ backups
//!            │                        ▲
//!            └── outlives the process ┘ the next opener empties it
//! ```
//!
//! `push` copies a line and returns; it never waits for the disk. Everything
//! else is the writer's: batches, the lock between processes, rotation,
//! outages and recovery.

mod batch;
mod compress;
#[cfg(test)]
#[cfg(all(target_os = "linux", not(feature = "loom")))]
mod cut_tests;
mod doorbell;
mod drain;
mod file;
mod fork;
pub mod format;
mod fuse;
pub mod json;
mod lives;
#[cfg(not(feature = "loom"))]
mod mapping;
#[cfg(feature = "loom")]
#[path = "log/loom_mapping.rs"]
mod mapping;
mod report;
mod ring;
mod rotation;
mod schedule;
mod siblings;
mod spill;
mod stats;
mod storage;
mod thread;
#[cfg(all(target_os = "linux", any(test, fuzzing), not(feature = "loom")))]
pub mod trial;
mod writer;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

pub use compress::Compression;
pub use lives::Log;
pub use report::Notice;
pub use ring::Refused;
pub use rotation::Policy;
pub use schedule::{Schedule, When, iso_utc};
pub use stats::Stats;

use drain::Target;
use stats::Counters;
use writer::{Shared, Writer};

/// Called by the writer thread; it must not block.
pub type Observer = Arc<dyn Fn(Notice) + Send + Sync>;

/// How the file is opened for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Append, creating the file.
    Append,
    /// Empty the file first.
    Truncate,
    /// Fail if the file exists.
    Create,
}

/// What a log is made from.
#[derive(Clone)]
pub struct Config {
    /// Absolute, so that a later `chdir` changes nothing.
    pub path: PathBuf,
    /// For the first opening; later ones append.
    pub mode: Mode,
    /// Open with the first record instead of at once.
    pub delay: bool,
    /// Rotation and retention.
    pub policy: Policy,
    /// Bytes of the ring.
    pub ring_bytes: usize,
    /// Memory-backed folder for rings; `None` keeps them on the heap.
    pub rings: Option<PathBuf>,
    /// Wait for the disk after each batch.
    pub fsync: bool,
    /// How long the writer gathers records for one write.
    pub gather: Duration,
    /// The clock on the wall, for schedules and ages.
    pub wall: fn() -> SystemTime,
    /// Told about outages.
    pub observer: Observer,
}

/// The memory-backed folder this platform has for rings, if any.
#[must_use]
pub fn default_ring_folder() -> Option<PathBuf> {
    storage::default_folder()
}

/// A ring, its writer thread and their file: one life of a log, which a fork
/// or a close ends.
pub struct Life {
    shared: Arc<Shared>,
}

impl Life {
    fn begin(config: &Config, first: bool, counters: Arc<Counters>) -> io::Result<Self> {
        fork::watch();
        let mut target = Target::new(config);
        if first {
            open_first(config)?;
        }
        // Before the file is opened: a dying process lets go of its descriptors
        // in their order, so nobody gets the file's lock and finds this ring's
        // still held.
        let (housed, refused) =
            storage::house(config.rings.as_deref(), &config.path, config.ring_bytes);
        if first
            && !config.delay
            && let Err(error) = target.file.open()
        {
            housed.discard();
            return Err(error);
        }
        let shared = Arc::new(Shared::new(housed, counters));
        let writer = Writer::new(Arc::clone(&shared), target, config);
        thread::spawn(move || writer.run())?;
        if let Some(error) = refused {
            shared.counters.note(&error.to_string());
            (config.observer)(Notice::NotDurable(error.to_string()));
        }
        Ok(Self { shared })
    }

    /// Accepts `record`, its line end included, or says why not. Never waits.
    pub fn push(&self, record: &[u8]) -> Result<(), Refused> {
        let pushed = self.shared.housed.push(record);
        match pushed {
            Ok(_) => {
                self.shared.counters.accepted.fetch_add(1, Relaxed);
                self.shared.ring_bell();
            }
            Err(Refused::Full) => self.shared.hurry(),
            Err(Refused::Closed) => {}
        }
        pushed.map(|_| ())
    }

    /// Waits until the ring is half empty and would take `record`, at most
    /// `timeout`. Others may take the room first.
    pub fn wait_for_room(&self, record: &[u8], timeout: Duration) {
        self.shared.hurry();
        self.shared
            .wait(timeout, |shared| shared.housed.has_room(record));
    }

    /// Begins to write everything accepted so far, and tells when it is done.
    #[must_use]
    pub fn flush(&self) -> Progress {
        let end = self.shared.housed.ring.head();
        self.shared.hurry();
        Progress::of(&self.shared, end)
    }

    /// Accepts nothing more; the writer ends when the ring is empty.
    pub fn begin_close(&self) {
        self.shared.ask_close();
    }

    /// Begins to close, and tells when the ring is empty and the writer gone.
    #[must_use]
    pub fn close(&self) -> Progress {
        self.begin_close();
        Progress::of(&self.shared, u64::MAX)
    }

    /// Opens the file by its name again before the next batch.
    pub fn reopen(&self) {
        self.shared.ask_reopen();
    }

    fn is_closing(&self) -> bool {
        self.shared.is_closing()
    }
}

/// Ready once the writer has got to a position: to be waited for or awaited.
#[derive(Clone)]
pub struct Progress {
    shared: Arc<Shared>,
    position: u64,
    generation: u64,
}

impl Progress {
    fn of(shared: &Arc<Shared>, position: u64) -> Self {
        Self {
            shared: Arc::clone(shared),
            position,
            generation: fork::generation(),
        }
    }

    /// True in a child: what the parent began is not the child's to wait for.
    fn is_foreign(&self) -> bool {
        self.generation != fork::generation()
    }

    /// True if there is nothing to wait for.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_foreign() || self.shared.is_reached(self.position)
    }

    /// Waits on this thread, at most `timeout`; returns whether it is ready.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        self.is_foreign()
            || self
                .shared
                .wait(timeout, |shared| shared.is_reached(self.position))
    }
}

impl Future for Progress {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.is_foreign() || self.shared.wake_at(self.position, context.waker()) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

fn open_first(config: &Config) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    match config.mode {
        Mode::Append => return Ok(()),
        Mode::Truncate => options.write(true).create(true).truncate(true),
        Mode::Create => options.write(true).create_new(true),
    };
    options.open(&config.path).map(|_| ())
}
