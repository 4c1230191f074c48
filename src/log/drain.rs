//! From a ring into the file, each record exactly once.
//!
//! The writer empties its own ring and recovery a dead process's by the same
//! steps, so that being killed while recovering is no different from being
//! killed while writing:
//!
//! 1. lock the file;
//! 2. store the intent: these records, to this offset of that file;
//! 3. append;
//! 4. move the ring's tail past them;
//! 5. unlock.
//!
//! An intent whose start is still the tail was not carried through: comparing
//! the file at that offset with the records tells how much of it was, if only
//! nobody has written behind it. So whoever locks the file looks at the rings of
//! others first, and settles what a death has left before it writes.

use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Config;
use super::batch::{Batch, read_record, read_until, whole_records};
use super::compress;
use super::file::{Identity, LogFile, Standing};
use super::ring::{Corrupt, Intent, NOWHERE};
use super::rotation::{self, Policy};
use super::siblings::Siblings;
use super::storage::{self, Housed, Orphan};
use super::thread;

/// One `write` takes about this much: enough to make its cost vanish, little
/// enough that other processes get their turn.
const BATCH: usize = 256 << 10;
/// After this much the lock is given back for a moment.
const TURN: usize = 4 << 20;
/// A rotation that failed is not tried again before.
const ROTATION_RETRY: Duration = Duration::from_secs(1);

/// What happened in a turn, for the counters.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) recovered: u64,
    pub(super) rotations: u64,
    /// Bytes of rings that could not be read as records.
    pub(super) corrupt_bytes: u64,
    /// Rings of other versions, left to them.
    pub(super) foreign: Vec<PathBuf>,
    /// Rotation or retention failed; the records are written all the same.
    pub(super) rotation_fault: Option<io::Error>,
}

/// The file, how it rotates, and where dead processes' rings may lie.
pub(super) struct Target {
    pub(super) file: LogFile,
    policy: Policy,
    rings: Option<PathBuf>,
    siblings: Siblings,
    fsync: bool,
    /// When the present file's period ends, in seconds since the epoch.
    period: Option<(Identity, u64, u64)>,
    rotate_after: Option<SystemTime>,
    must_recover: bool,
    /// Rings of other versions are told once.
    told_foreign: bool,
    /// The clock on the wall, for schedules and ages.
    wall: fn() -> SystemTime,
    compressing: Vec<JoinHandle<()>>,
}

