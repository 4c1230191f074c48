//! What other writers of the log were about to write when they died.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use std::{fs, io, thread};

use super::file::{LogFile, Standing};
use super::storage::{self, Housed};

/// No clock of a file system is coarser.
const TICK: Duration = Duration::from_millis(50);

/// A dying process lets go of its files within microseconds of each other, in
/// the order that its kernel likes: of the log's, it may be, before the ring's.
const DYING_PAUSE: Duration = Duration::from_micros(500);
const DYING_ROUNDS: u32 = 40;

/// How others left the log whose lock is held. Whoever is in a write has that
/// lock, so a write that another's ring tells of was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Others {
    /// No write of theirs was cut.
    Done,
    /// One was cut by a death, and its ring is to be had.
    Dead,
    /// One was cut, and its ring is not to be had yet: a dying process may let
    /// go of the log's lock first.
    Dying,
}

/// The rings of all writers of a log, looked for when their folder changed.
pub(super) struct Siblings {
    folder: Option<PathBuf>,
    homes: Vec<PathBuf>,
    /// When the folder had last changed, if that was long enough ago for any
    /// later change to bear a later time.
    changed: Option<SystemTime>,
}

impl Siblings {
    pub(super) fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            homes: Vec::new(),
            changed: None,
        }
    }

    /// Locks `file`, and tells whether a death cut a write to it: only as long
    /// as nobody writes behind it does the file say how much of it was done.
    pub(super) fn lock(
        &mut self,
        file: &mut LogFile,
        own: &Housed,
    ) -> io::Result<(Standing, bool)> {
        for _ in 0..DYING_ROUNDS {
            let at = file.lock()?;
            let others = if at.regular {
                self.left(file.path(), own)
            } else {
                Others::Done
            };
            if others != Others::Dying {
                return Ok((at, others == Others::Dead));
            }
            file.unlock();
            thread::sleep(DYING_PAUSE);
        }
        // It lives, and could not cut off what it failed to write.
        Ok((file.lock()?, false))
    }

    /// What those but `own` left of the log at `path`, whose lock is held.
    pub(super) fn left(&mut self, path: &Path, own: &Housed) -> Others {
        self.look(path);
        let others = self.homes.iter();
        let others = others.filter(|home| Some(home.as_path()) != own.home());
        let left = others.map(|home| match storage::is_cut(home, path) {
            false => Others::Done,
            true if storage::is_held(home) => Others::Dying,
            true => Others::Dead,
        });
        left.max().unwrap_or(Others::Done)
    }

    fn look(&mut self, path: &Path) {
        let Some(folder) = &self.folder else {
            return;
        };
        let now = SystemTime::now();
        let changed = fs::metadata(folder).and_then(|about| about.modified()).ok();
        if changed.is_none() || changed != self.changed {
            self.homes = storage::homes(folder, path);
            let is_past = |at: &SystemTime| now.duration_since(*at).is_ok_and(|age| age > TICK);
            self.changed = changed.filter(is_past);
        }
    }
}
