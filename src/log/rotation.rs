//! When the file is set aside, under which name, and which backups stay.
//!
//! Every step is one rename or one removal, so a process killed between two of
//! them leaves each file whole; the next rotation closes the gap it left.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::compress::Compression;
use super::file::{Standing, folder};
use super::fuse;
use super::schedule::Schedule;

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Rotate before the file exceeds this many bytes; 0 never does.
    pub max_bytes: u64,
    /// Backups to keep; 0 keeps all that the other limits allow.
    pub backup_count: usize,
    /// Rotate by time too, and name the backups by it.
    pub schedule: Option<Schedule>,
    /// Remove backups older than this.
    pub max_age: Option<Duration>,
    /// Remove the oldest backups while all of them exceed this many bytes.
    pub max_total_bytes: Option<u64>,
    /// Compress backups.
    pub compression: Option<Compression>,
}

impl Policy {
    /// True when a record of `next` bytes belongs into a new file.
    pub(super) fn is_full(&self, file: Standing, next: u64) -> bool {
        self.rotates_by_size() && file.regular && file.size > 0 && file.size + next > self.max_bytes
    }

    /// As in the standard library, rotation by size needs somewhere to put the
    /// old file: a count of backups, or another limit on them.
    fn rotates_by_size(&self) -> bool {
        self.max_bytes > 0 && (self.backup_count > 0 || self.retains_otherwise())
    }

    fn retains_otherwise(&self) -> bool {
        self.schedule.is_some() || self.max_age.is_some() || self.max_total_bytes.is_some()
    }
}

/// Renames the file at `path` to its backup name; `now` names it when a
/// schedule does. The caller holds the file's lock.
pub(super) fn set_aside(path: &Path, policy: &Policy, began: u64) -> io::Result<PathBuf> {
    let backup = match &policy.schedule {
        Some(schedule) => next_of(path, &schedule.stamp(began))?,
        None => vacate_first(path, policy.backup_count)?,
    };
    fuse::before();
    fs::rename(path, &backup)?;
    Ok(backup)
}

/// `path.1`, made free by moving each backup up to the first gap.
fn vacate_first(path: &Path, count: usize) -> io::Result<PathBuf> {
    let taken = |n: u64| variants(path, n).iter().any(|name| name.exists());
    let last = if count == 0 { u64::MAX } else { count as u64 };
    let mut gap = 1;
    while gap < last && taken(gap) {
        gap += 1;
    }
    for name in variants(path, gap) {
        remove_if_there(&name)?;
    }
    for n in (1..gap).rev() {
        shift(path, n)?;
    }
    Ok(numbered(path, n_suffix(1)))
}

fn shift(path: &Path, n: u64) -> io::Result<()> {
    let [plain, gz, zst] = variants(path, n);
    // A finished compression that died before removing its source.
    if gz.exists() || zst.exists() {
        remove_if_there(&plain)?;
    }
    for (from, to) in [plain, gz, zst].iter().zip(variants(path, n + 1)) {
        if from.exists() {
            fuse::before();
            fs::rename(from, to)?;
        }
    }
    Ok(())
}

fn variants(path: &Path, n: u64) -> [PathBuf; 3] {
    ["", ".gz", ".zst"].map(|end| numbered(path, n_suffix(n) + end))
}

fn n_suffix(n: u64) -> String {
    format!(".{n}")
}

fn numbered(path: &Path, suffix: impl AsRef<std::ffi::OsStr>) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// `path.stamp`, or `path.stamp.n` if there are such: `n` is above all of
/// theirs, so that it tells which is the newer after retention took the first.
fn next_of(path: &Path, stamp: &str) -> io::Result<PathBuf> {
    let first = numbered(path, format!(".{stamp}"));
    let same = backups(path)?
        .into_iter()
        .filter(|backup| backup.stamp.as_deref() == Some(stamp));
    let next = same.map(|backup| backup.number.saturating_add(1)).max();
    // What is no backup of ours (a folder, a link) may have the name too.
    let is_free = |name: &PathBuf| fs::symlink_metadata(name).is_err();
    (next.unwrap_or(0)..u64::MAX)
        .map(|n| match n {
            0 => first.clone(),
            n => numbered(&first, n_suffix(n)),
        })
        .find(is_free)
        .ok_or_else(|| io::Error::other("no number is left for a backup"))
}