impl Target {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            file: LogFile::new(config.path.clone()),
            policy: config.policy.clone(),
            rings: config.rings.clone(),
            siblings: Siblings::new(config.rings.clone()),
            fsync: config.fsync,
            period: None,
            rotate_after: None,
            must_recover: true,
            told_foreign: false,
            wall: config.wall,
            compressing: Vec::new(),
        }
    }

    fn now(&self) -> u64 {
        seconds((self.wall)())
    }

    /// True while dead processes' rings wait to be emptied. Looks without
    /// opening the log, which may be delayed until its first record.
    pub(super) fn owes(&mut self) -> bool {
        if self.must_recover {
            let rings = self.rings.as_deref();
            self.must_recover =
                rings.is_some_and(|rings| !storage::orphans(rings, self.file.path()).is_empty());
        }
        self.must_recover
    }

    /// Compresses in a thread of its own: the ring must not fill meanwhile.
    pub(super) fn compress_backups(&mut self) {
        let Some(kind) = self.policy.compression else {
            return;
        };
        self.compressing.retain(|thread| !thread.is_finished());
        let path = self.file.path().to_owned();
        let work = move || compress::all_backups(&path, kind);
        // Without a thread the backups stay as they are until the next rotation.
        self.compressing.extend(thread::spawn(work).ok());
    }

    /// Waits for the compression under way.
    pub(super) fn finish(&mut self) {
        for thread in self.compressing.drain(..) {
            let _ = thread.join();
        }
    }

    /// Writes what waits in `source`, a turn's worth at most.
    ///
    /// What was done before a failure is in `tally`; the rest stays in the ring.
    pub(super) fn drain(&mut self, source: &Housed, tally: &mut Tally) -> io::Result<()> {
        let (at, is_cut) = self.siblings.lock(&mut self.file, source)?;
        let outcome = self.drain_locked(source, at, is_cut, tally);
        self.file.unlock();
        outcome
    }

    fn drain_locked(
        &mut self,
        source: &Housed,
        mut at: Standing,
        is_cut: bool,
        tally: &mut Tally,
    ) -> io::Result<()> {
        if is_cut {
            self.recover(&mut at, true, tally)?;
        }
        // A line of our own may be the torn one.
        tally.records += self.settle(source, &mut at, tally)?;
        let mut at = self.mend(at, tally)?;
        let began = tally.bytes;
        // What comes in meanwhile is gathered for the next turn.
        let end = source.ring.head();
        while source.ring.tail() < end && tally.bytes - began < TURN as u64 {
            match self.step(source, &mut at, true, tally)? {
                0 => break,
                records => tally.records += records,
            }
        }
        Ok(())
    }

    /// Sees to what dead processes left: their rings, and a torn last line.
    fn mend(&mut self, mut at: Standing, tally: &mut Tally) -> io::Result<Standing> {
        let torn = self.file.ends_torn(at)?;
        if torn || self.must_recover {
            self.recover(&mut at, true, tally)?;
            self.must_recover = false;
        }
        if torn && self.file.ends_torn(at)? {
            // Nobody's ring has the rest of that line; keep ours out of it.
            self.append(&mut at, b"\n")?;
        }
        Ok(at)
    }

    /// Empties the rings of dead processes. The file is locked.
    fn recover(&mut self, at: &mut Standing, rotate: bool, tally: &mut Tally) -> io::Result<()> {
        let Some(folder) = self.rings.clone() else {
            return Ok(());
        };
        let orphans = storage::orphans(&folder, self.file.path());
        if !std::mem::replace(&mut self.told_foreign, true) {
            let foreign = orphans.iter().filter_map(Orphan::foreign);
            tally.foreign.extend(foreign.map(Path::to_owned));
        }
        for orphan in &orphans {
            if let Orphan::Ring(ring) = orphan {
                tally.recovered += self.settle(ring, at, tally)?;
            }
        }
        // A torn line that no intent explains: nothing may be written to its end.
        if !orphans.is_empty() && self.file.ends_torn(*at)? {
            self.append(at, b"\n")?;
        }
        for orphan in orphans {
            match orphan {
                Orphan::Ring(ring) => self.empty(&ring, at, rotate, tally)?,
                Orphan::Damaged(home, bytes) => {
                    tally.corrupt_bytes += bytes;
                    home.remove();
                }
                Orphan::Foreign(_) => {}
            }
        }
        Ok(())
    }

    fn empty(
        &mut self,
        ring: &Housed,
        at: &mut Standing,
        rotate: bool,
        tally: &mut Tally,
    ) -> io::Result<()> {
        loop {
            match self.step(ring, at, rotate, tally)? {
                0 => break,
                records => tally.recovered += records,
            }
        }
        ring.discard();
        Ok(())
    }

    /// Writes one batch, rotating before it if need be; returns its records.
    fn step(
        &mut self,
        source: &Housed,
        at: &mut Standing,
        rotate: bool,
        tally: &mut Tally,
    ) -> io::Result<u64> {
        let settled = self.settle(source, at, tally)?;
        if settled > 0 {
            return Ok(settled);
        }
        if rotate && self.period_is_over(*at) && source.ring.used() > 0 {
            self.rotate(source, at, tally)?;
        }
        let start = source.ring.tail();
        let mut batch = Batch::default();
        self.fill(source, start, *at, rotate, &mut batch, tally)?;
        // Again if another process filled the new file before we had its lock.
        while batch.full && batch.ends.is_empty() {
            self.rotate(source, at, tally)?;
            self.fill(source, start, *at, rotate, &mut batch, tally)?;
        }
        self.write(source, at, start, &batch, tally)
    }

    fn write(
        &mut self,
        source: &Housed,
        at: &mut Standing,
        start: u64,
        batch: &Batch,
        tally: &mut Tally,
    ) -> io::Result<u64> {
        let Some(end) = batch.end() else {
            return Ok(0);
        };
        let intent = Intent {
            start,
            end,
            skip: 0,
            dev: at.id.dev,
            ino: at.id.ino,
            offset: at.size,
        };
        source.ring.intend(intent);
        self.append_intended(source, at, intent, 0, &batch.bytes)?;
        Ok(finish(source, end, batch, tally))
    }

    /// Appends; after a failure that left nothing, says that the records but for
    /// their first `done` bytes are nowhere: others write there now, maybe the
    /// same.
    fn append_intended(
        &mut self,
        source: &Housed,
        at: &mut Standing,
        intent: Intent,
        done: usize,
        bytes: &[u8],
    ) -> io::Result<()> {
        let before = *at;
        let appended = self.append(at, bytes);
        if appended.is_err() && self.file.ends_at(before) {
            source.ring.intend(Intent {
                skip: done as u64,
                offset: NOWHERE,
                ..intent
            });
        }
        appended
    }

    /// Completes what an unsettled intent announced; returns its records.
    fn settle(&mut self, source: &Housed, at: &mut Standing, tally: &mut Tally) -> io::Result<u64> {
        let Some(intent) = source.ring.unsettled() else {
            return Ok(0);
        };
        let mut batch = Batch::default();
        if read_until(source, intent, &mut batch)?.is_err() {
            return Ok(0);
        }
        let id = Identity {
            dev: intent.dev,
            ino: intent.ino,
        };
        let skip = (intent.skip as usize).min(batch.bytes.len());
        let there = if at.regular && intent.offset != NOWHERE {
            self.file.written(id, intent.offset, &batch.bytes[skip..])
        } else {
            0
        };
        let done = skip + there;
        let continues = at.id == id && Some(at.size) == intent.offset.checked_add(there as u64);
        if done < batch.bytes.len() {
            let from = if continues {
                done
            } else {
                self.begin_anew(source, at, intent, whole_records(&batch, done))?
            };
            let whole = whole_records(&batch, from);
            self.append_intended(source, at, intent, whole, &batch.bytes[from..])?;
        }
        Ok(finish(source, intent.end, &batch, tally))
    }

    /// The rest of the batch goes to the file's present end.
    fn begin_anew(
        &mut self,
        source: &Housed,
        at: &mut Standing,
        intent: Intent,
        from: usize,
    ) -> io::Result<usize> {
        if self.file.ends_torn(*at)? {
            self.append(at, b"\n")?;
        }
        source.ring.intend(Intent {
            skip: from as u64,
            dev: at.id.dev,
            ino: at.id.ino,
            offset: at.size,
            ..intent
        });
        Ok(from)
    }

    fn append(&mut self, at: &mut Standing, bytes: &[u8]) -> io::Result<()> {
        self.file.append(*at, bytes)?;
        at.size += bytes.len() as u64;
        if self.fsync { self.file.sync() } else { Ok(()) }
    }

    /// Gathers records until the batch, or with `bounded` the file, is full.
    fn fill(
        &self,
        source: &Housed,
        start: u64,
        at: Standing,
        bounded: bool,
        batch: &mut Batch,
        tally: &mut Tally,
    ) -> io::Result<()> {
        let mut position = start;
        batch.full = false;
        while batch.bytes.len() < BATCH {
            let (begin, spills) = (batch.bytes.len(), batch.spills.len());
            match read_record(source, position, batch)? {
                Ok(Some(next)) => position = next,
                Ok(None) => break,
                Err(Corrupt) if begin > 0 => break,
                Err(Corrupt) => {
                    abandon(source, position, tally);
                    break;
                }
            }
            let size = (batch.bytes.len() - begin) as u64;
            let filled = Standing {
                size: at.size + begin as u64,
                ..at
            };
            if bounded && self.may_rotate() && self.policy.is_full(filled, size) {
                batch.bytes.truncate(begin);
                batch.spills.truncate(spills);
                batch.full = true;
                break;
            }
            batch.ends.push((position, batch.bytes.len()));
        }
        Ok(())
    }

    fn may_rotate(&self) -> bool {
        self.rotate_after.is_none_or(|at| (self.wall)() >= at)
    }

    /// Sets the file aside. A failure is told and the old file goes on.
    fn rotate(&mut self, source: &Housed, at: &mut Standing, tally: &mut Tally) -> io::Result<()> {
        // A dead process's intent names this file: settle it while it is here.
        self.recover(at, false, tally)?;
        let began = self
            .period
            .map_or_else(|| self.now(), |(_, began, _)| began);
        let moved = rotation::set_aside(self.file.path(), &self.policy, began);
        if let Err(error) = moved {
            self.rotate_after = Some((self.wall)() + ROTATION_RETRY);
            tally.rotation_fault = Some(error);
            return Ok(());
        }
        self.rotate_after = None;
        self.file.close();
        let is_cut;
        (*at, is_cut) = self.siblings.lock(&mut self.file, source)?;
        if is_cut {
            self.recover(at, false, tally)?;
        }
        tally.rotations += 1;
        let pruned = rotation::prune(self.file.path(), &self.policy, (self.wall)());
        tally.rotation_fault = pruned.err();
        self.compress_backups();
        Ok(())
    }

    fn period_is_over(&mut self, at: Standing) -> bool {
        let Some(schedule) = &self.policy.schedule else {
            return false;
        };
        if !at.regular || !self.may_rotate() {
            return false;
        }
        let now = self.now();
        match self.period {
            // An empty file is not set aside: its period begins with its first line.
            Some((id, _, end)) if id == at.id && at.size > 0 => now >= end,
            _ => {
                let began = if at.size > 0 {
                    modified(self.file.path()).unwrap_or(now)
                } else {
                    now
                };
                let end = schedule.next(began);
                self.period = Some((at.id, began, end));
                now >= end
            }
        }
    }
}

fn modified(path: &Path) -> Option<u64> {
    std::fs::metadata(path).ok()?.modified().ok().map(seconds)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// The records are in the file: forget them in the ring.
fn finish(source: &Housed, end: u64, batch: &Batch, tally: &mut Tally) -> u64 {
    source.ring.commit(end);
    for spill in &batch.spills {
        source.spills.forget(spill);
    }
    tally.bytes += batch.bytes.len() as u64;
    batch.ends.len() as u64
}

/// Whatever lies at `position` is not a record, so nor is what follows.
fn abandon(source: &Housed, position: u64, tally: &mut Tally) {
    let head = source.ring.head();
    tally.corrupt_bytes += head.saturating_sub(position);
    source.ring.commit(head);
}

#[cfg(test)]
#[path = "drain_tests.rs"]
mod tests;