fn remove_if_there(name: &Path) -> io::Result<()> {
    fuse::before();
    match fs::remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A backup as the folder shows it.
#[derive(Debug, Clone)]
pub(super) struct Backup {
    pub(super) path: PathBuf,
    /// The time in its name, if a schedule gave it.
    stamp: Option<String>,
    /// In `path.number` the least is the newest, in `path.stamp.number` the
    /// greatest.
    number: u64,
    modified: SystemTime,
    size: u64,
}

impl Backup {
    /// Orders those with a time in their name. Within a day their last lines
    /// decide: minutes come twice when the clocks go back.
    fn age(&self) -> (&str, SystemTime, &str, u64) {
        let stamp = self.stamp.as_deref().unwrap_or_default();
        let day = stamp.get(..DAY.len()).unwrap_or_default();
        (day, self.modified, stamp, self.number)
    }
}

const DAY: &str = "0000-00-00";

/// The backups of `path`, newest first. Other files are left alone.
pub(super) fn backups(path: &Path) -> io::Result<Vec<Backup>> {
    let Some(name) = path.file_name() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path))?.flatten() {
        let other = entry.file_name();
        let rest = other
            .as_encoded_bytes()
            .strip_prefix(name.as_encoded_bytes());
        let suffix = rest.and_then(|rest| std::str::from_utf8(rest).ok());
        let (Some((stamp, number)), Ok(about)) = (suffix.and_then(take_apart), entry.metadata())
        else {
            continue;
        };
        if about.is_file() {
            found.push(Backup {
                path: entry.path(),
                stamp: stamp.map(str::to_owned),
                number,
                modified: about.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                size: about.len(),
            });
        }
    }
    Ok(newest_first(found))
}

/// A log that was rotated by size and is by time, or the reverse, has two
/// sequences of backups; between them, last lines decide.
fn newest_first(found: Vec<Backup>) -> Vec<Backup> {
    let (mut dated, mut numbered): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|backup| backup.stamp.is_some());
    dated.sort_by(|a, b| a.age().cmp(&b.age()));
    numbered.sort_by_key(|backup| std::cmp::Reverse(backup.number));
    let next = move || match (dated.last(), numbered.last()) {
        (Some(a), Some(b)) if a.modified < b.modified => numbered.pop(),
        (Some(_), _) => dated.pop(),
        (None, _) => numbered.pop(),
    };
    std::iter::from_fn(next).collect()
}

/// The stamp and number of `.3`, `.2026-11-24`, `.2026-11-24_13-05.2` and of
/// these with `.gz` or `.zst`; `None` for what is no backup's.
fn take_apart(suffix: &str) -> Option<(Option<&str>, u64)> {
    let bare = suffix
        .strip_suffix(".gz")
        .or_else(|| suffix.strip_suffix(".zst"))
        .unwrap_or(suffix);
    let bare = bare.strip_prefix('.')?;
    if let Some(number) = whole(bare) {
        return Some((None, number));
    }
    let (stamp, number) = bare.split_once('.').unwrap_or((bare, "0"));
    is_stamp(stamp).then_some((Some(stamp), whole(number)?))
}

/// `parse` alone takes a sign.
fn whole(text: &str) -> Option<u64> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok())?
}

fn is_stamp(text: &str) -> bool {
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let pattern: String = text.chars().map(shape).collect();
    let full = "0000-00-00_00-00-00";
    pattern.len() >= DAY.len() && full.starts_with(&pattern) && !pattern.ends_with(['-', '_'])
}

/// Removes the backups that no limit allows; returns the first failure.
pub(super) fn prune(path: &Path, policy: &Policy, now: SystemTime) -> io::Result<()> {
    if !policy.retains_otherwise() {
        return Ok(());
    }
    let mut total = 0;
    let mut outcome = Ok(());
    // Those that a death left both as they were and compressed count once.
    let mut seen = HashSet::new();
    for backup in backups(path)? {
        total += backup.size;
        seen.insert((backup.stamp.clone(), backup.number));
        let age = now.duration_since(backup.modified).unwrap_or_default();
        let keep = (policy.backup_count == 0 || seen.len() <= policy.backup_count)
            && policy.max_age.is_none_or(|limit| age <= limit)
            && policy.max_total_bytes.is_none_or(|limit| total <= limit);
        if !keep {
            outcome = outcome.and(remove_if_there(&backup.path));
        }
    }
    outcome
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
pub(super) mod tests;
